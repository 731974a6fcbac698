"""What sealing a record costs, next to the checksum that records have otherwise."""

import os
from collections.abc import Callable
from functools import partial
from typing import Final

from benchmarks.harness import Benchmark, Finding, Plan, Row, figures, installed, least, main
from roomkey.encryption.records import ID_BYTES, Ciphers, SealedRecords
from roomkey.ports import CHECKSUMMED_RECORDS, RecordCodec, RecordKind

SIZES: Final = (100, 500, 4_000, 64_000)
CALLS: Final = 100
TURNS: Final = 100

CHECKSUM: Final = "with a checksum"
SEALED: Final = "sealed"


def _codecs() -> dict[str, RecordCodec]:
    ciphers = Ciphers()
    key = bytes(ID_BYTES)
    ciphers.use({key: os.urandom(32)}, writing=key, reads_unsealed=False)
    return {CHECKSUM: CHECKSUMMED_RECORDS, SEALED: SealedRecords(ciphers).within("sessions")}


def _works(codec: RecordCodec, size: int) -> dict[str, Callable[[], object]]:
    """Writing and reading a record of this size."""
    id, record = os.urandom(14).hex().encode(), os.urandom(size)
    stored = codec.encode(RecordKind.SESSION, id, 3, record)
    if bytes(codec.decode(RecordKind.SESSION, id, 3, stored)) != record:
        raise AssertionError("what was written is not what is read")
    return {
        "write": partial(codec.encode, RecordKind.SESSION, id, 3, record),
        "read": partial(codec.decode, RecordKind.SESSION, id, 3, stored),
    }


def run(plan: Plan) -> Finding:
    """Every size with both, in turns and in one process."""
    rows: list[Row] = []
    codecs = _codecs()
    for size in SIZES:
        works = {f"{side} {what}": work for side, codec in codecs.items() for what, work in _works(codec, size).items()}
        rounds = [least(works, calls=CALLS, turns=plan.size(TURNS, 3)) for _ in range(plan.rounds)]
        rows += [
            Row(
                f"a record of {size:,} B",
                side,
                figures([{what: (found[f"{side} {what}"], "µs") for what in ("write", "read")} for found in rounds]),
            )
            for side in codecs
        ]
    return Finding(rows, notes=NOTES)


NOTES: Final = [
    "In process and without a store: the encoding alone.",
    "Each round is the shortest of many short turns, so that what else runs on the machine counts as little as can be.",
]

BENCHMARK: Final = Benchmark(
    name="encryption",
    title="Sealed records",
    about="What it costs to encrypt and to decrypt a record, next to its checksum.",
    run=run,
    versions=installed("cryptography"),
)

if __name__ == "__main__":
    main(BENCHMARK)
