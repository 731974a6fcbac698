"""
The results as a page with a picture: ``python -m benchmarks.report results.json docs``.

Figures are set side by side as they were measured in one run; the page says on what machine, and promises nothing.
Tables are of two kinds: paced ones say what a server costs every day, saturated ones how much fits. The first place
is the city's, if it was measured: many small documents in which people type as people do.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import scaling_page
from benchmarks.harness import GOAL_COLUMNS, Figure, Goal, Result, Row, tables, write_or_print
from benchmarks.scaling_page import table

PAGE: Final = "benchmarks.md"
PICTURE: Final = "benchmarks.svg"

PLOTTED: Final[Mapping[str, str]] = {
    "sessions": "operations",
    "stores": "operations",
    "rest": "requests",
    "broadcast": "deliveries per CPU second",
    "idle": "memory each",
    "documents": "deliveries per CPU second",
    "cluster": "deliveries per CPU second",
    "joining": "all joined p50",
    "opening": "memory per document",
}
"""The quantity of each benchmark with several sides that is drawn."""

PLOTTED_PACED: Final[Mapping[str, str]] = {
    "city": "server CPU",
    "broadcast": "CPU per delivery",
    "documents": "CPU per delivery",
    "cluster": "CPU per delivery",
}
"""The quantity that is drawn of rows that were paced."""

HEADLINE: Final = "city"
"""The benchmark that comes first, whose rows are one table."""

HEADLINE_COLUMNS: Final = (
    *("documents", "people", "edits", "server CPU", "memory", "peak memory"),
    *("delivery p50", "delivery p99", "durable p50", "durable p99"),
)
"""Their order; other quantities follow them."""

INTRODUCTION: Final = """\
# Benchmarks

How fast Roomkey is next to others, and what it costs. The figures were measured side by side in one run on one
machine, server and load on a core each where there are two sides; they are ratios to learn from, not promises: another
machine gives others. Each is the median of its rounds, with the smallest and the largest behind it. The sides take
turns, after a warm-up that does not count.

