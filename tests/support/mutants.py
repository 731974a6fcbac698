"""Defects that the simulation must find: each is what somebody might write who does not know why it is as it is."""

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from roomkey.documents.catching_up import CatchingUp
from roomkey.documents.writer import DocumentWriter, GroupCommit
from roomkey.domain.session import Session
from roomkey.ports import Append
from roomkey.sessions import near_cache
from roomkey.sessions.event_follower import EventFollower
from roomkey.testing.simulation import Settings

KEEPS_EPOCH = Settings(keeps_epoch=True)
IGNORES_FENCES = Settings(ignores_fences=True)


@contextmanager
def publishing_before_appending() -> Generator[None]:
    """Other nodes are told of updates before these are stored."""

    async def commit(self: Any, group: Sequence[tuple[DocumentWriter, Append]]) -> None:
        for writer, batch in group:
            self.appended(batch, writer.sequence + len(batch.updates))
        outcomes = await self._store_each([batch for _, batch in group])
        for (writer, _), outcome in zip(group, outcomes, strict=True):
            self._ask_again(writer, writer.settled(outcome))

    with patch.object(GroupCommit, "_commit", commit):
        yield


@contextmanager
def hints_without_log() -> Generator[None]:
    """Nodes rely on hints; the log of events is said to be read, and is not."""

    async def follow(self: Any) -> int:
        if self._caught_up is not None:
            self._caught_up(asyncio.get_running_loop().time())
        return 0

    with patch.object(EventFollower, "follow", follow):
        yield


@contextmanager
def cache_without_guard() -> Generator[None]:
    """What was read before a change enters the near-cache after it."""

    def may_enter(self: Any, session: Session) -> bool:
        del self, session
        return True

    with patch.object(near_cache._Reading, "may_enter", may_enter):  # pyright: ignore[reportPrivateUsage]
        yield


@contextmanager
def catching_up_without_lineage() -> Generator[None]:
    """A document that was deleted and made anew is taken for the one that is open."""
    missing = CatchingUp.missing

    async def missing_or_another(self: Any, document: Any) -> None:
        (head,) = await self._store.heads([document.name])
        if head is None or document.is_gone or head.lineage == document.lineage:
            await missing(self, document)
            return
        document._lineage = ""
        await self._adopt(document)

    with patch.object(CatchingUp, "missing", missing_or_another):
        yield
