"""The cost model: lines that tell what was measured, what they are off, and what they say of a million sockets."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks import report, scaling_page
from benchmarks.harness import Figure, Finding, Machine, Plan, Result, Row
from benchmarks.scaling_model import (
    COMMANDS,
    EDITORS,
    NODE_CPU,
    NODE_MEMORY,
    RESTING_COMMANDS,
    RESTING_NODE_CPU,
    RESTING_STORE_CPU,
    SENT,
    STORE_CPU,
    STORE_MEMORY,
    fit,
    lines,
    needed,
)

SIDE = "Roomkey, Redis"


def a_row(editors: float) -> Row:
    """Nodes take 3 % and 10 % per 1,000 editors, the store 1 % and 5 %."""
    thousands = editors / 1000
    figures = {
        EDITORS: Figure([editors], ""),
        NODE_CPU: Figure([3 + 10 * thousands], "%"),
        STORE_CPU: Figure([1.5 + 5 * thousands], "%"),
        NODE_MEMORY: Figure([300 + 20 * thousands], "MB"),
        STORE_MEMORY: Figure([2 + 4 * thousands], "MB"),
        COMMANDS: Figure([30 + 1000 * thousands], "/s"),
        SENT: Figure([0], "KB"),
        RESTING_NODE_CPU: Figure([3 + 1 * thousands], "%"),
        RESTING_STORE_CPU: Figure([1.5 + 0.1 * thousands], "%"),
        RESTING_COMMANDS: Figure([30 + 20 * thousands], "/s"),
    }
    return Row(f"{editors:,} editors", SIDE, figures, paced=True)


ROWS = [a_row(300), a_row(900), a_row(1800)]


def a_result(rows: list[Row]) -> Result:
    return Result(
        benchmark="scaling",
        title="Growth",
        about="Three nodes.",
        command="python -m benchmarks.scaling",
        machine=Machine("A processor", 2, "4 GiB", "Linux", "3.11", None),
        versions={},
        at=datetime(2025, 1, 1, tzinfo=UTC),
        took_seconds=1,
        plan=Plan(),
        finding=Finding(rows),
    )


# --- lines --------------------------------------------------------------------------------------------------


def test_a_line_says_what_a_thousand_cost_and_what_is_there_without_anybody() -> None:
    line = fit([(300, 6.0), (900, 12.0), (1800, 21.0)])

    assert (line.idle, line.each, line.error) == pytest.approx((3, 10, 0))
    assert line.at(5000) == pytest.approx(53)


def test_the_error_is_that_of_a_line_which_has_not_seen_the_largest_size() -> None:
    line = fit([(1000, 10.0), (2000, 20.0), (3000, 40.0)])

    assert line.error == pytest.approx(0.25)


def test_what_was_not_counted_or_not_at_three_sizes_has_no_line() -> None:
    assert SENT not in lines(ROWS, SIDE)
    assert lines(ROWS[:2], SIDE) == {}


# --- a million sockets --------------------------------------------------------------------------------------


def test_nodes_are_counted_with_what_each_costs_by_itself_and_the_store_with_all_of_them() -> None:
    need = needed(lines(ROWS, SIDE), sockets=69_000, editors=69_000)

    assert need.nodes == 10  # 690 %, and 1 % of each node's 70 % is its own
    assert need.shards == 5  # 345 %, and 5 % for ten nodes that do nothing
    assert need.commands == pytest.approx((69_000 + 100) / 5)
    assert need.node_memory == pytest.approx((20 * 69 + 100 * 10) / 10)
    assert need.sent is None


def test_silent_sockets_cost_what_people_cost_at_rest() -> None:
    need = needed(lines(ROWS, SIDE), sockets=69_000 + 138_000, editors=69_000)

    assert need.nodes == 12  # 690 % and 138 %
    assert need.shards == 6  # 345 %, 13.8 %, and 6 % for twelve nodes that do nothing
    assert need.commands == pytest.approx((69_000 + 138 * 20 + 120) / 6)
    assert need.node_memory == pytest.approx((20 * 207 + 100 * 12) / 12)


def test_a_node_lets_in_only_so_many() -> None:
    need = needed(lines(ROWS, SIDE), sockets=1_000_000, editors=10_000)

    assert need.nodes == 40


# --- the page -----------------------------------------------------------------------------------------------


def test_the_page_has_what_was_measured_the_lines_and_a_million_sockets(tmp_path: Path) -> None:
    assert report.write([a_result(ROWS)], tmp_path)

    page = (tmp_path / scaling_page.PAGE).read_text(encoding="utf-8")
    assert "| 1,800 editors | Roomkey, Redis | 1,800 | 21 % |" in page
    assert "| Roomkey, Redis | CPU of nodes | 3.00 % | 10 % | 0.00 % |" in page
    assert "| Roomkey, Redis | 1,000,000 | 1,000,000 |" in page
    assert "$" not in page


def test_a_store_that_was_not_there_is_named_and_has_no_lines(tmp_path: Path) -> None:
    skipped = Row("all sizes", "Roomkey, PostgreSQL", skipped="there is no PostgreSQL")

    scaling_page.write([a_result([*ROWS, skipped])], tmp_path)

    page = (tmp_path / scaling_page.PAGE).read_text(encoding="utf-8")
    assert "| all sizes | Roomkey, PostgreSQL | skipped: there is no PostgreSQL |" in page
    assert "| Roomkey, PostgreSQL | CPU" not in page


def test_without_growth_there_is_no_such_page(tmp_path: Path) -> None:
    assert scaling_page.write([], tmp_path)

    assert list(tmp_path.iterdir()) == []
