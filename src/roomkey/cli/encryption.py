"""``roomkey encryption …``: which data keys there are, and rotating them while servers run."""

import asyncio
import sys
from pathlib import Path
from typing import Final

from cyclopts import App

from roomkey import config as configuration
from roomkey.cli.outcome import EXIT_CODES, Exit, Failed, complain, print_json, print_table
from roomkey.config import Config
from roomkey.encrypted_stores import OpenStores, open_records, open_stores
from roomkey.encryption.data_keys import DataKeyStore, Users
from roomkey.encryption.rotation import RATE, Outcome, Outdated, Rotation, count_outdated
from roomkey.observability.logs import configure_events
from roomkey.observability.settings import LogLevel, LogSettings
from roomkey.ports import SystemClock
from roomkey.settings import SourcedValue

COUNTING_SECONDS: Final = 2.0
"""Maximum time in which records are counted."""

READABLE_USERS: Final = "ids of users can be read in the indexes of sessions"
HIDING_USERS: Final = "`roomkey storage copy` to a new storage hides them"

app = App("encryption", help="Look at data keys, and rotate them.", help_epilogue=EXIT_CODES, version_flags=())


@app.command
def status(storage: str | None = None, *, config: Path | None = None, json: bool = False) -> Exit:
    """
    Say which data keys there are, what wraps them, and how many records are not under the newest.

    Records are counted for two seconds at most; of a large storage it says how many it has looked at.

    Args:
        storage: What storage.url may be; left out, the storage that is configured.
        config: roomkey.toml with the other settings.
        json: Print JSON.
    """
    asyncio.run(_status(_load(config, storage), as_json=json))
    return Exit.DONE


@app.command
def rotate(storage: str | None = None, *, config: Path | None = None, rate: int = RATE, json: bool = False) -> Exit:
    """
    Make a new data key, and write everything anew under it. Servers go on meanwhile.

    It may be stopped and run again, and then goes on where it was. Exit code 0 means that old keys are gone.

    Args:
        storage: What storage.url may be; left out, the storage that is configured.
        config: roomkey.toml with the other settings.
        rate: Maximum number of records per second that are looked at.
        json: Print JSON.
    """
    if rate <= 0:
        raise Failed("--rate is a number of records per second", Exit.USAGE)
    outcome = asyncio.run(_rotate(_load(config, storage), rate))
    if json:
        print_json(
            {
                "key": outcome.key.hex(),
                "resealed": outcome.resealed,
                "left": outcome.left,
                "not_resealable": outcome.not_resealable,
                "retired": [key.hex() for key in outcome.retired],
            }
        )
    else:
        _show(outcome)
    return Exit.DONE if outcome.is_complete else Exit.FAILED


@app.command
def rewrap(storage: str | None = None, *, config: Path | None = None) -> Exit:
    """
    Wrap the data keys with encryption.key that encryption.previous_key wrapped. Servers may run.

    Args:
        storage: What storage.url may be; left out, the storage that is configured.
        config: roomkey.toml with the other settings.
    """
    asyncio.run(_rewrap(_load(config, storage)))
    return Exit.DONE


def _load(file: Path | None, url: str | None) -> Config:
    given = {} if url is None else {"storage.url": SourcedValue(url, "the command line")}
    chosen = configuration.load(file, given)
    configure_events(LogSettings(level=LogLevel.ERROR), sys.stderr)
    if chosen.storage.location.lower().startswith("memory:"):
        raise Failed("what is in memory is not encrypted, and its keys end with the process", Exit.USAGE)
    folder = chosen.storage.folder
    if folder is not None and not (folder / "data.mdb").exists():
        raise Failed(f"there is no storage in {folder}", Exit.USAGE)
    return chosen


async def _status(config: Config, *, as_json: bool) -> None:
    async with open_stores(config) as opened:
        keys = opened.encryption.keys
        writing = None if keys is None else keys.writing(SystemClock().now())
        rows = () if keys is None else keys.ring.keys
        reads_unsealed = keys is None or keys.ring.reads_unsealed
        outdated = None
        if keys is not None:
            async with open_records(config, opened) as stores:
                outdated = await count_outdated(stores.values(), COUNTING_SECONDS)
    if as_json:
        print_json(
            {
                "encrypted": keys is not None,
                "reads_unsealed": reads_unsealed,
                "users": None if keys is None else keys.ring.users.value,
                "keys": [
                    {
                        "id": key.id.hex(),
                        "wrapped_by": key.wrapped_by,
                        "created_at": key.created_at,
                        "writes_from": key.writes_from,
                        "writes": key.id == writing,
                    }
                    for key in rows
                ],
                "records": None
                if outdated is None
                else {
                    "looked_at": outdated.looked_at,
                    "under_old_keys": outdated.outdated,
                    "all_looked_at": outdated.is_all,
                },
            }
        )
        return
    columns = ("data key", "wrapped by", "made", "seals")
    words = {True: "now", False: "no"}
    print_table(
        columns,
        [(key.id.hex(), key.wrapped_by, key.created_at.isoformat(), words[key.id == writing]) for key in rows],
    )
    if outdated is not None:
        complain(in_words(outdated))
    if keys is None:
        complain("records are not encrypted: there are no data keys")
    elif reads_unsealed:
        complain("records that are not encrypted are read, too, until `roomkey encryption rotate` has run")
    if keys is not None and keys.ring.users is Users.READABLE:
        complain(f"{READABLE_USERS}: {HIDING_USERS}")


def in_words(found: Outdated) -> str:
    """How many records are not under the newest key."""
    more = "" if found.is_all else f"; there are more, which were not looked at within {COUNTING_SECONDS:g} s"
    return f"{found.outdated} of {found.looked_at} records are not under the key that seals now{more}"


async def _rotate(config: Config, rate: int) -> Outcome:
    async with open_stores(config) as opened, open_records(config, opened) as stores:
        rotation = Rotation(opened.encryption, opened.objects, stores, SystemClock(), rate=rate, told=_Progress().told)
        return await rotation.run()


async def _rewrap(config: Config) -> None:
    async with open_stores(config) as opened:
        await _keys(opened).rewrap()


def _keys(opened: OpenStores) -> DataKeyStore:
    return opened.encryption.data_keys(opened.objects)


class _Progress:
    """Lines on standard error, when something else begins and for every ten thousand records."""

    def __init__(self) -> None:
        self._said: tuple[str, int] = ("", 0)

    def told(self, what: str, number: int) -> None:
        step = what, number // 10_000
        if sys.stderr.isatty() and step != self._said:
            self._said = step
            sys.stderr.write(f"{what}{f': {number}' if number else ''}\n")


def _show(outcome: Outcome) -> None:
    print_table(
        ("data key", "written anew", "cannot be read", "old keys retired"),
        [(outcome.key.hex(), str(outcome.resealed), str(outcome.left), str(len(outcome.retired)))],
    )
    if outcome.left:
        complain(f"{outcome.left} records cannot be read, so old keys are kept: `roomkey doctor` names them")
    for what in outcome.not_resealable:
        complain(f"{what} cannot be written anew, so old keys are kept")
