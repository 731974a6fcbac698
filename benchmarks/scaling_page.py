"""
What was measured about growth as a page: ``python -m benchmarks.scaling_page results.json docs``.

The words are in ``scaling_template.md``; the figures come from the result of ``benchmarks.scaling``.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Final

import msgspec

from benchmarks.harness import Result, in_unit, tables, write_or_print
from benchmarks.scaling_model import BUSY, THOUSAND, Line, Needed, lines, needed

NAME: Final = "scaling"
PAGE: Final = "scaling.md"
TEMPLATE: Final = Path(__file__).with_name("scaling_template.md")

SOCKETS: Final = 1_000_000
SHARES: Final = (1.0, 0.3, 0.1, 0.01)
"""Of all sockets, those whose people are in documents in which somebody types."""


def write(results: Sequence[Result], folder: Path) -> bool:
    """Write the page into ``folder`` if growth was measured; returns whether nothing is missing there now."""
    measured = [result for result in results if result.benchmark == NAME]
    return all(write_or_print(folder / PAGE, render(result).rstrip("\n")) for result in measured)


def render(result: Result) -> str:
    """The page in Markdown."""
    found = {side: lines(result.finding.rows, side) for side in dict.fromkeys(row.side for row in result.finding.rows)}
    modelled = {side: of_side for side, of_side in found.items() if of_side}
    finding = msgspec.structs.replace(result.finding, goals=[])
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        circumstances=f"- Machine: {result.machine}\n- Date: {result.at:%Y-%m-%d}\n- Again: `{result.command}`",
        about=result.about,
        measured="\n".join(table(each.columns, each.cells) for each in tables(finding)).rstrip(),
        notes="\n".join(f"- {note}" for note in result.finding.notes),
        lines=table(LINE_COLUMNS, [*_lines(result, modelled)]).rstrip(),
        busy=f"{BUSY:.0f}",
        needed=table(NEEDED_COLUMNS, [*_needed(modelled)]).rstrip(),
    )


LINE_COLUMNS: Final = ("side", "quantity", "all nodes, nobody types", "per 1,000 editors", "error at the largest size")

NEEDED_COLUMNS: Final = (
    *("side", "sockets", "of them editors", "nodes", "shards", "memory of a node", "stored in a shard"),
    *("commands of a shard", "received by a shard", "sent by a shard"),
)


def _lines(result: Result, modelled: Mapping[str, Mapping[str, Line]]) -> Iterator[Sequence[str]]:
    units = {name: figure.unit for row in result.finding.rows for name, figure in row.figures.items()}
    for side, of_side in modelled.items():
        for name, line in of_side.items():
            unit = units[name]
            yield side, name, in_unit(line.idle, unit), in_unit(line.each, unit), in_unit(line.error * 100, "%")


def _needed(modelled: Mapping[str, Mapping[str, Line]]) -> Iterator[Sequence[str]]:
    for side, of_side in modelled.items():
        for share in SHARES:
            yield side, *_cells(needed(of_side, SOCKETS, int(SOCKETS * share)))


def _cells(need: Needed) -> Sequence[str]:
    return (
        f"{need.sockets:,}",
        f"{need.editors:,}",
        f"{need.nodes:,}",
        f"{need.shards:,}",
        in_unit(need.node_memory, "MB"),
        in_unit(need.store_memory, "MB"),
        in_unit(need.commands, "/s"),
        *(
            "" if kilobytes is None else f"{in_unit(kilobytes / THOUSAND, 'MB')}/s"
            for kilobytes in (need.received, need.sent)
        ),
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    whole = [[*row, *[""] * (len(columns) - len(row))] for row in rows]
    lines = [columns, ["---"] * len(columns), *whole]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m benchmarks.scaling_page RESULTS FOLDER")
    kept = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=list[Result])
    sys.exit(0 if write(kept, Path(sys.argv[2])) else 1)
