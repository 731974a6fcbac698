"""An ASGI application on uvicorn, as every peer in Python is served: one process, uvloop and httptools."""

import socket
from typing import Any

import uvicorn
import uvloop


def serve(application: Any) -> None:
    """Serve until told to stop."""
    uvloop.run(serve_here(application))


async def serve_here(application: Any) -> None:
    """Serve until told to stop, on the loop that runs; the port is printed first."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # those who are accepted inherit it
    config = uvicorn.Config(application, http="httptools", log_level="error", access_log=False)
    print(f"listening on {listener.getsockname()[1]}", flush=True)
    await uvicorn.Server(config).serve(sockets=[listener])
