"""The page of the benchmarks, and that nothing that was measured is lost on the way to it."""

import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from benchmarks import node, python, report, run_all
from benchmarks.harness import Figure, Finding, Goal, Machine, Plan, Result, Row, ratio, write_or_print


def a_result() -> Result:
    fast, slow = Row("POST", "Roomkey", {"requests": _figure(30)}), Row("POST", "<peer>", {"requests": _figure(10)})
    goals = [Goal("three times the peer", ratio(fast, slow, "requests"), 3, "/s")]
    rows = [fast, slow, Row("GET", "<peer>", skipped="there is no Node.js")]
    return Result(
        benchmark="rest",
        title="REST",
        about="Requests per second.",
        command="python -m benchmarks.rest",
        machine=Machine("A processor", 2, "4 GiB", "Linux", "3.11", None),
        versions={"uvicorn": "1"},
        peers={"ws": "8"},
        at=datetime(2025, 1, 1, tzinfo=UTC),
        took_seconds=1,
        plan=Plan(),
        finding=Finding(rows, goals, ["A note."]),
    )


def _figure(middle: float) -> Figure:
    return Figure([middle - 1, middle, middle + 1], "/s")


def with_rows(*rows: Row, benchmark: str = "rest", title: str = "REST") -> Result:
    return msgspec.structs.replace(a_result(), benchmark=benchmark, title=title, finding=Finding(list(rows)))


def a_city() -> Result:
    ours = {"server CPU": Figure([12], "%"), "documents": Figure([300], ""), "durable p99": Figure([40], "ms")}
    theirs = {"documents": Figure([300], ""), "server CPU": Figure([13], "%")}
    rows = [
        Row("300 documents", "Roomkey", ours, paced=True),
        Row("300 documents", "y-websocket", theirs, paced=True),
        Row("300 documents", "Hocuspocus", skipped="there is no Node.js"),
    ]
    return with_rows(*rows, benchmark="city", title="A city")


# --- what is on the page ----------------------------------------------------------------------------------


def test_the_page_shows_every_side_goals_and_what_was_skipped(tmp_path: Path) -> None:
    report.write([a_result()], tmp_path)

    page = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert "| POST | Roomkey | 30/s (29–31) |" in page  # noqa: RUF001  # an en dash
    assert "| GET | <peer> | skipped: there is no Node.js |" in page
    assert "| three times the peer | ≥ 3/s | 3/s | reached |" in page
    assert "A processor, 2 cores, 4 GiB; Linux; Python 3.11, no Node.js" in page
    picture = (tmp_path / "benchmarks.svg").read_text(encoding="utf-8")
    assert picture.count("<rect") == 2
    assert "&lt;peer&gt;" in picture


def test_the_page_says_what_was_compared_and_on_what_roomkey_stands() -> None:
    page = report.render([a_result(), a_result()], with_picture=False)

    assert "- Compared with: ws 8\n" in page
    assert "- Roomkey stands on: uvicorn 1\n" in page


def test_what_was_paced_and_what_was_saturated_are_tables_of_their_own() -> None:
    figures = {"CPU": Figure([1], "%")}
    result = with_rows(Row("full", "Roomkey", figures, paced=False), Row("daily", "Roomkey", figures, paced=True))

    page = report.render([result], with_picture=False)

    paced, saturated = page.index("**Paced: what it costs"), page.index("**Saturated: how much fits")
    assert paced < page.index("| daily | Roomkey |") < saturated < page.index("| full | Roomkey |")
    assert page.count("| Roomkey |") == 2


def test_the_city_is_the_headline_wherever_it_was_measured() -> None:
    page = report.render([a_result(), a_city()], with_picture=False)

    assert re.findall("^## (.*)$", page, re.MULTILINE) == ["A city", "Goals", "REST"]


def test_the_city_is_one_table_in_which_a_server_that_keeps_nothing_has_no_durable_time() -> None:
    page = report.render([a_city()], with_picture=False)

    assert "| case | server | documents | server CPU | durable p99 |" in page
    assert "| 300 documents | Roomkey | 300 | 12 % | 40.00 ms |" in page
    assert "| 300 documents | y-websocket | 300 | 13 % |  |" in page
    assert "| 300 documents | Hocuspocus | skipped: there is no Node.js |" in page


def test_paced_rows_are_drawn_by_what_they_cost() -> None:
    def row(side: str, *, paced: bool) -> Row:
        figures = {"deliveries per CPU second": Figure([9], ""), "CPU per delivery": Figure([7], "µs")}
        return Row("paced" if paced else "saturated", side, figures, paced=paced)

    rows = [row(side, paced=paced) for side in ("Roomkey", "y-websocket") for paced in (False, True)]
    result = with_rows(*rows, benchmark="documents", title="Typing")

    picture = report.draw([result]) or ""

    drawn = re.findall(r">(Typing: [^<]*|paced|saturated)<", picture)
    assert drawn == ["Typing: CPU per delivery", "paced", "Typing: deliveries per CPU second", "saturated"]


