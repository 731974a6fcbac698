"""
Who is in a document on all nodes, and disconnecting them there: a question to every node that lives, and its answer.

Nothing is said while nobody asks. A node that does not answer in time is named, so that whoever asks knows that
something may be missing.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from itertools import chain, count
from typing import Final

import structlog
from msgspec import Struct
from msgspec.structs import replace

from roomkey.domain.session import SessionId
from roomkey.errors import Overloaded, RoomkeyError
from roomkey.ports import Broker, Publication
from roomkey.realtime.attendance import ConnectedSession, Whom, merged
from roomkey.realtime.connections import Connections
from roomkey.wire.node_format import NodeFormat

CHANNEL: Final = "\0w"
"""Where nodes ask; each is answered in a channel of its own, whose name goes on with its id."""

PATIENCE_SECONDS: Final = 2.0
"""How long the answers of other nodes are waited for."""

MAX_QUESTIONS: Final = 100
"""Questions of this node that wait for answers at the same time."""

MAX_ANSWERS: Final = 1_000
"""Answers that wait to be sent. Beyond it the oldest are left out, and their nodes count as silent."""

PAUSE_SECONDS: Final = 1.0

_log = structlog.get_logger("roomkey.realtime")


class WhoIsIn(Struct, frozen=True, tag="who_is_in"):
    """Which of these sessions are in the document? At most ``limit``, behind the id ``after``."""

    document: str
    whom: Whom
    after: str
    limit: int
    number: int = 0


class Disconnect(Struct, frozen=True, tag="disconnect"):
    """Put these sessions out of the document; without one, out of all, which is asked about one session only."""

    document: str | None
    whom: Whom
    reason: str | None
    number: int = 0


class Answer(Struct, frozen=True, tag="answer"):
    """What one node answers to question ``number``: who is there, or how many connections it has ended."""

    number: int
    sessions: Sequence[ConnectedSession] = ()
    disconnected: int = 0


Question = WhoIsIn | Disconnect


class ConnectedPage(Struct, frozen=True):
    """One page of who is in a document: behind ``next_cursor`` there are more. ``silent_nodes`` have not answered."""

    sessions: Sequence[ConnectedSession]
    next_cursor: SessionId | None
    silent_nodes: Sequence[str]


class Disconnected(Struct, frozen=True):
    """How many connections were ended, or put out of a document. What ``silent_nodes`` did is not known."""

    disconnected: int
    silent_nodes: Sequence[str]


class _Waiting:
    """A question of this node, and what has come of it."""

    def __init__(self, nodes: Collection[str]) -> None:
        self.silent = set(nodes)
        self.answers: list[Answer] = []
        self.done = asyncio.Event()

    def take(self, node: str, answer: Answer) -> None:
        """``node`` has answered."""
        if node in self.silent:
            self.silent.discard(node)
            self.answers.append(answer)
            if not self.silent:
                self.done.set()


class RollCall:
    """The questions of this node to all, this one included, and its answers to theirs; ``run`` must run."""

    def __init__(
        self, connections: Connections, *, broker: Broker | None, node: str, living: Callable[[], Collection[str]]
    ) -> None:
        """``living`` says which nodes live, see ``Membership``. Without a shared ``broker`` nobody is asked."""
        self._connections = connections
        self._broker = broker if broker is not None and broker.shared else None
        self._node = node
        self._living = living
        self._questions = NodeFormat[Question](Question)
        self._answers = NodeFormat[Answer](Answer)
        self._numbers = count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._outgoing: deque[tuple[str, Answer]] = deque(maxlen=MAX_ANSWERS)
        self._wake = asyncio.Event()

    # --- what is asked --------------------------------------------------------------------------------

    async def present(self, document: str, whom: Whom | None = None, *, after: str = "", limit: int) -> ConnectedPage:
        """
        Who is in the document by a socket, in the order of the ids of sessions, behind the id ``after``.

        Raises:
            Storage: If other nodes cannot be asked.
            Overloaded: If too many ask at the same time.
        """
        question = WhoIsIn(document, whom or Whom(), after, limit + 1)
        answers, silent = await self._ask(question)
        found = merged(chain.from_iterable(answer.sessions for answer in answers))
        page = found[:limit]
        return ConnectedPage(page, page[-1].id if len(found) > limit else None, silent)

    async def disconnect(
        self, document: str | None, whom: Whom | None = None, *, reason: str | None = None
    ) -> Disconnected:
        """
        Put sessions out of the document; without one, a session out of all. They may come back.

        On this node that is done before anything is awaited. Raises as ``present``.
        """
        answers, silent = await self._ask(Disconnect(document, whom or Whom(), reason))
        return Disconnected(sum(answer.disconnected for answer in answers), silent)

    async def _ask(self, question: Question) -> tuple[Sequence[Answer], Sequence[str]]:
        if len(self._waiting) >= MAX_QUESTIONS:
            raise Overloaded("too many ask at the same time who is in documents")
        number = next(self._numbers)
        own = self._answer(question, number)
        others = {node for node in self._living() if node != self._node}
        if self._broker is None or not others:
            return [own], []
        waiting = self._waiting[number] = _Waiting(others)
        try:
            message = self._questions.encode(replace(question, number=number))
            await self._broker.publish(CHANNEL, message, origin=self._node, keep=False)
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await waiting.done.wait()
        finally:
            del self._waiting[number]
        return [own, *waiting.answers], sorted(waiting.silent)

    # --- what is answered -----------------------------------------------------------------------------

    def _answer(self, question: Question, number: int) -> Answer:
        match question:
            case WhoIsIn(document, whom, after, limit):
                sessions = self._connections.attendance.sessions(document, whom, after=after, limit=limit)
                return Answer(number, sessions=sessions)
            case Disconnect(document, whom, reason):
                return Answer(number, disconnected=self._disconnect(document, whom, reason))

    def _disconnect(self, document: str | None, whom: Whom, reason: str | None) -> int:
        if document is not None:
            clients = self._connections.attendance.clients(document, whom)
            for client in clients:
                client.put_out(document, reason)
            return len(clients)
        if whom.session is None:
            return 0
        clients = [each for each in self._connections.registry.of_session(whom.session) if whom.includes(each)]
        for client in clients:
            client.disconnect(reason)
        return len(clients)

    def on_publication(self, publication: Publication) -> None:
        """Another node asks: answer, soon. What is asked for is done at once."""
        question = None if publication.origin == self._node else self._questions.decode(publication.message)
        if question is not None:
            self._outgoing.append((publication.origin, self._answer(question, question.number)))
            self._wake.set()

    def on_gap(self) -> None:
        """Whoever asked counts this node as silent."""

    async def run(self) -> None:
        """Hear the questions of others and answer them, until cancelled."""
        if self._broker is None:
            return
        await self._listen(self._broker)
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outgoing:
                await self._send(self._broker, *self._outgoing.popleft())

    async def _listen(self, broker: Broker) -> None:
        while True:
            try:
                await broker.subscribe(CHANNEL + self._node, _Answers(self))
                await broker.subscribe(CHANNEL, self)
            except RoomkeyError as error:
                _log.warning("questions_not_heard", error=str(error))
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return

    async def _send(self, broker: Broker, asker: str, answer: Answer) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                message = self._answers.encode(answer)
                await broker.publish(CHANNEL + asker, message, origin=self._node, keep=False)
        except (RoomkeyError, TimeoutError) as error:
            _log.warning("question_not_answered", asker=asker, error=str(error) or "no answer in time")

    def answered(self, publication: Publication) -> None:
        """Another node has answered a question of this one."""
        answer = self._answers.decode(publication.message)
        if answer is not None and (waiting := self._waiting.get(answer.number)) is not None:
            waiting.take(publication.origin, answer)


class _Answers:
    """The ``Receiver`` of the channel in which this node is answered."""

    def __init__(self, roll_call: RollCall) -> None:
        self.on_publication = roll_call.answered

    def on_gap(self) -> None:
        """Who was not heard counts as silent."""
