"""How a command ends and what it leaves on the screen: exit codes, tables for people, JSON for programs."""

import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from io import TextIOWrapper
from itertools import chain, zip_longest
from typing import Any, Final
from unicodedata import combining, east_asian_width


class Exit(IntEnum):
    """What the exit code of a command says. Part of the public contract."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    AWAY = 3
    DENIED = 4


EXIT_CODES = """\
Exit codes: 0 done · 1 failed, or there is no such thing · 2 wrong usage or configuration, or this machine does not \
allow it · 3 the server or the storage is away · 4 the key or the session may not do this. \
`--debug` shows the traceback of any error."""


class Failed(Exception):
    """A command could not do what it was asked for; the message says why in one line."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def prepare_streams() -> None:
    """
    Make standard input, output and error what every command may rely on, however the process was started.

    A closed one becomes the null device: otherwise the next file that is opened, such as a storage, would get its
    number, and with it what is meant for the terminal. Characters that an output cannot show are spelt out.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # as long as the process
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get("COLUMNS") == "0":
        del os.environ["COLUMNS"]  # how some terminals say that they do not know, and rich takes at its word


def abandon_output() -> None:
    """Nobody takes what is still to be written to standard output, so that the interpreter must not try at exit."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def complain(*problems: str) -> None:
    """One line on standard error for each problem."""
    for problem in problems:
        with suppress(OSError):
            print(f"roomkey: {problem}", file=sys.stderr, flush=True)  # noqa: T201  # a command's voice


def print_json(value: Any) -> None:
    """``value`` as indented JSON, which is UTF-8 whatever the locale is."""
    from msgspec import json  # noqa: PLC0415  # most commands print something else

    print_bytes(json.format(json.encode(value)) + b"\n")


def print_bytes(value: bytes) -> None:
    """``value`` as it is; whoever reads it is a program."""
    sys.stdout.flush()
    sys.stdout.buffer.write(value)
    sys.stdout.buffer.flush()


Advance = Callable[[int, int | None], None]
"""Is told how many bytes are done, and of how many if that is known."""


def unseen(done: int, size: int | None) -> None:
    """Nobody looks at how far it is."""


@contextmanager
def progress(what: str) -> Generator[Advance]:
    """A bar on standard error until the block is left, if somebody is looking; what it yields moves it."""
    if not sys.stderr.isatty():
        yield unseen
        return
    from rich.console import Console  # noqa: PLC0415  # as below
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, size: bar.update(task, completed=done, total=size)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Sequence[str] = ()) -> None:
    """A table that fits the terminal; in a pipe it is as wide as its content."""
    if sys.stdout.isatty():
        _print_fitting(columns, rows, numeric)
    else:
        print("\n".join(_lines(columns, rows, numeric)))  # noqa: T201  # the answer


def _print_fitting(columns: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[str]) -> None:
    # Not at the top: rich takes a tenth of a second, and what starts commands by the hundred does so in a pipe.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numeric else "left", overflow="fold")
    for row in rows:
        # Text, because a user's id is data: brackets in it are no markup.
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


_NOT_SHOWN: Final = dict.fromkeys(map(ord, "\a\b\v\f\r"))


def _lines(columns: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[str]) -> Iterator[str]:
    """The lines of a table. A cell may have several."""
    table = [[cell.translate(_NOT_SHOWN).split("\n") for cell in row] for row in (columns, *rows)]
    widths = [max(map(_width, chain.from_iterable(column))) for column in zip(*table, strict=True)]
    for row in table:
        for parts in zip_longest(*row, fillvalue=""):
            cells = [
                f"{fill}{part}" if column in numeric else f"{part}{fill}"
                for column, part, fill in zip(columns, parts, map(_fill, parts, widths), strict=True)
            ]
            yield "  ".join(cells).rstrip()


def _fill(part: str, width: int) -> str:
    return " " * (width - _width(part))


def _width(text: str) -> int:
    """Number of columns that a terminal needs."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)
