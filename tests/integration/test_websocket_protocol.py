"""RFC 6455 and RFC 7692 over a real socket, on both transports: what is carried, and what each violation costs."""

import asyncio
import random

import pytest
from websockets.asyncio.client import connect

from tests.support.rawsocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    DEFLATE,
    PING,
    PONG,
    TEXT,
    TRANSPORTS,
    Door,
    Received,
    close,
    deflated,
    fragmented,
    frame,
    inflated,
    opened,
    serving,
    until,
)

both = pytest.mark.parametrize("transport", TRANSPORTS)
LIMIT = 1000

VIOLATIONS = {
    "RSV1 without an extension": (frame(TEXT, b"x", rsv=4), 1002),
    "RSV2": (frame(TEXT, b"x", rsv=2), 1002),
    "RSV3": (frame(BINARY, b"x", rsv=1), 1002),
    "RSV on a ping": (frame(PING, rsv=1), 1002),
    "RSV on a close": (frame(CLOSE, rsv=7), 1002),
    **{f"reserved opcode {opcode}": (frame(opcode), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a fragmented ping": (frame(PING, b"x", fin=False), 1002),
    "a fragmented close": (frame(CLOSE, fin=False), 1002),
    "a ping of 126 bytes": (frame(PING, bytes(126)), 1002),
    "a close of 126 bytes": (frame(CLOSE, b"\x03\xe8" + bytes(124)), 1002),
    "no mask": (frame(TEXT, b"x", mask=None), 1002),
    "a continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "an unfinished continuation of nothing": (frame(CONTINUATION, b"x", fin=False), 1002),
    "a text inside a text": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "a binary inside a text": (frame(TEXT, b"x", fin=False) + frame(BINARY, b"y", fin=False), 1002),
    "half a close code": (frame(CLOSE, b"\x03"), 1002),
    **{
        f"close code {code}": (close(code), 1002)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "a close reason that is no UTF-8": (close(1000, b"\xff"), 1007),
    "a text that is no UTF-8": (frame(TEXT, b"\xce\xba\xff"), 1007),
    "a text that ends inside a character": (frame(TEXT, b"\xce\xba\xe1\xbd"), 1007),
    "a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "an overlong slash": (frame(TEXT, b"\xc0\xaf"), 1007),
    "a character above U+10FFFF": (frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "fragments that are no UTF-8": (fragmented(TEXT, b"\xce", b"\xba\xed\xa0", b"\x80"), 1007),
    "fragments that end inside a character": (fragmented(TEXT, b"\xce\xba", b"\xe1\xbd"), 1007),
    "a long message": (frame(BINARY, bytes(LIMIT + 1)), 1009),
    "a message that is announced to be long": (frame(BINARY, length=b"\x7f\x00\x00\x00\x00\x7f\xff\xff\xff"), 1009),
    "a long message in short fragments": (fragmented(BINARY, *[bytes(100)] * 11), 1009),
}


@both
async def test_each_violation_closes_with_its_code(transport: str) -> None:
    found: dict[str, int | None] = {}
    async with serving(transport, Door(limit=LIMIT), ws_max_size=LIMIT) as port:
        for name, (data, _) in VIOLATIONS.items():
            async with opened(port) as client:
                client.send(data)

                found[name] = await client.close_code()

    assert found == {name: code for name, (_, code) in VIOLATIONS.items()}


async def test_what_came_before_a_violation_is_handled_and_what_comes_after_is_not() -> None:
    # On picows only: the server below the other transport parses ahead of what it delivers.
    door = Door()
    async with serving("picows", door) as port:
        for name in ("RSV2", "reserved opcode 3", "a continuation of nothing", "no mask", "close code 999"):
            async with opened(port) as client:
                client.send(frame(TEXT, b"before"), VIOLATIONS[name][0], frame(PING, b"after"), frame(TEXT, b"after"))

                frames = await client.the_rest()

                assert [received.opcode for received in frames] == [TEXT, CLOSE]
                assert door.conversation.told == [("opened", None), ("text", b"before"), ("closed", 1006)]


COMPRESSED_VIOLATIONS = {
    "RSV1 on a continuation": (
        frame(TEXT, deflated(b"x"), fin=False, rsv=4) + frame(CONTINUATION, deflated(b"y"), rsv=4),
        {1002},
    ),
    "RSV1 on a ping": (frame(PING, rsv=4), {1002}),
    "RSV2 beside RSV1": (frame(TEXT, deflated(b"x"), rsv=6), {1002}),
    "no deflate": (frame(TEXT, b"\xff" * 20, rsv=4), {1002, 1007}),
    "no UTF-8 once inflated": (frame(TEXT, deflated(b"\xff"), rsv=4), {1007}),
    "too big once inflated": (frame(BINARY, deflated(bytes(LIMIT + 1)), rsv=4), {1009}),
    "too big once inflated, in fragments": (
        frame(BINARY, deflated(bytes(LIMIT + 1))[:5], fin=False, rsv=4)
        + frame(CONTINUATION, deflated(bytes(LIMIT + 1))[5:]),
        {1009},
    ),
    "a bomb": (frame(BINARY, deflated(bytes(900_000)), rsv=4), {1009}),
}


@both
async def test_each_violation_of_the_compression_closes_with_its_code(transport: str) -> None:
    wrong: dict[str, int | None] = {}
    async with serving(transport, Door(limit=LIMIT), ws_max_size=LIMIT) as port:
        for name, (data, codes) in COMPRESSED_VIOLATIONS.items():
            async with opened(port, DEFLATE) as client:
                client.send(data)

                code = await client.close_code()
                if code not in codes:
                    wrong[name] = code

    assert wrong == {}


MESSAGES = {
    "empty": b"",
    "one byte": b"x",
    "the longest short length": b"x" * 125,
    "the shortest middle length": b"x" * 126,
    "the longest middle length": b"x" * 65535,
    "the shortest long length": b"x" * 65536,
    "every width of UTF-8": "κόσμε \U0001f600 é \x00 \uffff \U0010ffff".encode() * 1000,
}


@both
@pytest.mark.parametrize("headers", [{}, DEFLATE], ids=["plain", "deflate"])
async def test_messages_of_any_length_come_back(transport: str, headers: dict[str, str]) -> None:
    async with serving(transport, Door()) as port, opened(port, headers) as client:
        for payload in MESSAGES.values():
            for opcode in (TEXT, BINARY):
                client.send(frame(opcode, payload))

                received = await client.receive()

                assert received is not None
                assert received.opcode == opcode
                assert (inflated(received.payload) if received.rsv else received.payload) == payload


@both
async def test_fragments_of_any_size_are_one_message_and_pings_may_come_between_them(transport: str) -> None:
    async with serving(transport, Door()) as port, opened(port) as client:
        client.send(
            frame(TEXT, b"", fin=False),
            frame(CONTINUATION, b"\xce", fin=False),
            frame(PING, b"are you there"),
            frame(CONTINUATION, b"\xba", fin=False),
            frame(PONG, b"unsolicited"),
            frame(CONTINUATION, b"", fin=True),
            frame(TEXT, b"next"),
        )

        frames = [await client.receive() for _ in range(3)]

        assert frames == [Received(PONG, b"are you there"), Received(TEXT, b"\xce\xba"), Received(TEXT, b"next")]


@both
async def test_a_compressed_message_may_be_fragmented_anywhere(transport: str) -> None:
    message = b"so so so so so so so"
    payload = deflated(message)
    async with serving(transport, Door()) as port, opened(port, DEFLATE) as client:
        for cut in range(len(payload) + 1):
            client.send(frame(TEXT, payload[:cut], fin=False, rsv=4), frame(PING), frame(CONTINUATION, payload[cut:]))

            assert await client.receive() == Received(PONG, b"")
            received = await client.receive()

            assert received is not None
            assert (inflated(received.payload) if received.rsv else received.payload) == message


@both
async def test_pings_come_back_with_their_payload(transport: str) -> None:
    async with serving(transport, Door()) as port, opened(port) as client:
        for payload in (b"", b"x", bytes(range(125))):
            client.send(frame(PING, payload))

            assert await client.receive() == Received(PONG, payload)


@both
async def test_unsolicited_pongs_are_nothing(transport: str) -> None:
    async with serving(transport, Door()) as port, opened(port) as client:
        client.send(frame(PONG, b"well?"), frame(PONG), frame(TEXT, b"hello"))

        assert await client.receive() == Received(TEXT, b"hello")


@both
async def test_a_close_comes_back_with_its_code_and_ends_the_connection(transport: str) -> None:
    door = Door()
    async with serving(transport, door) as port:
        for code in (*range(1000, 1004), *range(1007, 1015), 3000, 4999):
            async with opened(port) as client:
                client.send(close(code, "bye κόσμε".encode()))

                assert await client.close_code() == code
                conversation = door.conversation
                await until(lambda conversation=conversation: conversation.ended)
                assert conversation.ended == [code]


@both
async def test_a_close_without_a_code_comes_back_without_one(transport: str) -> None:
    door = Door()
    async with serving(transport, door) as port, opened(port) as client:
        client.send(close())

        assert await client.the_rest() == [Received(CLOSE, b"")]
        await until(lambda: door.conversation.ended == [1005])


@both
async def test_what_follows_a_close_is_ignored(transport: str) -> None:
    door = Door()
    async with serving(transport, door) as port, opened(port) as client:
        client.send(close(1000), frame(TEXT, b"too late"), frame(PING), close(1001), frame(3))

        assert await client.close_code() == 1000
        await until(lambda: door.conversation.told == [("opened", None), ("closed", 1000)])


@both
async def test_a_close_may_come_in_the_middle_of_a_message(transport: str) -> None:
    async with serving(transport, Door()) as port, opened(port) as client:
        client.send(frame(TEXT, b"unfinished", fin=False), close(1000))

        assert await client.close_code() == 1000


@both
async def test_a_message_of_exactly_the_limit_is_delivered(transport: str) -> None:
    noise = random.Random(1).randbytes(LIMIT)  # longer than the limit when it is compressed
    async with serving(transport, Door(limit=LIMIT), ws_max_size=2 * LIMIT) as port, opened(port, DEFLATE) as client:
        client.send(
            frame(BINARY, noise), frame(BINARY, deflated(noise), rsv=4), fragmented(BINARY, noise[:1], noise[1:], b"")
        )

        for _ in range(3):
            received = await client.receive()
            assert received is not None
            assert (inflated(received.payload) if received.rsv else received.payload) == noise


@both
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_the_conversation_has_a_limit_of_its_own_below_the_server_s(transport: str, opcode: int) -> None:
    door = Door(limit=LIMIT)
    async with serving(transport, door) as port, opened(port) as client:
        client.send(frame(opcode, "é".encode() * (LIMIT // 2) + b"x"))
        received = await client.receive()
        client.send(close(1009))

        assert received is not None
        assert (received.opcode, received.payload[:2]) == (CLOSE, (1009).to_bytes(2, "big"))
        assert await client.the_rest() == []
        assert door.conversation.told[:1] == [("opened", None)]
        assert [name for name, _ in door.conversation.told if name in {"text", "binary"}] == []


@both
async def test_sixteen_megabytes_come_back_whole_and_in_pieces(transport: str) -> None:
    message = bytes(range(256)) * 4096 * 16
    size = len(message)
    async with (
        serving(transport, Door(limit=size), ws_max_size=size) as port,
        opened(port) as client,
        asyncio.timeout(30),
    ):
        client.send(frame(BINARY, message))
        whole = await client.receive()
        client.send(fragmented(BINARY, *[message[start : start + 4096] for start in range(0, size, 4096)]))
        pieces = await client.receive()

        assert whole == Received(BINARY, message)
        assert pieces == Received(BINARY, message)


@both
async def test_one_who_breaks_the_protocol_disturbs_nobody(transport: str) -> None:
    async with serving(transport, Door()) as port, opened(port) as honest, opened(port) as broken:
        broken.send(b"\xff" * 1000)
        assert await broken.close_code() == 1002

        honest.send(frame(TEXT, b"still here"))

        assert await honest.receive() == Received(TEXT, b"still here")


@both
@pytest.mark.parametrize("compression", ["deflate", None])
async def test_the_websockets_client_gets_its_messages_back(transport: str, compression: str | None) -> None:
    async with (
        serving(transport, Door()) as port,
        connect(f"ws://127.0.0.1:{port}/any/path?x=1", compression=compression, max_size=None) as client,
    ):
        for message in ("hello", "", "κόσμε" * 10_000, b"\x00\xff" * 50_000, ["in ", "frag", "ments"]):
            await client.send(message)

            assert await client.recv() == ("".join(message) if isinstance(message, list) else message)

        assert bool(client.protocol.extensions) == (compression is not None)
        await client.close(4000, "enough")
        assert client.close_code == 4000
