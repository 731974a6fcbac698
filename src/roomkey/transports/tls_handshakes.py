"""Connections that are not encrypted yet: only so many, each for a short time, and whoever has most makes room."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from roomkey.security.networks import network_of
from roomkey.transports.http import BoundedHttp


class TlsEntrance:
    """
    Makes the protocol of each new connection: first a TLS handshake, then what ``http`` makes.

    A handshake is one of the connections that owe a whole request head. ``context`` may be replaced by another one:
    connections that come from then on are encrypted with that.
    """

    def __init__(self, http: type[BoundedHttp], context: ssl.SSLContext, timeout: timedelta) -> None:
        self.http = http
        self.context = context
        self.timeout = timeout

    def __call__(
        self, *, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: object = None
    ) -> "TlsHandshake":
        """As uvicorn calls the class of its connections."""
        encrypted = partial(self.http, config=config, server_state=server_state, app_state=app_state)
        return TlsHandshake(self, server_state.connections, encrypted)


class TlsHandshake(asyncio.Protocol):
    """A connection until it is encrypted, or has failed."""

    def __init__(
        self, entrance: TlsEntrance, connections: set[Any], encrypted: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self._entrance = entrance
        self._connections = connections
        self._encrypted = encrypted
        self._address = ""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """
        Begin.

        The loop reads from a new connection at once, and no handshake would see what it has read. So it gives the
        connection up before that, and is given it again as one that is to be encrypted.
        """
        peer: object = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""  # pyright: ignore[reportUnknownArgumentType]
        given_up = transport.get_extra_info("socket")
        connection = socket.fromfd(given_up.fileno(), given_up.family, given_up.type)
        connection.setblocking(False)
        cast("asyncio.Transport", transport).abort()
        self._connections.add(self)
        self._task = asyncio.get_running_loop().create_task(self._shake_hands(connection))
        surplus = self._entrance.http.waiting.enter(self, network_of(self._address))
        if surplus is not None:
            surplus.crowded_out()

    async def _shake_hands(self, connection: socket.socket) -> None:
        entrance = self._entrance
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._encrypted,
                connection,
                ssl=entrance.context,
                ssl_handshake_timeout=entrance.timeout.total_seconds(),
            )
        except OSError as error:
            connection.close()
            if isinstance(error, ConnectionAbortedError):
                entrance.http.report("tls_too_slow", self._address)
        finally:
            entrance.http.waiting.leave(self)
            self._connections.discard(self)

    def crowded_out(self) -> None:
        """There are too many that owe a head."""
        self._entrance.http.report("crowded_out", self._address)
        self.shutdown()

    def shutdown(self) -> None:
        """Hang up. Called by uvicorn when it stops."""
        if self._task is not None:
            self._task.cancel()
