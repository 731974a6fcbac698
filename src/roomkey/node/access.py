"""What decides what sessions may do in documents, wired for one node."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager

from roomkey.access.decisions import ApplicationDecisions
from roomkey.access.hook import AccessHook
from roomkey.access.rechecks import Rechecks
from roomkey.access.service import AccessService
from roomkey.access.settings import AccessSettings
from roomkey.access.watch import AccessWatch, Sockets
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
        self._application = None if asked is None else ApplicationDecisions(asked, settings, sessions.clock)
        self._watch = self._rechecks = None
        if self._application is not None:
            self._watch = AccessWatch(self._application, sockets, sessions.clock)
            if shared:
                self._rechecks = Rechecks(objects, self._watch.recheck, node=node)
        self.service = AccessService(sessions, self._application, self._watch, self._rechecks)

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
        works = dict[str, Work]()
        if self._watch is not None:
            works["access"] = self._watch.run
        if self._rechecks is not None:
            works["rechecks of others"] = self._rechecks.run
        return works

    def degradations(self) -> Mapping[str, str]:
        """That the application gives no answers."""
        return {} if self._application is None else self._application.degradations()

    def observations(self) -> Mapping[str, str]:
        """How often the application was asked."""
        return {} if self._application is None else self._application.observations()
