"""
The results as a page with a picture: ``python -m benchmarks.report results.json docs``.

Figures are set side by side as they were measured in one run; the page says on what machine, and promises nothing.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.harness import Figure, Goal, Result, Row, tables

PAGE: Final = "benchmarks.md"
PICTURE: Final = "benchmarks.svg"

PLOTTED: Final[Mapping[str, str]] = {
    "sessions": "operations",
    "rest": "requests",
    "broadcast": "deliveries per CPU second",
    "idle": "memory each",
    "documents": "deliveries per CPU second",
    "joining": "all joined p50",
    "opening": "memory per document",
}
"""The quantity of each benchmark with several sides that is drawn."""

INTRODUCTION: Final = """\
# Benchmarks

How fast Roomkey is next to others, and what it costs. The figures were measured side by side in one run on one
machine, server and load on a core each where there are two sides; they are ratios to learn from, not promises: another
machine gives others. Each is the median of its rounds, with the smallest and the largest behind it. The sides take
turns, after a warm-up that does not count.
"""


def read(file: Path) -> list[Result]:
    """The results that ``run_all`` has kept."""
    return msgspec.json.decode(file.read_bytes(), type=list[Result])


def write(results: Sequence[Result], folder: Path) -> None:
    """Write the page and its picture into ``folder``, which is made if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = draw(results)
    (folder / PAGE).write_text(render(results, with_picture=picture is not None), encoding="utf-8")
    if picture is not None:
        (folder / PICTURE).write_text(picture, encoding="utf-8")


# --- the page -------------------------------------------------------------------------------------------


def render(results: Sequence[Result], *, with_picture: bool) -> str:
    """The page in Markdown."""
    parts = [INTRODUCTION, *_circumstances(results)]
    if with_picture:
        parts.append(f"![The sides of each comparison as bars]({PICTURE})\n")
    goals = [goal for result in results for goal in result.finding.goals]
    if goals:
        parts += ["## Goals\n", _table(("goal", "wanted", "measured", ""), [goal.cells() for goal in goals])]
    for result in results:
        parts += list(_section(result))
    return "\n".join(parts)


def _circumstances(results: Sequence[Result]) -> Iterator[str]:
    machines = list(dict.fromkeys(str(result.machine) for result in results))
    days = sorted({f"{result.at:%Y-%m-%d}" for result in results})
    versions = dict(sorted((package, at) for result in results for package, at in result.versions.items()))
    yield "\n".join(
        [
            *(f"- Machine: {machine}" for machine in machines),
            f"- Date: {', '.join(days)}",
            f"- Versions: {', '.join(f'{package} {version}' for package, version in versions.items())}",
            "- Again: `python -m benchmarks.run_all --output results.json --report docs`",
            "",
        ]
    )


def _section(result: Result) -> Iterator[str]:
    yield f"## {result.title}\n"
    yield f"{result.about} `{result.command}`\n"
    finding = msgspec.structs.replace(result.finding, goals=list[Goal]())  # they stand at the top
    for columns, rows in tables(finding):
        yield _table(columns, rows)
    yield "\n".join(f"- {note}" for note in finding.notes) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines) + "\n"


# --- the picture ----------------------------------------------------------------------------------------

WIDTH: Final = 860
LABELS: Final = 330
BARS: Final = 380
LINE: Final = 20
COLOURS: Final = ("#2563eb", "#9ca3af", "#d97706", "#059669", "#7c3aed")
TEXT: Final = "#6b7280"
"""Legible on white as on black, for pages are read on both."""


def draw(results: Sequence[Result]) -> str | None:
    """Bars for every case that has more than one side, each case to its own scale; ``None`` if there is none."""
    shapes: list[str] = []
    height = LINE
    for result in results:
        quantity = PLOTTED.get(result.benchmark)
        cases = _cases(result.finding.rows, quantity) if quantity else {}
        if not cases:
            continue
        shapes.append(_text(0, height, f"{result.title}: {quantity}", weight="bold"))
        height += LINE
        for case, sides in cases.items():
            shapes.append(_text(0, height, case))
            height += LINE
            longest = max(figure.median for figure in sides.values())
            for (side, figure), colour in zip(sides.items(), COLOURS, strict=False):
                shapes += _bar(height, side, figure, colour, figure.median / longest)
                height += LINE
        height += LINE
    if not shapes:
        return None
    font = 'font-family="system-ui, sans-serif" font-size="13"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {font} fill="{TEXT}">'
    return "\n".join([head, *shapes, "</svg>", ""])


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
    write(read(Path(sys.argv[1])), Path(sys.argv[2]))
