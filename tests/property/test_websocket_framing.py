"""However a client's bytes are cut into frames and chunks, the same messages come out of them."""

import asyncio
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkey.realtime.transport import Accepted
from roomkey.transports import DEFAULTS
from roomkey.transports.picows import ServerContext, WebSocketConnection
from tests.support.effort import examples
from tests.support.rawsocket import BINARY, CONTINUATION, PING, PONG, TEXT, Conversation, Door, close, deflated, frame

LIMIT = 100_000


class Wire(asyncio.Transport):
    """A transport without a network: what is written stays here."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.aborted

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


def opened(conversation: Conversation) -> WebSocketConnection:
    socket = WebSocketConnection(
        Wire(),
        set(),
        Accepted(conversation=conversation, max_message_bytes=LIMIT),
        context=ServerContext(Door(), DEFAULTS),
        window_bits=15,
    )
    socket.begin(b"")
    return socket


def read(socket: WebSocketConnection, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        buffer = socket.get_buffer(-1)
        taken = min(len(buffer), len(left))
        buffer[:taken] = left[:taken]
        socket.buffer_updated(taken)
        left = left[taken:]


def told(chunks: Iterable[bytes], *, due: int | None = None) -> list[tuple[str, Any]]:
    """What a conversation is told of a stream that arrives in these chunks; the socket pings before the one ``due``."""
    conversation = Conversation(echo=False)

    async def receive() -> None:
        socket = opened(conversation)
        for number, chunk in enumerate(chunks):
            if number == due:
                socket.due()
            read(socket, chunk)
        socket.connection_lost(None)

    asyncio.run(receive())
    return conversation.told


@st.composite
def messages(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """A message: its kind, its content, and one of the many ways to put it on the wire."""
    kind = draw(st.sampled_from(["text", "binary"]))
    content = draw(st.text(max_size=300)).encode() if kind == "text" else draw(st.binary(max_size=300))
    content *= draw(st.sampled_from([1, 1, 1, 7, 250]))
    compressed = draw(st.booleans())
    payload = deflated(content) if compressed else content
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=5)))
    parts = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    mask = draw(st.binary(min_size=4, max_size=4))
    wire = b""
    for index, part in enumerate(parts):
        opcode = CONTINUATION if index else {"text": TEXT, "binary": BINARY}[kind]
        rsv = 4 if compressed and not index else 0
        wire += frame(opcode, part, fin=index == len(parts) - 1, rsv=rsv, mask=mask)
        wire += draw(st.sampled_from([b"", b"", frame(PING, b"between"), frame(PONG)]))
    return kind, content, wire


def cut(stream: bytes, data: st.DataObject) -> list[bytes]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@given(sent=st.lists(messages(), max_size=5), data=st.data())
@settings(max_examples=examples(100))
def test_any_fragmentation_and_any_split_gives_the_same_messages(
    sent: list[tuple[str, bytes, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(wire for _, _, wire in sent) + close(3000)

    heard = told(cut(stream, data), due=data.draw(st.integers(0, 10)))

    assert heard == [("opened", None), *[(kind, content) for kind, content, _ in sent], ("closed", 3000)]


@given(sent=st.lists(messages(), max_size=2))
@settings(max_examples=examples(20))
def test_a_stream_that_arrives_byte_by_byte_gives_the_same_messages(sent: list[tuple[str, bytes, bytes]]) -> None:
    stream = b"".join(wire for _, content, wire in sent if len(content) < 1000)

    heard = told(bytes((byte,)) for byte in stream)

    expected = [(kind, content) for kind, content, _ in sent if len(content) < 1000]
    assert heard == [("opened", None), *expected, ("closed", 1006)]


@given(valid=st.lists(messages(), max_size=2), garbage=st.binary(max_size=200), data=st.data())
@settings(max_examples=examples(100))
def test_garbage_ends_the_conversation_once_and_never_harms_what_came_before(
    valid: list[tuple[str, bytes, bytes]], garbage: bytes, data: st.DataObject
) -> None:
    stream = b"".join(wire for _, _, wire in valid) + garbage

    heard = told(cut(stream, data))

    assert heard[: len(valid) + 1] == [("opened", None), *[(kind, content) for kind, content, _ in valid]]
    assert [what for what, _ in heard].count("closed") == 1
    assert heard[-1][0] == "closed"


@pytest.mark.parametrize("together", [True, False])
async def test_a_buffer_that_has_grown_is_given_back_when_nobody_is_using_it(together: bool) -> None:  # noqa: FBT001
    conversation = Conversation(echo=False)
    socket = opened(conversation)
    small = len(socket.get_buffer(-1))
    large, unfinished = frame(BINARY, bytes(LIMIT)), frame(TEXT, b"x" * 500)

    for chunk in [large + unfinished[:100]] if together else [large, unfinished[:100]]:
        read(socket, chunk)
    socket.due()
    while_in_use = len(socket.get_buffer(-1))
    read(socket, unfinished[100:])
    socket.due()  # hears of the last ping
    socket.due()

    assert while_in_use > small
    assert len(socket.get_buffer(-1)) == small
    read(socket, unfinished)
    assert conversation.told[1:] == [("binary", bytes(LIMIT)), ("text", b"x" * 500), ("text", b"x" * 500)]
    socket.connection_lost(None)


async def test_a_flood_of_small_messages_does_not_grow_the_buffer_with_it() -> None:
    socket = opened(Conversation(echo=False))
    flood = frame(PONG, b"x" * 100) * 100_000
    tracemalloc.start()

    read(socket, flood)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    socket.connection_lost(None)
