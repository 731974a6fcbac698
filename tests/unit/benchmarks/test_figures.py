"""What the figures of benchmarks rest on: what is counted, and that nothing of it is lost."""

import os
import socket
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from benchmarks import report, run_all
from benchmarks.crowd import Crowd, Room
from benchmarks.editing import Typing, text_of, typed
from benchmarks.harness import Figure, Finding, Goal, Machine, Plan, Result, Row, quantiles, ratio
from benchmarks.httpload import Unexpected
from benchmarks.websocket import TEXT, MessageAssembler, frame, frames


class _Letters:
    """A script in which the mark of an edit is a letter and its writer."""

    any_mark = b"<"

    def mark(self, writer: int) -> bytes:
        return b"<%04d>" % writer

    def edit(self, writer: int) -> bytes | None:
        return self.mark(writer)


def test_edits_are_counted_once_wherever_a_read_cuts_them() -> None:
    edits = b"...<0000>...,...<0000>."

    for cut in range(len(edits) + 1):
        server, client = socket.socketpair()
        crowd = Crowd([client], Room(clients=1, writers=1), _Letters(), echoed=True)
        crowd.write(0)
        crowd.write(0)
        witnessed: list[int] = []
        for part in (edits[:cut], edits[cut:]):
            server.sendall(part)
            witnessed += crowd.read(0, needed=False)
        crowd.close()
        server.close()

        assert (crowd.deliveries, witnessed, len(crowd.latencies)) == (2, [0, 0], 2), cut
        assert crowd.deliveries == crowd.expected


def test_an_edit_of_somebody_else_is_counted_and_not_witnessed() -> None:
    server, client = socket.socketpair()
    crowd = Crowd([client], Room(clients=1, writers=1), _Letters())
    server.sendall(b"<0001>")

    witnessed = crowd.read(0)

    assert (crowd.deliveries, witnessed) == (1, [])
    crowd.close()
    server.close()


def test_what_writers_type_is_one_letter_each_and_all_of_it_is_in_the_text() -> None:
    updates = typed(3, 50)

    text = text_of([update for own in updates for update in own])

    assert sorted(text) == [chr(0x20000 + writer) for writer in range(3) for _ in range(50)]
    assert all(update.count(b"\xf0\xa0") == 1 for own in updates for update in own)


def test_a_text_in_which_a_letter_is_missing_is_not_accepted() -> None:
    typing = Typing([[b"a frame", b"another"]])
    assert (typing.edit(0), typing.edit(0), typing.edit(0)) == (b"a frame", b"another", None)

    typing.check(chr(0x20000) * 2)

    with pytest.raises(Unexpected):
        typing.check(chr(0x20000))


@pytest.mark.parametrize("size", [0, 125, 126, 65_535])
def test_frames_of_every_length_are_understood(size: int) -> None:
    payload = os.urandom(size)
    length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    received = b"\x81" + length + payload

    understood = list(frames(received + received[:-1]))

    assert understood == [(TEXT, payload, len(received))]


def test_a_message_is_put_together_wherever_a_read_cuts_it_and_pings_are_left_out() -> None:
    ping, first, last = b"\x89\x01!", b"\x02\x03abc", b"\x80\x02de"
    received = first + ping + last + b"\x82\x01f"

    for cut in range(len(received) + 1):
        inbox = MessageAssembler()
        messages = inbox.feed(received[:cut]) + inbox.feed(received[cut:])

        assert messages == [b"abcde", b"f"], cut


def test_a_server_that_closes_the_connection_is_noticed() -> None:
    with pytest.raises(Unexpected, match="1013"):
        MessageAssembler().feed(b"\x88\x02" + (1013).to_bytes(2, "big"))


@pytest.mark.parametrize(
    ("size", "head"),
    [(5, b"\x81\x85"), (126, b"\x81\xfe\x00\x7e"), (65_536, b"\x81\xff\x00\x00\x00\x00\x00\x01\x00\x00")],
)
def test_a_client_masks_what_it_sends(size: int, head: bytes) -> None:
    payload = os.urandom(size)

    sent = frame(payload)

    assert sent.startswith(head)
    mask, masked = sent[len(head) :][:4], sent[len(head) + 4 :]
    assert bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked)) == payload


def test_quantiles_are_values_that_occurred() -> None:
    found = quantiles([number / 1000 for number in range(1, 101)])

    assert found == {"p50": (51.0, "ms"), "p99": (100.0, "ms")}


@pytest.mark.parametrize(
    ("goal", "reached"),
    [
        (Goal("speed", 10, 10, "/s"), True),
        (Goal("speed", 9, 10, "/s"), False),
        (Goal("memory", 10, 10, "B", at_least=False), True),
        (Goal("memory", 11, 10, "B", at_least=False), False),
        (Goal("anything", None, 10, "B"), None),
    ],
)
def test_a_goal_is_reached_on_its_right_side(goal: Goal, reached: bool | None) -> None:  # noqa: FBT001  # the expectation
    assert goal.reached is reached


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
        versions={"ws": "8"},
        at=datetime(2025, 1, 1, tzinfo=UTC),
        took_seconds=1,
        plan=Plan(),
        finding=Finding(rows, goals, ["A note."]),
    )


def _figure(middle: float) -> Figure:
    return Figure([middle - 1, middle, middle + 1], "/s")


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


# --- what was measured is kept ----------------------------------------------------------------------------


def measured(name: str, options: object) -> Result:
    """In place of a benchmark, which takes a minute."""
    del options
    return msgspec.structs.replace(a_result(), benchmark=name)


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
