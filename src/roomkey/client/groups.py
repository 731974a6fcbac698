"""Groups of a server, as its REST interface has them."""

from collections.abc import AsyncIterator

from roomkey.api.groups import GroupBody, GroupPageBody
from roomkey.client.calls import Calls, segment
from roomkey.client.sessions import Grants


class Groups:
    """Commands on groups: grants that many sessions have in common, who name the group in theirs."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def put(self, name: str, grants: Grants) -> GroupBody:
        """Give the group its grants; it is made if there is none. Open sockets obey, on other nodes within a second."""
        return await self._calls.ask(GroupBody, "PUT", f"/groups/{segment(name)}", body={"grants": [*grants]})

    async def get(self, name: str) -> GroupBody:
        """The group. Raises ``GroupNotFound``."""
        return await self._calls.ask(GroupBody, "GET", f"/groups/{segment(name)}")

    async def list(self) -> AsyncIterator[GroupBody]:
        """All groups by name, page after page."""
        cursor: str | None = None
        while True:
            page = await self._calls.ask(GroupPageBody, "GET", "/groups", query={"cursor": cursor})
            for group in page.groups:
                yield group
            cursor = page.next_cursor
            if cursor is None:
                return

    async def delete(self, name: str) -> None:
        """Forget the group: sessions that name it have nothing by it any more. Raises ``GroupNotFound``."""
        await self._calls.send("DELETE", f"/groups/{segment(name)}")
