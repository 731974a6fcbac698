"""Roomkey inside another application: an ASGI app that can be mounted anywhere, or run alone."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from starlette.types import Receive, Scope, Send

from roomkey.access.service import AccessService
from roomkey.api.in_process import RoomDocuments
from roomkey.config import SECTIONS, Config, load
from roomkey.documents.loading import Seed
from roomkey.domain.session import IssuedSession, Session, SessionId
from roomkey.errors import ConfigurationError
from roomkey.health import Health
from roomkey.hooks.events import ContentForm, EventType
from roomkey.hooks.handlers import HookFunction, types_of
from roomkey.node import Node
from roomkey.observability.logs import configure_events
from roomkey.ports import Authorize, Page
from roomkey.realtime.roll_call import ConnectedPage, Disconnected
from roomkey.security.events import SecurityEvents
from roomkey.sessions.manager import SessionManager
from roomkey.settings import SourcedValue, nearest


def asgi(
    config: Config | Path | None = None,
    *,
    seed: Seed | None = None,
    authorize: Authorize | None = None,
    **sections: Mapping[str, Any],
) -> "RoomkeyApp":
    """
    Roomkey as an ASGI application, configured by ``config``, or by a file, the environment and ``sections``.

    ``seed`` is called with the name of a document that is made, and may be async; what it returns is what the document
    begins with: its roots by name, texts as ``str``, arrays as ``list``, maps as ``dict``. If it raises, or takes
    longer than ``documents.load_timeout``, the document is not opened (503), and nothing is stored.

    ``authorize(session, document)`` returns what the session may do in the document, ``"read"``, ``"write"``,
    ``"admin"`` or ``None``, or is a coroutine function that does. Of that a session may do what its grants allow, too.

    >>> app.mount("/rooms", roomkey.asgi(storage={"url": "memory"}, sessions={"lifetime": "8h"}))

    Raises:
        ConfigurationError: With everything that is wrong.
    """
    if isinstance(config, Config):
        if sections:
            raise ConfigurationError("asgi() takes a whole configuration or sections of one, not both")
        return RoomkeyApp(config, seed=seed, authorize=authorize)
    for section in sections:
        if section not in SECTIONS:
            raise ConfigurationError(f"{section}: there is no such section{nearest(section, SECTIONS)} (asgi())")
    given = {
        f"{section}.{name}": SourcedValue(value, "asgi()")
        for section, values in sections.items()
        for name, value in values.items()
    }
    return RoomkeyApp(load(config, given), seed=seed, authorize=authorize)


class RoomkeyApp:
    """
    REST and WebSockets of one node as an ASGI application.

    Applications do not tell what is mounted in them when they start and stop. So either ``lifespan`` is made
    part of the application's own, or storage and background tasks start with the first request and stop when the
    event loop is closed, which cancels them. ``sessions`` may be handed out at once; it works while either holds.
    """

    def __init__(self, config: Config, *, seed: Seed | None = None, authorize: Authorize | None = None) -> None:
        if not structlog.is_configured():
            # As it comes, structlog shows the variables of tracebacks, and tokens are in them.
            configure_events(config.log)
        self._node = Node(config, seed=seed, authorize=authorize)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started: asyncio.Future[None] | None = None
        self._runner: asyncio.Task[None] | None = None

    @property
    def sessions(self) -> SessionManager:
        """The commands on sessions, for the application's own use and for ``SessionSecurityMiddleware``."""
        return self._node.sessions

    @property
    def access(self) -> AccessService:
        """Who may do what in which document and why, and having the application asked again."""
        return self._node.access.service

    @property
    def documents(self) -> RoomDocuments:
        """Reading and writing documents, with the rights and the errors of REST."""
        return self._node.room_documents

    async def presence(
        self, document: str, page: Page | None = None, *, session: Session | IssuedSession | None = None
    ) -> ConnectedPage:
        """
        Who has the document open by a socket, on all nodes: ``GET /documents/{name}/sessions``.

        With ``session``, as its holder may see it. Follow ``next_cursor`` for the rest.

        Raises:
            Storage: If other nodes cannot be asked. Otherwise as ``documents.read``.
        """
        return await self._node.connected.presence(document, page, session)

    async def disconnect(
        self,
        id: SessionId | None = None,
        *,
        document: str | None = None,
        reason: str | None = None,
        session: Session | IssuedSession | None = None,
    ) -> Disconnected:
        """
        Put a session out of a document, or of all; or everybody out of a document. They may come back.

        The reason is told to whoever is disconnected. With ``session``, as far as its holder may do that. To log a
        session out, invalidate it.

        Raises:
            InvalidInput: If neither a session nor a document is named. Otherwise as ``presence``.
        """
        return await self._node.connected.disconnect(id, document, reason, session)

    def on(
        self,
        types: EventType | Sequence[EventType],
        function: HookFunction | None = None,
        *,
        documents: str = "**",
        content: ContentForm | None = None,
    ) -> Any:
        """
        Have an async ``function`` told of events, such as ``"document.changed"``; without it, a decorator.

        Events of one document are told one after the other. Whatever the function does harms nobody: what it raises is
        logged, and it is cancelled after ``hooks.timeout``. Returns the function.

        >>> @rooms.on("document.changed", documents="notes/**", content="text")
        ... async def index(event: DocumentChanged) -> None: ...

        Args:
            documents: A pattern as in grants: of other documents nothing is told.
            content: Have the content of the document come with the event: ``"text"``, ``"json"`` or ``"yjs"``.

        Raises:
            InvalidInput: If there are no such events, or it is no coroutine function.
        """

        def add(function: HookFunction) -> HookFunction:
            self._node.hooks.handlers.add(types_of(types), function, documents=documents, content=content)
            return function

        return add if function is None else add(function)

    @property
    def events(self) -> SecurityEvents:
        """Where security events are reported, for the application's listeners and for ``SessionSecurityMiddleware``."""
        return self._node.events

    @property
    def health(self) -> Health:
        """Health and figures of everything that runs here: sessions, sockets, documents, background tasks."""
        return self._node.health

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None]:  # noqa: ARG002  # as Starlette calls it
        """
        Everything at work until the block is left; open sockets are drained then.

        >>> app = FastAPI(lifespan=rooms.lifespan)
        """
        async with self._node.running():
            self._loop = asyncio.get_running_loop()
            try:
                yield
                await self._node.drain()
            finally:
                self._loop = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or socket, or the lifespan of a server that runs nothing else."""
        if scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
            return
        if self._loop is not asyncio.get_running_loop():
            await self._start()
        await self._node.app(scope, receive, send)

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        if self._started is None or self._started.get_loop() is not loop:
            self._started = loop.create_future()
            # Not in a group: it outlives the request that began it, and nobody tells us of the end
            # but the loop, which cancels it.
            self._runner = loop.create_task(self._run(self._started))
        await asyncio.shield(self._started)

    async def _run(self, started: asyncio.Future[None]) -> None:
        try:
            async with self.lifespan():
                started.set_result(None)
                await asyncio.Event().wait()
        except Exception as error:  # whoever waits for the start gets it, and the next request tries again
            if started.done():
                raise
            started.set_exception(error)
        finally:
            self._started = None

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self.lifespan():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.shutdown.complete"})
