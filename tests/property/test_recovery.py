"""Whatever happens in between: a subscriber gets each later publication once and in order, or must reload."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.sockets import Caller, Node

USERS = ("alice", "bob", "carol")


class Reader:
    """
    A client as our pages tell it to be: it applies what it hears, and knows how far it is.

    ``seen`` are the offsets that it applied since it last loaded the document; ``position`` is where it stands.
    """

    def __init__(self) -> None:
        self.position: dict[str, Any] | None = None
        self.seen: list[int] = []
        self.start = 0
        self.reloads = 0

    def hear(self, message: dict[str, Any]) -> None:
        payload = message["payload"]
        match message["message_type"]:
            case "subscribed" if payload["recovered"]:
                for publication in payload["publications"]:
                    self._apply(publication["payload"]["position"])
                assert self.position == payload["position"]
            case "subscribed":
                assert payload["publications"] == []
                self.reloads += 1
                self.position, self.seen = payload["position"], []
                self.start = payload["position"]["offset"]
            case "realtime_edit" | "ack":
                self._apply(payload["position"])
            case "position":
                assert payload["position"] == self.position
            case _:
                pass

    def _apply(self, position: dict[str, Any]) -> None:
        assert self.position is not None
        assert position["epoch"] == self.position["epoch"]
        self.position = position
        self.seen.append(position["offset"])

    def check(self) -> None:
        assert self.seen == list(range(self.start + 1, self.start + 1 + len(self.seen)))


class Documents(RuleBasedStateMachine):
    """Readers come, write, leave, fall silent and return, on a node that forgets as early as it can."""

    @initialize(publications=st.integers(1, 6), documents=st.integers(1, 3))
    def begin(self, publications: int, documents: int) -> None:
        self.node = Node(history_publications=publications, max_documents=documents, max_history_bytes=3000)
        self.runner = asyncio.Runner()
        self.readers: dict[tuple[str, str], Reader] = {}
        self.live: dict[str, Caller] = {}
        self.last: dict[str, tuple[int, int]] = {}

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.close()

    def _listen(self) -> None:
        self.node.turns.settle()
        for user, caller in self.live.items():
            for message in caller.news():
                document = message["payload"].get("document")
                if (user, document) in self.readers:
                    self.readers[user, document].hear(message)

    @rule(user=st.sampled_from(USERS), document=st.sampled_from("de"))
    def subscribe(self, user: str, document: str) -> None:
        if user not in self.live:
            self.live[user] = self.runner.run(self.node.client(user))
        reader = self.readers.setdefault((user, document), Reader())
        caller = self.live[user]
        # What is on its way arrives before the answer to this does.
        caller.whisper("unsubscribe", {"document": document})
        self._listen()
        caller.whisper(
            "subscribe", {"document": document, "since": reader.position} if reader.position else {"document": document}
        )

    @rule(user=st.sampled_from(USERS), document=st.sampled_from("de"), size=st.sampled_from([1, 500]))
    def write(self, user: str, document: str, size: int) -> None:
        if user in self.live:
            self.live[user].whisper("realtime_edit", {"document": document, "text": "x" * size})

    @rule(user=st.sampled_from(USERS), document=st.sampled_from("de"))
    def unsubscribe(self, user: str, document: str) -> None:
        if user in self.live:
            self.live[user].whisper("unsubscribe", {"document": document})

    @rule()
    def turn(self) -> None:
        self._listen()

    @rule(user=st.sampled_from(USERS))
    def hang_up(self, user: str) -> None:
        """What had not left yet is lost; what had left was read."""
        if user in self.live:
            caller = self.live.pop(user)
            for message in caller.news():
                document = message["payload"].get("document")
                if (user, document) in self.readers:
                    self.readers[user, document].hear(message)
            caller.hang_up()

    @rule(user=st.sampled_from(USERS))
    def stall(self, user: str) -> None:
        if user in self.live:
            self.live[user].socket.unread = 1_000_000

    @rule(user=st.sampled_from(USERS))
    def catch_up(self, user: str) -> None:
        if user in self.live:
            self.live[user].socket.unread = 0
            self.live[user].peer.writable()

    @rule(seconds=st.sampled_from([1, 41, 301]))
    def wait(self, seconds: int) -> None:
        self._listen()
        self.node.clock.advance(seconds=seconds)
        self.node.handler.tick()

    @invariant()
    def nobody_has_a_gap_or_a_repetition(self) -> None:
        for reader in getattr(self, "readers", {}).values():
            reader.check()

    @invariant()
    def memory_is_bounded(self) -> None:
        if hasattr(self, "node"):
            assert self.node.handler.statistics().histories_bytes <= 3000


Documents.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestDocuments = Documents.TestCase


@given(
    kept=st.integers(1, 10),
    before=st.integers(0, 15),
    missed=st.integers(0, 15),
)
def test_recovered_means_that_everything_is_there(kept: int, before: int, missed: int) -> None:
    async def scenario() -> None:
        node = Node(history_publications=kept)
        writer = await node.member()
        epoch = node.handler._office.rooms.histories["d"].epoch
        for number in range(before + missed):
            writer.edit(str(number))

        reader = await node.client("bob")
        reader.say("subscribe", {"document": "d", "since": {"epoch": epoch, "offset": before}})

        subscribed = reader.payload_of("subscribed")
        texts = [publication["payload"]["text"] for publication in subscribed["publications"]]
        assert subscribed["recovered"] is (missed <= kept)
        assert texts == ([str(number) for number in range(before, before + missed)] if missed <= kept else [])

    asyncio.run(scenario())
