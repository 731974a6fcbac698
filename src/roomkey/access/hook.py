"""
The application's hook: what a session may do in a document, asked over HTTP.

The question is a POST, signed as Standard Webhooks says, so that the application knows who asks. The answer is 200 and
``{"access": "read" | "write" | "admin" | null}``, and nothing else is one: no redirect is followed, and no other status
means no, so that an application that is broken does not put everybody out.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from roomkey.access.decisions import NoAnswer
from roomkey.access.settings import AccessSettings
from roomkey.domain.access import Access
from roomkey.domain.session import Client, Session, SessionId
from roomkey.errors import ConfigurationError
from roomkey.ports import Clock
from roomkey.security.signatures import SigningSecret

if TYPE_CHECKING:
    import httpx

MAX_ANSWER_BYTES: Final = 4 * 1024

MAX_CONNECTIONS: Final = 64

RETRY_PAUSE_SECONDS: Final = 0.05

_AGAIN: Final = frozenset({429, 502, 503, 504})
"""What somebody answers who may know better in a moment; every other status will not change by itself."""


class AskedSession(Struct, frozen=True, kw_only=True):
    """The session as the application sees it."""

    id: SessionId
    user_id: str
    client: Client | None
    metadata: Mapping[str, Any] | None


class AskedAccess(Struct, frozen=True, kw_only=True):
    """The question: what may the session do in the document?"""

    type: str = "access.asked"
    document: str
    session: AskedSession


class AccessAnswer(Struct, frozen=True):
    """The answer: what it may do there, `null` if nothing. Other fields are ignored."""

    access: Access | None


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(AccessAnswer).decode


class AccessHook:
    """An ``Authorize`` that asks the hook at ``settings.url``. Connections are kept while it is ``at_work``."""

    def __init__(self, settings: AccessSettings, clock: Clock) -> None:
        if settings.url is None or settings.secret is None:
            raise ConfigurationError("access.url and access.secret: a hook has both")
        self._url = settings.url
        self._secret = SigningSecret(settings.secret)
        self._attempts = settings.attempts
        self._patience = settings.timeout.total_seconds() / settings.attempts
        self._clock = clock
        self._http: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        """Keep connections open until this is left."""
        import httpx  # noqa: PLC0415  # takes a while, and few need it

        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
        # No proxy of the environment, no redirect: the question goes where the operator said and nowhere else.
        async with httpx.AsyncClient(
            timeout=self._patience, limits=limits, follow_redirects=False, trust_env=False
        ) as client:
            self._http = client
            try:
                yield
            finally:
                self._http = None

    async def __call__(self, session: Session, document: str) -> Access | None:
        """
        What the application answers.

        Raises:
            NoAnswer: If it does not, or what is none.
        """
        asked = AskedSession(id=session.id, user_id=session.user_id, client=session.client, metadata=session.metadata)
        body, id = _encode(AskedAccess(document=document, session=asked)), f"msg_{token_hex(16)}"
        for _ in range(self._attempts - 1):
            with suppress(_NoAnswerYet):
                # The id stays, by which it is known that it is the same question.
                return await self._attempt(id, body)
            await asyncio.sleep(RETRY_PAUSE_SECONDS)
        try:
            return await self._attempt(id, body)
        except _NoAnswerYet as failure:
            raise NoAnswer(str(failure), is_away=True) from None

    async def _attempt(self, id: str, body: bytes) -> Access | None:
        import httpx  # noqa: PLC0415

        if self._http is None:
            raise NoAnswer("the node does not run")
        headers = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}
        headers |= self._secret.headers(id, self._clock.now(), body)
        content = bytearray()
        try:
            async with (
                asyncio.timeout(self._patience),
                self._http.stream("POST", self._url, content=body, headers=headers) as answer,
            ):
                if answer.status_code != 200:
                    kind = _NoAnswerYet if answer.status_code in _AGAIN else NoAnswer
                    raise kind(f"the hook answered {answer.status_code}")
                async for part in answer.aiter_raw():  # what is small on its way may be large
                    content += part
                    if len(content) > MAX_ANSWER_BYTES:
                        raise NoAnswer(f"the hook answered with more than {MAX_ANSWER_BYTES // 1024} KiB")
        except TimeoutError:
            raise _NoAnswerYet(f"the hook did not answer within {self._patience:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _NoAnswerYet(f"the hook cannot be reached: {type(error).__name__}") from None
        return _read(bytes(content))


def _read(content: bytes) -> Access | None:
    try:
        return _decode(content).access
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise NoAnswer('the hook did not answer {"access": …} with read, write, admin or null') from None


class _NoAnswerYet(Exception):
    """It may be worth asking once more."""
