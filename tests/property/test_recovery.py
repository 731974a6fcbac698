"""Whatever happens in between: a subscriber gets each later publication once and in order, or must reload."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.effort import examples
from tests.support.sockets import Caller, Node
from tests.support.steps import History, Pick, histories, live

USERS = ("alice", "bob", "carol")
DOCUMENTS = ("d", "e")


class Reader:
    """
    A client as our pages tell it to be: it applies what it hears, and knows how far it is.

    ``texts`` is what it applied since it last loaded the document, which had ``loaded`` publications then.
    """

    def __init__(self) -> None:
        self.position: dict[str, Any] | None = None
        self.texts: list[str] = []
        self.loaded = 0
        self.will_load = 0
        """How many publications there were when the latest subscription began."""

    def hear(self, message: dict[str, Any]) -> None:
        payload = message["payload"]
        match message["message_type"]:
            case "subscribed" if payload["recovered"]:
                for publication in payload["publications"]:
                    self._apply(publication["payload"]["text"], publication["payload"]["position"])
                assert self.position == payload["position"]
            case "subscribed":
                assert payload["publications"] == []
                self.position, self.texts, self.loaded = payload["position"], [], self.will_load
            case "realtime_edit":
                self._apply(payload["text"], payload["position"])
            case "ack":
                self._apply(message["id"], payload["position"])
            case "position":
                assert payload["position"] == self.position
            case _:
                pass

    def _apply(self, text: str, position: dict[str, Any]) -> None:
        assert self.position is not None
        assert position == {"epoch": self.position["epoch"], "offset": self.position["offset"] + 1}
        self.position = position
        self.texts.append(text)


class Documents:
    """Readers come, write, leave, fall silent and return, on a node that forgets as early as it can."""

    def __init__(self, publications: int, documents: int) -> None:
        self.node = Node(history_publications=publications, max_documents=documents, max_history_bytes=3000)
        self.runner = asyncio.Runner()
        self.readers: dict[tuple[str, str], Reader] = {}
        self.live: dict[str, Caller] = {}
        self.published: dict[str, list[str]] = {document: [] for document in DOCUMENTS}
        self.written = 0

    def subscribe(self, pick: Pick) -> None:
        user, document = pick(USERS), pick(DOCUMENTS)
        if user not in self.live:
            self.live[user] = self.runner.run(self.node.client(user))
        reader = self.readers.setdefault((user, document), Reader())
        caller = self.live[user]
        # What is on its way arrives before the answer to this does.
        caller.whisper("unsubscribe", {"document": document})
        self._catch_up(user)
        since = {"since": reader.position} if reader.position else {}
        reader.will_load = len(self.published[document])
        caller.whisper("subscribe", {"document": document, **since})

    def write(self, pick: Pick) -> None:
        user, document, size = pick(USERS), pick(DOCUMENTS), pick((1, 400))
        if user in self.live and document in self.live[user].peer.documents():
            self.written += 1
            text = f"{self.written:0{size // 4 + 1}d}"
            self.published[document].append(text)
            self.live[user].whisper("realtime_edit", {"document": document, "text": text}, id=text)

    def unsubscribe(self, pick: Pick) -> None:
        user, document = pick(USERS), pick(DOCUMENTS)
        if user in self.live:
            self.live[user].whisper("unsubscribe", {"document": document})

    def turn(self, _: Pick) -> None:
        self.node.turns.settle()
        for user in self.live:
            self._hear(user)

    def hang_up(self, pick: Pick) -> None:
        """What had not left yet is lost; what had left was read."""
        user = pick(USERS)
        if user in self.live:
            self._hear(user)
            self.live.pop(user).hang_up()

    def stall(self, pick: Pick) -> None:
        user = pick(USERS)
        if user in self.live:
            self.live[user].socket.unread = 1_000_000

    def catch_up(self, pick: Pick) -> None:
        user = pick(USERS)
        if user in self.live:
            self._catch_up(user)

    def wait(self, pick: Pick) -> None:
        self.node.clock.advance(seconds=pick((1, 41, 301)))
        self.node.handler.tick()

    def everybody_has_everything(self) -> None:
        """Once all have read what is there for them."""
        for user, caller in self.live.items():
            self._catch_up(user)
            for document in DOCUMENTS:
                if caller.closed_with is None and document in caller.peer.documents():
                    reader = self.readers[user, document]
                    assert reader.texts == self.published[document][reader.loaded :]

    def _catch_up(self, user: str) -> None:
        self.node.turns.settle()
        self.live[user].socket.unread = 0
        self.live[user].peer.writable()
        self._hear(user)

    def _hear(self, user: str) -> None:
        for message in self.live[user].news():
            reader = self.readers.get((user, message["payload"].get("document")))
            if reader is not None:
                reader.hear(message)

    def check(self) -> None:
        for (_, document), reader in self.readers.items():
            expected = self.published[document][reader.loaded :]
            assert reader.texts == expected[: len(reader.texts)]
        assert self.node.handler.statistics().histories_bytes <= 3000


STEPS = (
    "subscribe",
    "subscribe",
    "write",
    "write",
    "write",
    "unsubscribe",
    "turn",
    "hang_up",
    "stall",
    "catch_up",
    "wait",
)


@settings(max_examples=examples(80))
@given(publications=st.integers(1, 6), documents=st.integers(1, 2), history=histories(*STEPS, max_size=100))
def test_every_publication_once_and_in_order_or_a_reload(publications: int, documents: int, history: History) -> None:
    world = Documents(publications, documents)

    with world.runner:
        live(world, history)
        world.everybody_has_everything()


@given(
    kept=st.integers(1, 10),
    before=st.integers(0, 15),
    missed=st.integers(0, 15),
)
def test_recovered_means_that_everything_is_there(kept: int, before: int, missed: int) -> None:
    async def scenario() -> None:
        node = Node(history_publications=kept)
        writer = await node.member()
        epoch = (await node.rooms.broker.since("d", None)).position.epoch
        for number in range(before + missed):
            writer.edit(str(number))

        reader = await node.client("bob")
        reader.say("subscribe", {"document": "d", "since": {"epoch": epoch, "offset": before}})

        subscribed = reader.payload_of("subscribed")
        texts = [publication["payload"]["text"] for publication in subscribed["publications"]]
        assert subscribed["recovered"] is (missed <= kept)
        assert texts == ([str(number) for number in range(before, before + missed)] if missed <= kept else [])

    asyncio.run(scenario())
