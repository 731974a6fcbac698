"""What the figures of benchmarks rest on: what is sent, and what is counted."""

import os
import socket

import pytest

from benchmarks.crowd import Crowd, Room
from benchmarks.editing import Typing, text_of, typed
from benchmarks.harness import Figure, Goal, quantiles
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


@pytest.mark.parametrize(
    ("figure", "shown"),
    [
        (Figure([0.234], "%"), "0.23 %"),
        (Figure([12.34], "%"), "12 %"),
        (Figure([1234.5, 1000, 2000], "/s"), "1,234/s (1,000–2,000)"),  # noqa: RUF001  # an en dash
    ],
)
def test_a_figure_has_as_many_digits_as_are_worth_reading(figure: Figure, shown: str) -> None:
    assert str(figure) == shown
