"""
A client of a Roomkey server for programs: sessions, documents, and documents that are open, for bots and agents.

    async with Roomkey("https://rooms.example.com", token=api_key) as roomkey:
        issued = await roomkey.sessions.create("ada", activate=True)
        async with roomkey.live("notes/today", issued.token) as live:
            await live.synced()

Needs the extra ``client``: ``pip install roomkey[client]``.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Self

from roomkey.client.calls import Calls
from roomkey.client.documents import Documents, Read
from roomkey.client.groups import Groups
from roomkey.client.live import LiveDocument, Removed, Tokens
from roomkey.client.sessions import Sessions
from roomkey.client.states import Ending, State
from roomkey.errors import ConfigurationError

if TYPE_CHECKING:
    import httpx
    from pycrdt import Doc

TIMEOUT_SECONDS: Final = 10.0

__all__ = [
    "Documents",
    "Ending",
    "Groups",
    "LiveDocument",
    "Read",
    "Removed",
    "Roomkey",
    "Sessions",
    "State",
]


class Roomkey:
    """
    A server, with one credential: an API key, or the token of a session.

    Used as an async context manager; it belongs to one event loop.
    """

    def __init__(self, url: str, *, token: str | None = None, http: "httpx.AsyncClient | None" = None) -> None:
        """
        ``http`` carries the requests, if one's own client is to: with a proxy, or ``httpx.ASGITransport`` in a test.

        Raises:
            ConfigurationError: If what it needs is not installed, or ``url`` is none of HTTP.
        """
        for needed in ("httpx", "websockets"):
            if find_spec(needed) is None:
                raise ConfigurationError(f"the client needs {needed}: pip install roomkey[client]")
        import httpx  # noqa: PLC0415  # of the extra

        if not url.startswith(("http://", "https://")):
            raise ConfigurationError("the URL of a server begins with http:// or https://")
        self._url = url
        self._is_own = http is None
        self._http = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS) if http is None else http
        calls = Calls(self._http, token)
        self.sessions: Final = Sessions(calls)
        self.groups: Final = Groups(calls)
        self.documents: Final = Documents(calls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_reason: object) -> None:
        if self._is_own:
            await self._http.aclose()

    def live(self, name: str, token: Tokens, *, doc: "Doc[Any] | None" = None) -> LiveDocument:
        """
        The document ``name``, open for the session of ``token`` as long as what is returned is entered.

        With a function for ``token`` it goes on when the token was rotated, or the session has expired and the
        function returns that of another one.
        """
        return LiveDocument(self._url, name, token, doc=doc)
