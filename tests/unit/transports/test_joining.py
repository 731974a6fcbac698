"""What many sockets are given alike is joined once, for each kind of socket."""

from roomkey.transports import DEFAULTS
from roomkey.transports.picows import ServerContext
from roomkey.wire.frame import Frame
from tests.support.rawsocket import Door

LONG = b"roomkey " * 1000


def test_each_window_gets_its_own_bytes_of_the_same_frames() -> None:
    context = ServerContext(Door(), DEFAULTS)
    frames = (Frame(b"short"), Frame(LONG))

    joined = {bits: context.joined(frames, bits) for bits in (0, 15, 9, 15, 0)}

    assert joined[0] == frames[0].plain + frames[1].plain
    for bits in (9, 15):
        assert joined[bits] == frames[0].deflated(bits) + frames[1].deflated(bits)
    assert len(joined[15]) < len(joined[0])


def test_listeners_of_the_same_turn_share_the_bytes_and_later_ones_get_theirs() -> None:
    context = ServerContext(Door(), DEFAULTS)
    first, second = (Frame(b"one"), Frame(b"two")), (Frame(b"three"),)

    once, again, later = context.joined(first, 0), context.joined(first, 0), context.joined(second, 0)

    assert once is again
    assert later == second[0].plain


def test_a_list_may_have_changed_since() -> None:
    context = ServerContext(Door(), DEFAULTS)
    frames = [Frame(b"one")]

    context.joined(frames, 0)
    frames.append(Frame(b"two"))

    assert context.joined(frames, 0) == frames[0].plain + frames[1].plain
