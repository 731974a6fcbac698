"""Opening, keeping alive, closing and dropping sockets: what conversations and uvicorn may rely on."""

import asyncio
import base64
import zlib
from contextlib import suppress
from datetime import timedelta

import pytest

from roomkey.realtime.transport import Accepted, Handshake, Refused, Socket
from roomkey.transports import TransportSettings
from roomkey.transports.proxies import TrustedProxies
from roomkey.wire.frame import Frame
from tests.support.rawsocket import (
    CLOSE,
    DEFLATE,
    PING,
    PONG,
    TEXT,
    TRANSPORTS,
    Conversation,
    Door,
    RawClient,
    Received,
    close,
    connected,
    deflated,
    frame,
    opened,
    serving,
    until,
)

both = pytest.mark.parametrize("transport", TRANSPORTS)

BRISK = TransportSettings(
    handshake_timeout=timedelta(seconds=0.2),
    ping_interval=timedelta(seconds=0.3),
    pong_timeout=timedelta(seconds=0.1),
    close_timeout=timedelta(seconds=0.2),
)

IMPATIENT = TransportSettings(close_timeout=timedelta(seconds=0.2))


# --- opening ----------------------------------------------------------------------------------------------


@both
async def test_the_doorkeeper_sees_the_handshake_as_it_was_sent(transport: str) -> None:
    door = Door()
    headers = {"X-Repeated": "one", "x-REPEATED": "two", "Sec-WebSocket-Protocol": "a, b", "Cookie": "k=v"}
    async with serving(transport, door) as port, connected(port) as client:
        response = await client.upgrade("/documents/a%2Fb%20c?since=1&since=2&empty=&q=%C3%A9", headers)

    handshake = door.handshakes[0]
    assert response.status == 101
    assert handshake.path == "/documents/a/b c"
    assert handshake.raw_path == "/documents/a%2Fb%20c"
    assert handshake.query == {"since": "1", "empty": "", "q": "é"}
    assert handshake.headers["x-repeated"] == "one, two"
    assert handshake.headers["cookie"] == "k=v"
    assert list(handshake.subprotocols) == ["a", "b"]
    assert handshake.client_ip == "127.0.0.1"
    assert not handshake.secure