Paced figures say what a server costs every day, when people type as people do; saturated ones how much fits, when
everything comes as fast as it is taken.
"""


def read(file: Path) -> list[Result]:
    """The results that ``run_all`` has kept."""
    return msgspec.json.decode(file.read_bytes(), type=list[Result])


def write(results: Sequence[Result], folder: Path) -> bool:
    """
    Write the page and its picture into ``folder``, which is made if it does not exist, and the page on growth.

    Where that is impossible the page is printed; returns whether it was written.
    """
    picture = draw(results)
    if not write_or_print(folder / PAGE, render(results, with_picture=picture is not None).rstrip("\n")):
        return False
    if not scaling_page.write(results, folder):
        return False
    return picture is None or write_or_print(folder / PICTURE, picture.rstrip("\n"))


# --- the page -------------------------------------------------------------------------------------------


def render(results: Sequence[Result], *, with_picture: bool) -> str:
    """The page in Markdown."""
    parts = [INTRODUCTION, *_circumstances(results)]
    if with_picture:
        parts.append(f"![The sides of each comparison as bars]({PICTURE})\n")
    first = [result for result in results if result.benchmark == HEADLINE]
    for result in first:
        parts += list(_headline(result))
    goals = [goal for result in results for goal in result.finding.goals]
    if goals:
        parts += ["## Goals\n", table(GOAL_COLUMNS, [goal.cells() for goal in goals])]
    for result in results:
        if result not in first:
            parts += list(_section(result))
    return "\n".join(parts)


def _circumstances(results: Sequence[Result]) -> Iterator[str]:
    machines = list(dict.fromkeys(str(result.machine) for result in results))
    days = sorted({f"{result.at:%Y-%m-%d}" for result in results})
    versions = [version for result in results for version in result.versions.items()]
    peers = [version for result in results for version in result.peers.items()]
    yield "\n".join(
        [
            *(f"- Machine: {machine}" for machine in machines),
            f"- Date: {', '.join(days)}",
            f"- Roomkey stands on: {_listed(versions)}",
            f"- Compared with: {_listed(peers)}",
            "- Again: `python -m benchmarks.run_all --output results.json --report docs`",
            "",
        ]
    )


def _listed(versions: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{package} {version}" for package, version in sorted(set(versions)))


def _headline(result: Result) -> Iterator[str]:
    """All rows in one table, whatever was measured of each."""
    yield from _beginning(result)
    rows = [row for row in result.finding.rows if row.figures]
    found = dict.fromkeys([*HEADLINE_COLUMNS, *(name for row in rows for name in row.figures)])
    names = [name for name in found if any(name in row.figures for row in rows)]
    cells = [(row.case, row.side, *(str(row.figures.get(name, "")) for name in names)) for row in rows]
    skipped = [(row.case, row.side, f"skipped: {row.skipped}") for row in result.finding.rows if row.skipped]
    yield table(("case", "server", *names), [*cells, *skipped])
    yield _notes(result)


def _section(result: Result) -> Iterator[str]:
    yield from _beginning(result)
    finding = msgspec.structs.replace(result.finding, goals=list[Goal]())  # they stand at the top
    for lines in tables(finding):
        if lines.heading:
            yield f"**{lines.heading}**\n"
        yield table(lines.columns, lines.cells)
    yield _notes(result)


def _beginning(result: Result) -> Iterator[str]:
    yield f"## {result.title}\n"
    yield f"{result.about} `{result.command}`\n"


def _notes(result: Result) -> str:
    return "\n".join(f"- {note}" for note in result.finding.notes) + "\n"


# --- the picture ----------------------------------------------------------------------------------------

WIDTH: Final = 860
LABELS: Final = 330
BARS: Final = 380
LINE: Final = 20
COLOURS: Final = ("#2563eb", "#9ca3af", "#d97706", "#059669", "#7c3aed", "#db2777")
TEXT: Final = "#6b7280"
"""Legible on white as on black, for pages are read on both."""


def draw(results: Sequence[Result]) -> str | None:
    """Bars for every case that has more than one side, each case to its own scale; ``None`` if there is none."""
    shapes: list[str] = []
    height = LINE
    for result, quantity, cases in _drawn(results):
        shapes.append(_text(0, height, f"{result.title}: {quantity}", weight="bold"))
        height += LINE
        for case, sides in cases.items():
            shapes.append(_text(0, height, case))
            height += LINE
            longest = max(figure.median for figure in sides.values()) or 1
            for (side, figure), colour in zip(sides.items(), COLOURS, strict=False):
                shapes += _bar(height, side, figure, colour, figure.median / longest)
                height += LINE
        height += LINE
    if not shapes:
        return None
    font = 'font-family="system-ui, sans-serif" font-size="13"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {font} fill="{TEXT}">'
    return "\n".join([head, *shapes, "</svg>", ""])


def _drawn(results: Sequence[Result]) -> Iterator[tuple[Result, str, dict[str, dict[str, Figure]]]]:
    """What has several sides, the headline first: the quantity, and its figures by case and side."""
    for result in sorted(results, key=lambda result: result.benchmark != HEADLINE):
        for plotted, is_paced in ((PLOTTED_PACED, True), (PLOTTED, False)):
            quantity = plotted.get(result.benchmark)
            rows = [row for row in result.finding.rows if bool(row.paced) is is_paced]
            if quantity and (cases := _cases(rows, quantity)):
                yield result, quantity, cases


def _cases(rows: Sequence[Row], quantity: str) -> dict[str, dict[str, Figure]]:
    cases: dict[str, dict[str, Figure]] = {}
    for row in rows:
        if quantity in row.figures:
            cases.setdefault(row.case, {})[row.side] = row.figures[quantity]
    return {case: sides for case, sides in cases.items() if len(sides) > 1}


def _bar(top: int, side: str, figure: Figure, colour: str, share: float) -> list[str]:
    width = max(round(BARS * share), 1)
    middle = str(Figure([figure.median], figure.unit))
    return [
        _text(LABELS - 10, top, side, anchor="end"),
        f'<rect x="{LABELS}" y="{top - 11}" width="{width}" height="14" rx="2" fill="{colour}"/>',
        _text(LABELS + width + 8, top, middle),
    ]


def _text(x: int, y: int, text: str, *, weight: str = "normal", anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" font-weight="{weight}" text-anchor="{anchor}">{escape(text)}</text>'


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m benchmarks.report RESULTS FOLDER")
    sys.exit(0 if write(read(Path(sys.argv[1])), Path(sys.argv[2])) else 1)
