"""``roomkey audit verify | prove``: what the log says of itself, looked at as an outsider does, and receipts."""

import asyncio
import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter
from msgspec.structs import replace

from roomkey.audit import proofs
from roomkey.audit.checkpoints import Checkpoint, checkpoint
from roomkey.audit.notes import VerifierKey, note, verifier_key
from roomkey.audit.sources import DirectorySource, ServedSource
from roomkey.audit.verification import Expectation, Report
from roomkey.audit.verification import verify as verify_log
from roomkey.cli.clients import Client, Request
from roomkey.cli.outcome import Exit, Failed, complain, print_bytes, print_json, print_table
from roomkey.cli.target import Target
from roomkey.errors import InvalidInput, NotProven

LOG: Final = "/audit/log"
KEYS: Final = "/audit/keys"

Witnesses = Annotated[Sequence[str], Parameter(name="--witness", help="Verifier key of a witness; may be repeated.")]
Keys = Annotated[Sequence[str], Parameter(help="Verifier key of the log, name+id+key; may be repeated.")]


def verify(  # noqa: PLR0913  # each is a flag
    *,
    from_url: str | None = None,
    directory: Path | None = None,
    key: Keys = (),
    witnesses: Witnesses = (),
    quorum: int = 0,
    since: Sequence[Path] = (),
    url: str | None = None,
    storage: str | None = None,
    config: Path | None = None,
    json: bool = False,
) -> Exit:
    """
    Read the whole log, and say where it was changed, cut, reordered, or is not what was signed.

    Args:
        from_url: Prefix of a log anywhere, such as https://rooms.example.com/audit/log.
        directory: A copy of a log, laid out as it is served.
        quorum: Number of these witnesses that must have signed the checkpoint.
        since: Checkpoint or receipt that was kept earlier, which the log must continue; may be repeated.
        url: Running server whose log it is.
        storage: Storage whose log it is, without a server.
        config: With --storage: roomkey.toml with the other settings.
        json: Print JSON.
    """
    target = Target(url=url, storage=storage, config=config)
    keys, earlier = _keys(key), [_earlier(path) for path in since]
    if directory is not None and not keys:
        raise Failed("--key: a copy in a directory is verified by a key that you have from elsewhere", Exit.USAGE)
    expected = Expectation(keys=keys, witnesses=_keys(witnesses), quorum=quorum, earlier=earlier)
    report = asyncio.run(_verify(target, from_url, directory, expected))
    if json:
        print_json(_in_json(report))
    else:
        _show(report, is_key_given=bool(keys))
    return Exit.DONE if report.is_sound else Exit.FAILED


def prove(file: Path, *, key: Keys = (), entry: Path | None = None, witnesses: Witnesses = (), quorum: int = 0) -> None:
    """
    Verify a receipt, without asking anybody, and print the entry that it proves.

    Args:
        file: The receipt.
        entry: The entry, if it is not in the receipt.
        quorum: Number of these witnesses that must have signed.
    """
    if not key:
        raise Failed("--key: a receipt is verified by a key that you have from elsewhere", Exit.USAGE)
    given = proofs.receipt(_read(file, proofs.MAX_RECEIPT_BYTES))
    content = None if entry is None else _read(entry, proofs.MAX_RECEIPT_BYTES)
    try:
        proven = proofs.verify(given, keys=_keys(key), witnesses=_keys(witnesses), quorum=quorum, entry=content)
    except NotProven as error:
        raise Failed(f"nothing is proven: {error}") from None
    witnesses = f", as {', '.join(proven.witnesses)} witnessed" if proven.witnesses else ""
    complain(f"entry {proven.index} is in {proven.head.origin}, of {proven.head.size} entries{witnesses}")
    print_bytes(proven.entry)


async def _verify(target: Target, prefix: str | None, directory: Path | None, expected: Expectation) -> Report:
    if directory is not None:
        return await verify_log(DirectorySource(directory), expected)
    log, keys = LOG, KEYS
    if prefix is not None:
        place = prefix.rstrip("/").removesuffix("/log")
        target = dataclasses.replace(target, url=place, storage=None)
        log, keys = prefix.rstrip("/").removeprefix(place), "/keys"
    async with target.connected() as client:
        if not expected.keys:
            expected = replace(expected, keys=await _own_keys(client, keys))
        return await verify_log(ServedSource(partial(_fetch, client), log), expected)


async def _fetch(client: Client, path: str, most: int) -> tuple[int, bytes]:
    return await client.call(Request("GET", path, most_bytes=most))


async def _own_keys(client: Client, path: str) -> Sequence[VerifierKey]:
    """The keys that the server says are its own: good for finding damage, not for finding lies of the server."""
    answer = await client.call(Request("GET", path))
    if answer.status in (401, 403):
        raise Failed("ROOMKEY_KEY: the audit log is for those who may read it", Exit.DENIED)
    try:
        return _keys(msgspec.json.decode(answer.content)["keys"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise Failed(f"{path} does not say which keys the log has: give --key", Exit.USAGE) from None


def _keys(texts: Sequence[str]) -> Sequence[VerifierKey]:
    try:
        return [verifier_key(text) for text in texts]
    except InvalidInput as error:
        raise Failed(f"--key, --witness: {error}", Exit.USAGE) from None


def _earlier(path: Path) -> Checkpoint:
    content = _read(path, proofs.MAX_RECEIPT_BYTES)
    try:
        is_receipt = content.startswith(proofs.HEADER.encode())
        return checkpoint((proofs.receipt(content).head if is_receipt else note(content)).text)
    except InvalidInput as error:
        raise Failed(f"--since: {path}: {error}", Exit.USAGE) from None


def _read(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        return file.read(most + 1)


def _in_json(report: Report) -> Any:
    head = report.head
    return {
        "sound": report.is_sound,
        "origin": None if head is None else head.origin,
        "size": None if head is None else head.size,
        "signed_by": report.signed_by,
        "witnesses": report.witnessed,
        "tiles": report.tiles,
        "entries": report.entries,
        "entries_not_shown": report.not_shown,
        "entries_denied": report.entries_denied,
        "findings": report.findings,
    }


def _show(report: Report, *, is_key_given: bool) -> None:
    if report.head is not None:
        print_table(
            ("log", "entries", "verified", "tiles", "witnesses"),
            [
                (
                    report.head.origin,
                    f"{report.head.size:,}",
                    f"{report.entries:,}",
                    f"{report.tiles:,}",
                    ", ".join(report.witnessed) or "none",
                )
            ],
            numeric=("entries", "verified", "tiles"),
        )
    if report.findings:
        print_table(("flaw", "where", "what"), [(each.flaw, each.place, each.detail) for each in report.findings])
    if report.entries_denied:
        complain("entries were not verified: they are for auditors, and ROOMKEY_KEY is none or not enough")
    if report.not_shown:
        complain(f"{report.not_shown} entries are older than what the log shows; their hashes are in order")
    if not is_key_given:
        complain("the key is what the server says: with --key it is proven that nobody has put another in its place")
