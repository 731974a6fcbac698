"""``roomkey storage …``: taking everything from one storage to another, and looking whether one is sound."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

from cyclopts import App

from roomkey import config
from roomkey.backends import urls
from roomkey.backends.moving import Examination, Foreign, House, Progress, Report, copy, examine
from roomkey.cli.outcome import EXIT_CODES, Exit, Failed, complain, print_json, print_table
from roomkey.config import Config, StorageSettings
from roomkey.encrypted_stores import OpenStores, documents_of, open_stores, sessions_of
from roomkey.errors import Conflict
from roomkey.observability.logs import configure_events
from roomkey.observability.settings import LogLevel, LogSettings
from roomkey.ports import MovableDocuments, MovableSessions, SystemClock
from roomkey.settings import SourcedValue

app = App("storage", help="Copy a storage; look whether one is sound.", help_epilogue=EXIT_CODES, version_flags=())

SAME: Final = "same"


@app.command(name="copy", help_format="markdown")
def copy_storage(
    source: str,
    target: str,
    *,
    documents_from: str = SAME,
    documents_to: str = SAME,
    config: Path | None = None,
    json: bool = False,
) -> Exit:
    """
    Copy everything to an empty storage, and compare both. The source is only read, and may be in use.

    It may be stopped and run again, which brings what is missing. Stop all servers before the last run, so that
    nothing is left behind. Exit code 0 means that both are the same.

    Args:
        source: What storage.url may be, such as file, redis or lmdb:///var/lib/roomkey.
        target: The same; it must be empty, or a copy of this source that was begun.
        documents_from: Storage of the documents, if they are kept elsewhere.
        documents_to: Storage that they are to be in, if that is another one.
        config: roomkey.toml with the other settings.
        json: Print JSON.
    """
    places = _settings(config, source, documents_from), _settings(config, target, documents_to)
    here, there = (place.storage for place in places)
    _check_lasting(here)
    _check_lasting(there)
    _check_source(here)
    if {here.location, here.documents_location} & {there.location, there.documents_location}:
        raise Failed("source and target are the same storage", Exit.USAGE)
    with _progress() as progress:
        try:
            report = asyncio.run(_copy(*places, progress))
        except Foreign as error:
            raise Failed(str(error)) from None
        except Conflict as error:
            raise Failed(f"the target is written to by somebody else: {error}") from None
    if json:
        print_json(_report(report))
    else:
        _show_report(report, here)
    return Exit.DONE if report.is_identical else Exit.FAILED


@app.command
def verify(url: str | None = None, *, documents: str = SAME, config: Path | None = None, json: bool = False) -> Exit:
    """
    Read everything in a storage, and say where records, log, indexes and counters contradict one another.

    Args:
        url: What storage.url may be; left out, the storage that is configured.
        documents: Storage of the documents, if they are kept elsewhere.
        config: roomkey.toml with the other settings.
        json: Print JSON.
    """
    place = _settings(config, url, documents if url is not None or documents != SAME else None)
    _check_lasting(place.storage)
    _check_source(place.storage)
    with _progress() as progress:
        examination = asyncio.run(_examine(place, progress))
    if json:
        print_json(
            {
                "sound": not examination.wrong,
                "counts": examination.counts,
                "wrong": examination.wrong,
                "problems": examination.problems,
                "notes": examination.notes,
            }
        )
    else:
        _show_examination(examination)
    return Exit.FAILED if examination.wrong else Exit.DONE


async def _copy(source: Config, target: Config, progress: Progress) -> Report:
    async with (
        open_stores(source) as here,
        open_stores(target, like=here) as there,
        _house(here, source) as old,
        _house(there, target) as new,
    ):
        return await copy(old, new, progress)


async def _examine(place: Config, progress: Progress) -> Examination:
    async with open_stores(place) as opened, _house(opened, place) as house:
        return await examine(*house, clock=SystemClock(), progress=progress)


@asynccontextmanager
async def _house(opened: OpenStores, place: Config) -> AsyncGenerator[House]:
    sessions, documents = sessions_of(place, opened), documents_of(place, opened)
    if not isinstance(sessions, MovableSessions) or not isinstance(documents, MovableDocuments):
        raise Failed(f"{urls.shown(place.storage.location)} cannot hand over what is in it yet", Exit.USAGE)
    async with sessions, documents:
        yield House(sessions, documents, opened.objects)


def _settings(file: Path | None, url: str | None, documents: str | None) -> Config:
    given: dict[str, SourcedValue] = {}
    if url is not None:
        given["storage.url"] = SourcedValue(url, "the command line")
    if documents is not None:
        given["storage.documents"] = SourcedValue(documents, "the command line")
    chosen = config.load(file, given)
    # What was damaged or failed is said by the command itself.
    configure_events(LogSettings(level=LogLevel.ERROR), sys.stderr)
    return chosen


def _check_lasting(settings: StorageSettings) -> None:
    for location in (settings.location, settings.documents_location):
        if location.startswith("memory:"):
            raise Failed("what is in memory is there as long as a process: there is nothing to look at", Exit.USAGE)


def _check_source(settings: StorageSettings) -> None:
    """Opening would make what is not there."""
    for folder in (settings.folder, settings.documents_folder):
        if folder is not None and not (folder / "data.mdb").exists():
            raise Failed(f"there is no storage in {folder}", Exit.USAGE)
    for location in (settings.location, settings.documents_location):
        file = urls.database_file_of(location)
        if file is not None and not file.exists():
            raise Failed(f"there is no {file}", Exit.USAGE)


# --- what is shown ------------------------------------------------------------------------------------


@contextmanager
def _progress() -> Generator[Progress]:
    """A bar on standard error for each thing that is done, if somebody is looking."""
    if not sys.stderr.isatty():
        yield _unseen
        return
    from rich.console import Console  # noqa: PLC0415  # as in ``outcome``
    from rich.progress import Progress as Bars  # noqa: PLC0415

    with Bars(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what.capitalize(), total=of)
            bars.update(tasks[what], completed=done, total=of)

        yield show


def _unseen(what: str, done: int, of: int) -> None:
    """Nobody looks at how far it is."""


def _report(report: Report) -> Mapping[str, Any]:
    return {
        "identical": report.is_identical,
        "source_changed": report.changed,
        "records": {
            name: {
                "written": section.written,
                "source": {"count": section.source.count, "hash": section.source.hash},
                "target": {"count": section.target.count, "hash": section.target.hash},
            }
            for name, section in report.sections.items()
        },
        "different": report.different,
        "differences": report.differences,
        "unread": report.unread,
        "unreadable": report.unreadable,
    }


def _show_report(report: Report, source: StorageSettings) -> None:
    rows = [
        (name, str(section.written), str(section.source.count), str(section.target.count), section.target.hash[:16])
        for name, section in report.sections.items()
    ]
    print_table(("records", "written", "source", "target", "hash"), rows, numeric=("written", "source", "target"))
    complain(*_and_more([f"{what} cannot be read in the source" for what in report.unreadable], report.unread))
    complain(*_and_more(report.differences, report.different))
    if report.changed:
        complain("the source has changed meanwhile: run it again, which brings the rest")
    if report.is_identical and source.key_file is not None and source.key_file.exists():
        complain(f"the master key is not part of the storage: take {source.key_file} with you")


def _show_examination(examination: Examination) -> None:
    rows = [(what, str(number)) for what, number in sorted(examination.counts.items())]
    print_table(("records", "count"), rows, numeric=("count",))
    complain(*examination.notes)
    complain(*_and_more(examination.problems, examination.wrong))


def _and_more(named: Sequence[str], number: int) -> list[str]:
    more = number - len(named)
    return [*named, *([f"and {more} more"] if more else [])]
