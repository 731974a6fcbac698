"""pycrdt-websocket on uvicorn as it comes: documents in memory, everybody is let in, nothing is stored."""

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# It runs in an environment of its own, where other things are installed.

import asyncio
import socket

import uvicorn
from pycrdt.websocket import ASGIServer, WebsocketServer


async def main() -> None:
    """Serve until told to stop; the port is printed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # those who are accepted inherit it
    async with WebsocketServer() as documents:
        server = uvicorn.Server(uvicorn.Config(ASGIServer(documents), log_level="error"))
        print(f"listening on {listener.getsockname()[1]}", flush=True)
        await server.serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(main())
