"""
pycrdt-websocket on uvicorn, almost as it comes: everybody is let in; documents are in memory.

With the name of a file they are stored there, too, by the store of pycrdt-store for SQLite.
"""

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUntypedBaseClass=false, reportUnknownParameterType=false
# It runs in an environment of its own, where other things are installed.

import sys
from contextlib import suppress
from typing import Any

import uvloop
from pycrdt.store import SQLiteYStore, YDocNotFound
from pycrdt.websocket import ASGIServer, WebsocketServer, YRoom
from serving import serve_here


class Store(SQLiteYStore):
    """The updates of one document; all documents share a file."""


class StoringServer(WebsocketServer):
    """Gives each document a store, and reads what is in it before anybody is let in."""

    async def get_room(self, name: str) -> YRoom:
        """The open document."""
        room = self.rooms.get(name)
        if room is None:
            room = self.rooms[name] = YRoom(ready=False, ystore=Store(name))
            await self.start_room(room)
            await room.ystore.started.wait()
            with suppress(YDocNotFound):
                await room.ystore.apply_updates(room.ydoc)
            room.ready = True
        await room.ydoc_observed.wait()
        return room


async def make_file() -> None:
    """Make the tables, for two documents that are opened at once would both do it."""
    async with Store("") as store:
        await store.db_initialized.wait()


def lasting(application: ASGIServer) -> Any:
    """The application, which is not told when somebody has left whom it writes to: it would end with all rooms."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        async def send_if_there(message: Any) -> None:
            with suppress(OSError):
                await send(message)

        await application(scope, receive, send_if_there)

    return serve


async def main() -> None:
    """Serve until told to stop."""
    made = WebsocketServer
    if len(sys.argv) > 1:
        Store.db_path = sys.argv[1]
        await make_file()
        made = StoringServer
    async with made() as documents:
        await serve_here(lasting(ASGIServer(documents)))


if __name__ == "__main__":
    uvloop.run(main())
