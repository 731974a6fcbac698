"""Headers, bodies and conditions of one exchange."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from starlette.types import Message

from roomkey.api.http_messages import (
    Disconnected,
    check_json,
    etag,
    expected_tags,
    expected_versions,
    headers_of,
    matches_etag,
    media_type,
    preferred,
    read_body,
    socket_address,
)
from roomkey.errors import BodyTooLarge, MalformedRequest, NotAcceptable, RequestTimeout, UnsupportedMediaType
from tests.support.loops import in_no_time

LONG = timedelta(seconds=30)
NONE: set[int] = set()


class Incoming:
    """What arrives, part by part; after the last one nothing more does."""

    def __init__(self, parts: Sequence[Message], *, at_once: bool = True) -> None:
        self.left = list(parts)
        self.at_once = at_once

    async def receive(self) -> Message:
        if not self.at_once:
            await asyncio.sleep(0)
        if not self.left:
            await asyncio.get_running_loop().create_future()
        return self.left.pop(0)


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_body_is_read_to_its_end(at_once: bool) -> None:  # noqa: FBT001  # a row of the table
    incoming = Incoming([part(b"ab", more=True), part(b"", more=True), part(b"cd")], at_once=at_once)

    body = await read_body(incoming.receive, {}, 4, LONG)

    assert body == b"abcd"


async def test_a_body_that_is_announced_too_large_is_not_read() -> None:
    incoming = Incoming([part(b"x" * 100)])

    with pytest.raises(BodyTooLarge):
        await read_body(incoming.receive, {"content-length": "100"}, 99, LONG)

    assert len(incoming.left) == 1


@pytest.mark.parametrize("length", ["9" * 30, "100"])
async def test_any_length_is_too_large_that_is_beyond_the_limit(length: str) -> None:
    with pytest.raises(BodyTooLarge):
        await read_body(Incoming([]).receive, {"content-length": length}, 99, LONG)


@pytest.mark.parametrize("length", ["", "+5", "-1", "five", "5, 5", "\u0665"])
async def test_a_length_is_a_number(length: str) -> None:
    with pytest.raises(MalformedRequest):
        await read_body(Incoming([part(b"x")]).receive, {"content-length": length}, 99, LONG)


async def test_a_body_that_nobody_announced_is_refused_as_soon_as_it_is_too_large() -> None:
    incoming = Incoming([part(b"x" * 60, more=True)] * 100)

    with pytest.raises(BodyTooLarge):
        await read_body(incoming.receive, {}, 100, LONG)

    assert len(incoming.left) == 98


async def test_one_part_that_is_too_large_is_refused() -> None:
    with pytest.raises(BodyTooLarge):
        await read_body(Incoming([part(b"x" * 101)]).receive, {}, 100, LONG)


@pytest.mark.parametrize("parts", [[], [part(b"{", more=True)]])
async def test_a_body_that_does_not_arrive_is_not_waited_for(parts: list[Message]) -> None:
    with pytest.raises(RequestTimeout):
        await read_body(Incoming(parts, at_once=False).receive, {}, 100, timedelta(milliseconds=5))


@in_no_time
async def test_where_the_server_has_a_deadline_there_is_no_other() -> None:
    async def receive() -> Message:
        await asyncio.sleep(3600)
        return part(b"late")

    assert await read_body(receive, {}, 100, None) == b"late"


@pytest.mark.parametrize("before", [[], [part(b"{", more=True)]])
async def test_a_client_that_goes_away_is_not_answered(before: list[Message]) -> None:
    incoming = Incoming([*before, {"type": "http.disconnect"}])

    with pytest.raises(Disconnected):
        await read_body(incoming.receive, {}, 100, LONG)


async def test_a_cancelled_reader_lets_go_of_what_it_waits_for() -> None:
    released = asyncio.Event()

    async def receive() -> Message:
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            released.set()

    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(read_body(receive, {}, 100, LONG))
        await asyncio.sleep(0)
        reader.cancel()

    assert reader.cancelled()
    assert released.is_set()


async def test_what_the_server_raises_while_receiving_is_passed_on() -> None:
    async def receive() -> Message:
        await asyncio.sleep(0)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await read_body(receive, {}, 100, LONG)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_json_may_be_called_by_any_of_its_names(kind: str) -> None:
    check_json({"content-type": kind})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/jsonx"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_what_is_not_said_to_be_json_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(UnsupportedMediaType):
        check_json(headers)


def scope(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"headers": list(headers)}


@pytest.mark.parametrize("name", [b"authorization", b"x-session-id", b"host", b"if-match", b"idempotency-key"])
def test_a_header_that_may_stand_once_may_not_stand_twice(name: bytes) -> None:
    with pytest.raises(MalformedRequest):
        headers_of(scope((name, b"a"), (name, b"a")))


def test_other_headers_are_joined() -> None:
    headers = headers_of(scope((b"cookie", b"a=1"), (b"accept", b"x"), (b"cookie", b"b=2"), (b"accept", b"y")))

    assert headers == {"cookie": "a=1; b=2", "accept": "x, y"}


@pytest.mark.parametrize(
    ("condition", "answer"),
    [(None, False), ('"3"', True), ('W/"3"', True), ('"2", "3"', True), ("*", True), ('"2"', False), ("3", False)],
)
def test_if_none_match_compares_weakly(condition: str | None, answer: bool) -> None:  # noqa: FBT001  # a row
    assert matches_etag(condition, etag(3)[1]) is answer


@pytest.mark.parametrize(
    ("condition", "versions"),
    [
        (None, None),
        ("*", None),
        ('"3"', {3}),
        ('"3", "4"', {3, 4}),
        ('W/"3"', NONE),
        ('"abc"', NONE),
        ('""', NONE),
        ('"99999999999999999999"', NONE),
    ],
)
def test_if_match_says_which_versions_will_do(condition: str | None, versions: set[int] | None) -> None:
    assert expected_versions(condition) == versions


@pytest.mark.parametrize("condition", ["3", "", '"3', '"3",', 'w/"3"', '"3" "4"', "abc"])
def test_an_if_match_that_is_none_is_malformed(condition: str) -> None:
    with pytest.raises(MalformedRequest):
        expected_versions(condition)


def test_sockets_are_where_the_client_found_us() -> None:
    assert socket_address("https", "rooms.example.com", "/ws") == "wss://rooms.example.com/ws"
    assert socket_address("http", "[::1]:3000", "/rooms/ws") == "ws://[::1]:3000/rooms/ws"


@pytest.mark.parametrize("host", [None, "", "a/b", "a@b", "a b", "a?b", "x" * 256, "a\r\nb", "hôte"])
def test_a_host_that_is_none_does_not_get_into_urls(host: str | None) -> None:
    with pytest.raises(MalformedRequest):
        socket_address("http", host, "/ws")


# --- forms --------------------------------------------------------------------------------------------

FORMS = ("application/json", "text/plain", "application/x-yjs-update")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/plain", "text/plain"),
        ("TEXT/Plain ; charset=utf-8", "text/plain"),
        ("text/*", "text/plain"),
        ("application/*", "application/json"),
        ("text/plain, application/json", "application/json"),
        ("text/plain;q=0.9, application/json;q=0.8", "text/plain"),
        ("text/plain;q=0.8, */*;q=0.9", "application/json"),
        ("application/json;q=0, */*", "text/plain"),
        ("application/*;q=0.1, text/plain;q=0.01", "application/json"),
        ("image/png, text/plain; q=0.001", "text/plain"),
        ("text/plain;q=much, */*;q=0.5", "text/plain"),
    ],
)
def test_what_is_liked_best_is_sent(accept: str | None, form: str) -> None:
    assert preferred(accept, FORMS) == form


@pytest.mark.parametrize("accept", ["image/png", "image/*", "*/*;q=0", "text/plain;q=0", "text/plain;q=0.0", "json"])
def test_what_nobody_wants_is_not_sent(accept: str) -> None:
    with pytest.raises(NotAcceptable):
        preferred(accept, FORMS)


@pytest.mark.parametrize(
    ("said", "form"),
    [
        ("text/plain", "text/plain"),
        ("Text/Plain", "text/plain"),
        ("text/plain; charset=UTF-8", "text/plain"),
        ('text/plain;charset="utf-8"', "text/plain"),
        ("text/plain; charset=us-ascii", "text/plain"),
        ("application/json; charset=latin-1", "application/json"),  # the parameter has no meaning (RFC 8259, 11)
    ],
)
def test_a_body_is_what_it_is_said_to_be(said: str, form: str) -> None:
    assert media_type({"content-type": said}, FORMS) == form


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "text/html"},
        {"content-type": "text/plain; charset=latin-1"},
        {"content-type": "text/plain", "content-encoding": "gzip"},
        {"content-type": "application/json, text/plain"},
    ],
)
def test_a_body_that_is_something_else_is_refused_with_what_would_do(headers: dict[str, str]) -> None:
    with pytest.raises(UnsupportedMediaType) as refused:
        media_type(headers, FORMS)

    assert refused.value.accept == FORMS


def test_tags_of_documents_are_strong_and_any_text() -> None:
    assert expected_tags(None) is None
    assert expected_tags(" * ") is None
    assert expected_tags('"a.1" ,W/"b.2","3"') == {"a.1", "3"}
    for malformed in ("a.1", '"a', '"a"b"', ""):
        with pytest.raises(MalformedRequest):
            expected_tags(malformed)
