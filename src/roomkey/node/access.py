"""What decides what sessions may do in documents, wired for one node."""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

from roomkey.access.decisions import ApplicationDecisions
from roomkey.access.groups import Groups
from roomkey.access.hook import AccessHook
from roomkey.access.rechecks import EVERYTHING, Rechecks
from roomkey.access.service import AccessService
from roomkey.access.settings import AccessSettings
from roomkey.access.watch import AccessWatch, Sockets, Subject
from roomkey.domain.access import groups_of
from roomkey.errors import ConfigurationError
from roomkey.node.background import Work
from roomkey.ports import AccessDecisions, Authorize, ObjectStore
from roomkey.sessions.manager import SessionManager


class NodeAccess:
    """Grants alone, or an application beside them: ``authorize`` of this process, or its hook."""

    def __init__(
        self,
        settings: AccessSettings,
        authorize: Authorize | None,
        *,
        sessions: SessionManager,
        sockets: Callable[[], Sockets],
        objects: ObjectStore,
        shared: bool,
        node: str,
    ) -> None:
        """
        ``shared``: other processes may have sockets of the same sessions.

        Raises:
            ConfigurationError: If the application would be asked in two ways.
        """
        if authorize is not None and settings.url is not None:
            raise ConfigurationError("access.url: the application is asked by authorize, or by its hook, not by both")
        self._hook = None if settings.url is None else AccessHook(settings, sessions.clock)
        asked = authorize or self._hook
        self._sockets, self._is_shared = sockets, shared
        self._rechecks = Rechecks(objects, self.recheck, node=node)
        self._groups = Groups(objects, self._rechecks, sessions.clock, self._obey)
        self._application = self._watch = None
        if asked is not None:
            self._application = ApplicationDecisions(asked, settings, sessions.clock, self._groups)
            self._watch = AccessWatch(self._application, sockets, sessions.clock)
        others = self._rechecks if shared else None
        self.service = AccessService(sessions, self._groups, self._application, self._watch, others)

    async def recheck(self, subjects: Sequence[Subject]) -> None:
        """Obey what another node has rechecked, or changed."""
        groups = {subject.group for subject in subjects if subject.group is not None}
        others = [subject for subject in subjects if subject.group is None]
        if groups or EVERYTHING in others:
            await self._groups.refresh(None if EVERYTHING in others else sorted(groups))
        if others and self._watch is not None:
            await self._watch.recheck(others)

    def _obey(self, groups: Collection[str]) -> None:
        """The sockets obey whose sessions have rights by these groups."""
        sockets = self._sockets()
        concerned = {session.id for session, _ in sockets.in_use() if not groups_of(session.grants).isdisjoint(groups)}
        for id in concerned:
            sockets.review(id)

    @property
    def decisions(self) -> AccessDecisions:
        """What sessions may do, at every door."""
        return self.service.decisions

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        """The hook can be asked until this is left."""
        if self._hook is None:
            yield
        else:
            async with self._hook.at_work():
                yield

    @property
    def works(self) -> Mapping[str, Work]:
        """What has to go on in the background, by name."""
        works: dict[str, Work] = {"groups": self._groups.run}
        if self._watch is not None:
            works["access"] = self._watch.run
        if self._is_shared:
            works["rechecks of others"] = self._rechecks.run
        return works

    def degradations(self) -> Mapping[str, str]:
        """That the application gives no answers."""
        return {} if self._application is None else self._application.degradations()

    def observations(self) -> Mapping[str, str]:
        """How often the application was asked."""
        return {} if self._application is None else self._application.observations()