@both
async def test_the_101_carries_the_subprotocol_and_the_headers_of_the_answer(transport: str) -> None:
    answer = Accepted(conversation=Conversation(), subprotocol="b", headers=[("roomkey-lineage", "xyz")])
    async with serving(transport, Door(answer)) as port, connected(port) as client:
        response = await client.upgrade(
            headers={"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "a, b"}
        )

    assert response.status == 101
    assert response.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, 1.3
    assert response.headers["sec-websocket-protocol"] == "b"
    assert response.headers["roomkey-lineage"] == "xyz"


@both
async def test_a_refusal_is_plain_http(transport: str) -> None:
    headers = [("content-type", "application/problem+json"), ("retry-after", "7")]
    statuses = [401, 403, 404, 410, 429, 503]
    door = Door(*[Refused(status=status, body=b'{"code":"no"}', headers=headers) for status in statuses])
    async with serving(transport, door) as port:
        for status in statuses:
            async with connected(port) as client:
                response = await client.upgrade()

                assert response.status == status
                assert response.body == b'{"code":"no"}'
                assert response.headers["content-type"] == "application/problem+json"
                assert response.headers["retry-after"] == "7"
                assert response.headers["connection"].lower() == "close"
                assert await client.reader.read() == b""


async def test_the_connection_header_may_have_more_in_it() -> None:
    async with serving("picows", Door()) as port, connected(port) as client:
        response = await client.upgrade(headers={"Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket"})

    assert response.status == 101


MALFORMED: list[dict[str, str | None]] = [
    {"Sec-WebSocket-Key": None},
    {"Sec-WebSocket-Key": ""},
    {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ"},
    {"Sec-WebSocket-Key": base64.b64encode(bytes(15)).decode()},
    {"Sec-WebSocket-Key": "not base64, at all!!"},
    {"Sec-WebSocket-Key": "é"},
    {"Host": None},
    {"Content-Length": "5"},
    {"Transfer-Encoding": "chunked"},
]


async def test_a_malformed_handshake_is_a_400() -> None:
    door = Door()
    async with serving("picows", door) as port:
        for headers in MALFORMED:
            async with connected(port) as client:
                response = await client.upgrade(headers=headers, body=b"0\r\n\r\n")

                assert (response.status, headers) == (400, headers)

    assert door.handshakes == []


async def test_an_address_that_makes_no_sense_is_a_400() -> None:
    async with serving("picows", Door()) as port:
        for path in ("/%ff", "/?" + "&".join(f"a{number}=1" for number in range(101))):
            async with connected(port) as client:
                assert (await client.upgrade(path)).status == 400


async def test_another_version_is_told_which_one_is_spoken() -> None:
    async with serving("picows", Door()) as port:
        for version in ("12", "8", "14", "", "13, 8", None):
            async with connected(port) as client:
                response = await client.upgrade(headers={"Sec-WebSocket-Version": version})

                assert response.status == 426
                assert response.headers["sec-websocket-version"] == "13"


@pytest.mark.parametrize("request_line", ["POST / HTTP/1.1", "GET / HTTP/1.0"])
async def test_only_a_get_of_http_1_1_opens_a_websocket(request_line: str) -> None:
    head = (
        f"{request_line}\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with serving("picows", Door()) as port, connected(port) as client:
        client.send(head.encode())

        assert (await client.response()).status != 101


UNSAFE = [("x", "a\r\nset-cookie: stolen=1"), ("x\r\ny", "a"), ("x y", "a"), ("x", "a\n"), ("x", "\0"), ("", "a")]


async def test_no_answer_can_be_split_by_a_header() -> None:
    answers: list[Accepted | Refused] = []
    for header in UNSAFE:
        answers.append(Refused(status=401, body=b"", headers=[header]))
        answers.append(Accepted(conversation=Conversation(), headers=[header]))
    answers.append(Accepted(conversation=Conversation(), subprotocol="a\r\nset-cookie: stolen=1"))
    answers.append(Accepted(conversation=Conversation(), subprotocol="never offered"))
    async with serving("picows", Door(*answers)) as port:
        for _ in answers:
            async with connected(port) as client:
                response = await client.upgrade(headers={"Sec-WebSocket-Protocol": "a"})

                assert response.status == 503
                assert "set-cookie" not in response.headers


@both
async def test_a_doorkeeper_that_does_not_answer_is_a_503_in_time(transport: str) -> None:
    async def never(_handshake: Handshake) -> Accepted:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(transport, Door(never), BRISK) as port, connected(port) as client:
        response = await client.upgrade()

    assert response.status == 503
    assert response.headers["retry-after"] == "1"


@both
async def test_a_doorkeeper_that_breaks_is_a_503(transport: str) -> None:
    async def breaks(_handshake: Handshake) -> Accepted:
        raise ZeroDivisionError

    async with serving(transport, Door(breaks)) as port, connected(port) as client:
        assert (await client.upgrade()).status == 503


@both
async def test_only_so_many_handshakes_are_decided_at_a_time(transport: str) -> None:
    decide = asyncio.Event()

    async def later(_handshake: Handshake) -> Accepted:
        await decide.wait()
        return Accepted(conversation=Conversation())

    door = Door(later)
    settings = TransportSettings(max_handshakes=1)
    async with (
        serving(transport, door, settings) as port,
        connected(port) as first,
        connected(port) as second,
        asyncio.TaskGroup() as tasks,
    ):
        waiting = tasks.create_task(first.upgrade())
        await until(lambda: door.handshakes)

        refused = await second.upgrade()
        decide.set()

    assert refused.status == 503
    assert "retry-after" in refused.headers
    assert waiting.result().status == 101


async def test_a_client_that_leaves_before_the_answer_leaves_nothing_behind() -> None:
    decide = asyncio.Event()
    conversation = Conversation()

    async def later(_handshake: Handshake) -> Accepted:
        await decide.wait()
        return Accepted(conversation=conversation)

    door = Door(later)
    async with serving("picows", door) as port:
        async with connected(port) as client, asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(client.upgrade())
            await until(lambda: door.handshakes)
            asked.cancel()
        decide.set()

        await until(lambda: conversation.ended)

    assert conversation.told[-1] == ("closed", 1006)


@pytest.mark.parametrize("trusted", ["127.0.0.1", "10.0.0.1"])
async def test_the_address_behind_a_proxy_is_believed_from_trusted_proxies_only(trusted: str) -> None:
    door = Door()
    headers = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    async with serving("picows", door, proxies=TrustedProxies([trusted])) as port, connected(port) as client:
        await client.upgrade(headers=headers)

    seen = door.handshakes[0].client_ip, door.handshakes[0].secure
    assert seen == (("203.0.113.9", True) if trusted == "127.0.0.1" else ("127.0.0.1", False))


# --- compression ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [9, 12, 15])
async def test_a_client_with_a_small_window_gets_messages_that_fit_it(bits: int) -> None:
    text = b"".join(b"%d something that comes back much later " % (number % 50) for number in range(2000))
    offer = {"Sec-WebSocket-Extensions": f"permessage-deflate; server_max_window_bits={bits}"}
    async with serving("picows", Door()) as port, opened(port, offer) as client:
        client.send(frame(TEXT, text))

        received = await client.receive()

    assert received is not None
    assert received.rsv == 4
    assert zlib.decompressobj(wbits=-bits).decompress(received.payload + b"\x00\x00\xff\xff") == text


async def test_what_is_short_or_does_not_shrink_is_sent_as_it_is() -> None:
    noise = bytes(number * number * 7919 >> 5 & 0xFF for number in range(5000))
    async with serving("picows", Door()) as port, opened(port, DEFLATE) as client:
        client.send(frame(TEXT, deflated(b"short"), rsv=4), frame(2, noise))

        assert await client.receive() == Received(TEXT, b"short")
        long = await client.receive()

    assert long is not None
    assert len(long.payload) <= len(noise)


async def test_compression_can_be_switched_off() -> None:
    settings = TransportSettings(compression=False)
    async with serving("picows", Door(), settings) as port, connected(port) as client:
        response = await client.upgrade(headers=DEFLATE)

    assert response.status == 101
    assert "sec-websocket-extensions" not in response.headers


# --- keeping alive ----------------------------------------------------------------------------------------


async def test_a_peer_that_answers_pings_stays() -> None:
    door = Door()
    async with serving("picows", door, BRISK) as port, opened(port) as client:
        for _ in range(3):
            assert await client.receive() == Received(PING, b"")
            client.send(frame(PONG))

        client.send(frame(TEXT, b"still here"))

        assert await client.receive() == Received(TEXT, b"still here")


async def test_a_peer_of_whom_nothing_is_heard_after_a_ping_is_dropped_without_a_close() -> None:
    door = Door()
    async with serving("picows", door, BRISK) as port, opened(port) as client:
        frames = await client.the_rest()
        await until(lambda: door.conversation.ended)

    assert frames == [Received(PING, b"")]
    assert door.conversation.told == [("opened", None), ("closed", 1006)]


# --- closing ----------------------------------------------------------------------------------------------


@both
async def test_what_was_sent_goes_before_the_close_and_nothing_after_it(transport: str) -> None:
    class Farewell(Conversation):
        def text(self, message: bytes) -> None:
            super().text(message)
            self.open_socket.send([Frame(b"one"), Frame(b"two")])
            self.open_socket.close(4401, "expired " + "é" * 100)
            self.open_socket.send([Frame(b"three")])
            self.open_socket.close(1000)

    door = Door(conversation=Farewell)
    async with serving(transport, door) as port, opened(port) as client:
        client.send(frame(TEXT, b"hello"), frame(TEXT, b"not delivered"))

        frames = [await client.receive() for _ in range(4)]
        client.send(close(4401))
        rest = await client.the_rest()
        await until(lambda: door.conversation.ended)

    assert frames[:3] == [Received(TEXT, b"hello"), Received(TEXT, b"one"), Received(TEXT, b"two")]
    assert frames[3] == Received(CLOSE, (4401).to_bytes(2, "big") + b"expired " + "é".encode() * 57)
    assert rest == []
    assert door.conversation.told == [("opened", None), ("text", b"hello"), ("closed", 4401)]


async def test_a_peer_that_does_not_answer_a_close_is_dropped_in_time() -> None:
    door = Door()
    async with serving("picows", door, IMPATIENT) as port, opened(port) as client:
        await until(lambda: door.conversation.socket)
        door.conversation.open_socket.close(1000)
        await until(lambda: door.conversation.ended)

        assert door.conversation.ended == [1006]
        assert client.writer.transport.is_closing() or await client.close_code() == 1000


async def test_a_peer_that_keeps_sending_still_gets_the_close_frame() -> None:
    # A connection that is closed with unread bytes in it is reset, and a reset would overtake the close frame.
    async with serving("picows", Door(limit=1000)) as port, opened(port) as client:
        client.send(frame(TEXT, b"\xff"), frame(TEXT, bytes(2_000_000)))

        assert await client.close_code() == 1007


async def test_a_peer_that_never_hangs_up_is_dropped_in_time() -> None:
    door = Door()
    async with serving("picows", door, IMPATIENT) as port, opened(port) as client:
        client.send(close(1000))
        assert await client.close_code() == 1000

        async def talk_on() -> None:
            while True:
                client.send(b"x")
                await client.writer.drain()
                await asyncio.sleep(0.01)

        async with asyncio.timeout(30):
            with pytest.raises(ConnectionError):
                await talk_on()


@both
async def test_a_conversation_that_breaks_costs_its_own_socket_only(transport: str) -> None:
    class Broken(Conversation):
        def text(self, message: bytes) -> None:
            if message == b"break":
                raise ZeroDivisionError
            super().text(message)

    door = Door(conversation=Broken)
    async with serving(transport, door) as port, opened(port) as honest, opened(port) as broken:
        broken.send(frame(TEXT, b"break"))
        assert await broken.receive() == Received(CLOSE, (1011).to_bytes(2, "big"))

        honest.send(frame(TEXT, b"hello"))

        assert await honest.receive() == Received(TEXT, b"hello")


@both
async def test_abort_drops_the_connection_and_ends_the_conversation_once(transport: str) -> None:
    class Aborting(Conversation):
        def text(self, message: bytes) -> None:
            super().text(message)
            self.open_socket.abort()
            self.open_socket.abort()
            self.open_socket.close(1000)

    door = Door(conversation=Aborting)
    async with serving(transport, door) as port, opened(port) as client:
        client.send(frame(TEXT, b"hello"))
        with suppress(ConnectionResetError):
            assert CLOSE not in [received.opcode for received in await client.the_rest()]
        await until(lambda: door.conversation.ended)

    assert door.conversation.told == [("opened", None), ("text", b"hello"), ("closed", 1006)]


@both
async def test_a_connection_that_breaks_ends_the_conversation(transport: str) -> None:
    door = Door()
    async with serving(transport, door) as port:
        async with opened(port) as client:
            client.send(frame(TEXT, b"hello"))
            await client.receive()

        await until(lambda: door.conversation.ended)

    assert len(door.conversation.ended) == 1


# --- slow peers -------------------------------------------------------------------------------------------


@both
async def test_a_peer_that_reads_late_makes_the_socket_writable_again(transport: str) -> None:
    door = Door(conversation=lambda: Conversation(echo=False))
    noise = Frame(bytes(1_000_000), binary=True)
    async with serving(transport, door) as port, opened(port) as client:
        await until(lambda: door.conversation.socket)
        socket: Socket = door.conversation.open_socket
        socket.send([noise] * 20)
        await until(lambda: socket.buffered() > 0)
        told_before_reading = list(door.conversation.told)

        for _ in range(20):
            received = await client.receive()
            assert received is not None
        await until(lambda: ("writable", None) in door.conversation.told)

    assert told_before_reading == [("opened", None)]


@both
async def test_aborting_a_peer_that_never_reads_frees_what_waited_for_it(transport: str) -> None:
    door = Door(conversation=lambda: Conversation(echo=False))
    async with serving(transport, door) as port, opened(port) as client:
        client.read_nothing()
        await until(lambda: door.conversation.socket)
        socket: Socket = door.conversation.open_socket
        socket.send([Frame(bytes(1_000_000), binary=True)] * 50)
        await until(lambda: socket.buffered() > 10_000_000)

        socket.abort()
        await until(lambda: door.conversation.ended)

        assert socket.buffered() == 0


async def test_pings_of_a_peer_that_reads_nothing_do_not_pile_up() -> None:
    door = Door(conversation=lambda: Conversation(echo=False))
    async with serving("picows", door) as port, opened(port) as client:
        client.read_nothing()
        await until(lambda: door.conversation.socket)
        socket: Socket = door.conversation.open_socket
        socket.send([Frame(bytes(1_000_000), binary=True)] * 20)
        await until(lambda: socket.buffered() > 0)
        before = socket.buffered()

        for number in range(900):
            client.send(frame(PING, b"%d" % number + bytes(100)))
        client.send(frame(TEXT, b"read it"))
        await until(lambda: ("text", b"read it") in door.conversation.told)

        assert socket.buffered() <= before
        client.read_on()
        pongs: list[Received] = []
        while not pongs:
            received = await client.receive()
            assert received is not None
            if received.opcode == PONG:
                pongs.append(received)
        assert pongs[0].payload.startswith(b"899")


# --- the server stops -------------------------------------------------------------------------------------


@both
async def test_the_server_stops_though_sockets_are_open_and_tells_them(transport: str) -> None:
    door = Door()
    async with asyncio.timeout(30):
        async with serving(transport, door, BRISK) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            client = RawClient(reader, writer)
            assert (await client.upgrade()).status == 101
        codes = await client.close_code()
        writer.close()

    assert codes == 1012
    assert len(door.conversation.ended) == 1


async def test_the_server_stops_though_a_handshake_is_being_decided() -> None:
    cancelled: list[str] = []

    async def never(_handshake: Handshake) -> Accepted:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("yes")
            raise
        raise AssertionError

    door = Door(never)
    settings = TransportSettings(handshake_timeout=timedelta(hours=1))
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        async with serving("picows", door, settings) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            asked = tasks.create_task(RawClient(reader, writer).upgrade())
            await until(lambda: door.handshakes)
        await asked
        writer.close()

    assert asked.result().status == 503
    assert cancelled == ["yes"]
