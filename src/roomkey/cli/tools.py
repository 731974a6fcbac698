"""The smaller commands: the contracts of HTTP and of ``/ws``, and the benchmark."""

import asyncio
from typing import Annotated

from cyclopts import Parameter
from msgspec.structs import asdict

from roomkey.cli.outcome import Exit, Failed, print_json, print_table

JsonFlag = Annotated[bool, Parameter(help="Print JSON.")]


def openapi() -> None:
    """Print the HTTP contract as OpenAPI in JSON, as a server answers it at /openapi.json."""
    from roomkey.api.app import document  # noqa: PLC0415  # the other commands do not need it

    print_json(document())


def asyncapi() -> None:
    """Print the messages of all sockets and hooks as AsyncAPI in JSON, as a server answers it at /asyncapi.json."""
    from roomkey.api.asyncapi import describe  # noqa: PLC0415  # the other commands do not need it

    print_json(describe())


def messages() -> None:
    """Print the messages of the WebSocket at /ws as JSON Schema (2020-12)."""
    from roomkey.realtime.protocol.message_schema import describe  # noqa: PLC0415  # the other commands do not need it

    print_json(describe())


def bench(*, count: int = 20_000, json: JsonFlag = False) -> None:
    """
    Measure how fast sessions are created, read, changed and deleted, in memory and in a temporary file.

    Args:
        count: How many sessions.
    """
    from roomkey import bench as benchmark  # noqa: PLC0415  # the other commands do not need it

    if count < 1:
        raise Failed("--count: there must be at least one session", Exit.USAGE)
    measured = [line for storage in benchmark.STORAGES for line in asyncio.run(benchmark.measure(storage, count))]
    if json:
        print_json([asdict(line) | {"per_second": round(line.per_second)} for line in measured])
        return
    columns = ("storage", "command", "callers", "sessions", "seconds", "per second")
    rows = [
        (
            line.storage,
            line.command,
            str(line.callers),
            f"{line.count:,}",
            f"{line.seconds:.3f}",
            f"{line.per_second:,.0f}",
        )
        for line in measured
    ]
    print_table(columns, rows, numeric=columns[2:])
