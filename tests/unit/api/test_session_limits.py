"""What ``SessionSecurityMiddleware`` counts and refuses, in process; how it gets on with an interface of ours."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roomkey.api.authentication import SecurityConfig
from roomkey.api.middleware import SessionSecurityMiddleware
from roomkey.domain.session import SessionState
from roomkey.security.events import SecurityEvent
from roomkey.security.limits import LimitSettings
from roomkey.transports import COUNTED
from tests.support.rest import Rest, call

FEW = LimitSettings(
    session_requests_per_second=0.01, session_request_burst=5, address_requests_per_second=0.01, address_request_burst=9
)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers at once."""
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


class Gate:
    """The middleware in front of an application, and what it reports."""

    def __init__(self, app: ASGIApp = hello, **config: Any) -> None:
        self.rest = Rest()
        self.reported: list[SecurityEvent] = []
        self.rest.events.listen(self.reported.append)
        values: dict[str, Any] = {"limits": FEW, **config}
        settings = SecurityConfig(**values)
        self.app = SessionSecurityMiddleware(app, self.rest.sessions, settings, events=self.rest.events)

    async def statuses(self, token: str | None, times: int, client: str = "198.51.100.1") -> list[int]:
        headers = [] if token is None else [("authorization", f"Bearer {token}")]
        return [(await call(self.app, "GET", "/", headers=headers, client=client)).status for _ in range(times)]


async def test_a_session_has_a_budget_from_wherever_it_asks() -> None:
    gate = Gate()
    token = (await gate.rest.session()).token

    assert await gate.statuses(token, 4) == [200] * 4
    assert await gate.statuses(token, 2, "198.51.100.2") == [200, 429]
    assert [(event.cause, event.address) for event in gate.reported] == [("rate_limited", "198.51.100.2")]


async def test_an_address_has_a_budget_before_anybody_looks_at_its_credential() -> None:
    gate = Gate()

    assert await gate.statuses(None, 11) == [401] * 9 + [429] * 2
    assert await gate.statuses(None, 1, "198.51.100.2") == [401]


async def test_who_goes_on_asking_is_ended_after_so_many_intervals() -> None:
    limits = LimitSettings(session_requests_per_second=0.01, session_request_burst=1)
    gate = Gate(limits=limits, max_violations=1)
    issued = await gate.rest.session()

    statuses = await gate.statuses(issued.token, 60)

    assert statuses[:2] == [200, 429]
    assert statuses[-1] == 410
    assert statuses.count(429) == 51
    ended = await gate.rest.sessions.get_session(issued.id)
    assert ended is not None
    assert (ended.violations, ended.state) == (1, SessionState.INVALIDATED)


@pytest.mark.parametrize("parts", [[b"x" * 6, b"x" * 5], [b"x" * 11], [b""] * 3 + [b"x" * 11]])
async def test_a_body_of_unknown_length_is_refused_when_it_is_too_long(parts: Sequence[bytes]) -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            heard.append(message)
        await hello(scope, receive, send)

    gate = Gate(app, max_body_bytes=10)
    token = (await gate.rest.session()).token

    refused = await call(gate.app, "POST", "/", headers=[("authorization", f"Bearer {token}")], body=parts)

    assert (refused.status, refused.code) == (413, "too_large")
    assert sum(len(message["body"]) for message in heard) <= 10


async def test_what_an_application_raises_because_its_client_has_gone_is_not_its_fault() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, send
        while (await receive())["type"] == "http.request":
            pass
        raise ConnectionError("the client has gone")

    gate = Gate(app, max_body_bytes=10)
    token = (await gate.rest.session()).token

    refused = await call(gate.app, "POST", "/", headers=[("authorization", f"Bearer {token}")], body=[b"x" * 11])

    assert refused.status == 413


async def test_an_announced_length_is_believed_before_anything_is_read() -> None:
    gate = Gate(max_body_bytes=10)
    token = (await gate.rest.session()).token

    for length, status in (("10", 200), ("11", 413), ("1" * 30, 413), ("x", 413)):
        headers = [("authorization", f"Bearer {token}"), ("content-length", length)]
        assert (await call(gate.app, "POST", "/", headers=headers)).status == status


async def test_an_interface_of_ours_behind_it_counts_no_request_twice() -> None:
    gate = Gate()
    app = SessionSecurityMiddleware(gate.rest.app, gate.rest.sessions, SecurityConfig(limits=FEW))
    token = (await gate.rest.session()).token
    headers = [("authorization", f"Bearer {token}")]

    behind = [await call(app, "GET", "/sessions/me", headers=headers) for _ in range(3)]
    alone = await call(gate.rest.app, "GET", "/sessions/me", headers=headers)

    assert [answer.header("ratelimit") for answer in behind] == [
        '"session";r=4;t=100',
        '"session";r=3;t=200',
        '"session";r=2;t=300',
    ]
    assert alone.header("ratelimit") == '"session";r=999;t=1'


async def test_an_interface_of_ours_behind_it_counts_messages_alone() -> None:
    waived: list[bool] = []

    async def ours(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/ours":
            scope[COUNTED]()
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            waived.append(scope["path"] == "/ours")
        await send({"type": "websocket.close", "code": message["code"]})

    gate = Gate(ours, message_burst=3, messages_per_second=0.01)
    token = (await gate.rest.session()).token
    for path in ("/theirs", "/ours"):
        incoming = [{"type": "websocket.connect"}]
        incoming += [{"type": "websocket.receive", "text": "x"}] * 5
        incoming += [{"type": "websocket.disconnect", "code": 1000}]
        sent: list[Message] = []

        async def receive(incoming: list[Any] = incoming) -> Message:
            return incoming.pop(0)

        async def send(message: Message, sent: list[Message] = sent) -> None:
            sent.append(message)

        scope = {
            "type": "websocket",
            "path": path,
            "headers": [(b"authorization", f"Bearer {token}".encode())],
            "client": ("198.51.100.1", 5),
        }
        await gate.app(scope, receive, send)
        if path == "/theirs":
            assert (sent[-1]["code"], sent[-1]["reason"]) == (4429, "limits_ignored")

    assert waived == [False] * 3 + [True] * 5


def test_limits_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="violation_check_interval must be longer"):
        SecurityConfig(violation_check_interval=timedelta())
    with pytest.raises(ValueError, match="max_violations must be more than 0"):
        SecurityConfig(max_violations=0)