def test_a_case_in_which_nobody_took_anything_can_be_drawn() -> None:
    rows = [Row("idle", side, {"memory each": Figure([0], "KB")}) for side in ("Roomkey", "ws")]

    picture = report.draw([with_rows(*rows, benchmark="idle")]) or ""

    assert picture.count("<rect") == 2


# --- the peers --------------------------------------------------------------------------------------------


def test_every_peer_is_locked_with_a_hash() -> None:
    pinned = re.split(r"^(?=\S+==)", python.LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    packages = msgspec.json.decode((node.FOLDER / "package-lock.json").read_bytes())["packages"]
    names = [name for name in packages if name]

    unhashed = [lines for lines in pinned if lines and "--hash=sha256:" not in lines]
    unhashed += [name for name in names if not packages[name].get("integrity")]

    assert len(pinned) > 1
    assert names
    assert unhashed == []


def test_the_version_of_a_peer_is_the_locked_one() -> None:
    pinned = python.LOCK.read_text(encoding="utf-8")

    assert f"\nlitestar=={python.version_of('litestar')} " in pinned


# --- what was measured is kept ----------------------------------------------------------------------------


def measured(name: str, options: object) -> Result:
    """In place of a benchmark, which takes a minute."""
    del options
    return msgspec.structs.replace(a_result(), benchmark=name)


def test_what_cannot_be_written_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a file").write_text("not a folder")

    written = write_or_print(tmp_path / "a file" / "results.json", "[1]")

    assert not written
    assert capsys.readouterr().out.splitlines()[1:] == ["[1]"]


def test_a_folder_for_the_page_that_does_not_exist_is_made(tmp_path: Path) -> None:
    report.write([a_result()], tmp_path / "new" / "docs")

    assert (tmp_path / "new" / "docs" / "benchmarks.md").is_file()


def test_a_folder_for_the_results_that_does_not_exist_is_made(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.json"

    code = run_all.run(["--only", "rest", "--output", str(file)], measure=measured)

    assert code == 0
    assert [result.benchmark for result in report.read(file)] == ["rest"]


def test_each_result_is_kept_as_soon_as_it_is_there(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    kept: list[int] = []

    def counting(name: str, options: object) -> Result:
        kept.append(len(report.read(file)) if file.exists() else 0)
        return measured(name, options)

    run_all.run(["--only", "rest", "idle", "start", "--output", str(file)], measure=counting)

    assert kept == [0, 1, 2]


def test_a_benchmark_that_stops_everything_takes_no_earlier_result_with_it(tmp_path: Path) -> None:
    file = tmp_path / "results.json"

    def interrupted(name: str, options: object) -> Result:
        if name == "idle":
            raise KeyboardInterrupt
        return measured(name, options)

    with pytest.raises(KeyboardInterrupt):
        run_all.run(["--only", "rest", "idle", "--output", str(file)], measure=interrupted)

    assert [result.benchmark for result in report.read(file)] == ["rest"]


def test_results_are_kept_somewhere_if_neither_place_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocked = tmp_path / "a file"
    blocked.write_text("not a folder")
    options = ["--output", str(blocked / "results.json"), "--report", str(blocked)]

    code = run_all.run(["--only", "rest", *options], measure=measured)

    said = capsys.readouterr().out
    assert code == 1
    assert str(blocked / "results.json") in said
    assert [result.benchmark for result in report.read(run_all.RESORT)] == ["rest"]


def test_a_page_alone_that_cannot_be_written_costs_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").write_text("not a folder")

    code = run_all.run(["--only", "rest", "--report", "docs"], measure=measured)

    assert code == 1
    assert [result.benchmark for result in report.read(run_all.RESORT)] == ["rest"]


def test_a_page_that_cannot_be_written_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").write_text("not a folder")

    run_all.run(["--only", "rest", "--report", "docs"], measure=measured)

    assert report.render([a_result()], with_picture=True).strip() in capsys.readouterr().out


def test_results_that_can_be_kept_nowhere_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_all.RESORT.mkdir()
    (tmp_path / "a file").write_text("not a folder")

    code = run_all.run(["--only", "rest", "idle", "--output", "a file/results.json"], measure=measured)

    assert code == 1
    printed = re.findall(r"^\[\n.*?^\]$", capsys.readouterr().out, re.DOTALL | re.MULTILINE)
    found = [result for each in printed for result in msgspec.json.decode(each, type=list[Result])]
    assert [result.benchmark for result in found] == ["rest", "idle"]
