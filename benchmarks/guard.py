"""
The price of the whole guard, per message and per request: budget, size, schema, access, inspection, in process.

Of signals a message costs one counter at most; what is decided is decided per tick, and per request a lookup is all
that there is for a client that was seen before.
"""

import asyncio
import gc
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import msgspec

from benchmarks.harness import Benchmark, Finding, Goal, Plan, Row, at_once, figures, least, main, value
from roomkey.backends.memory import MemorySessionStorage
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.domain.access import EVERYTHING_WRITABLE
from roomkey.domain.session import Client, Session
from roomkey.realtime.clients.json_rules import JsonEffect, JsonRules, Publish
from roomkey.realtime.protocol.json_messages import Incoming
from roomkey.realtime.protocol.message_types import compile_types
from roomkey.realtime.session.guard import SessionGuard
from roomkey.realtime.session.limits import LimitsOfSessions
from roomkey.realtime.settings import RealtimeSettings
from roomkey.security.events import SecurityEvents
from roomkey.security.injection import InspectionSettings, Inspector, load_detector
from roomkey.security.ratelimit import Rate
from roomkey.sessions.manager import SessionManager
from roomkey.threats.settings import ThreatSettings
from roomkey.threats.traffic import Traffic, TrafficBook
from roomkey.threats.watch import ThreatWatch

CALLS: Final = 200
TURNS: Final = 100
COST: Final = "CPU each"

ALONE: Final = "without a guard"
GUARDED: Final = "with it"
GUARD: Final = "the guard"

BROWSER: Final = Client(
    ip="203.0.113.7", user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
)
PLENTY: Final = Rate(1e9, 1e9)
"""So a budget is full each time, as that of whoever types at a human pace."""

WORDS: Final = (
    "people write words like these, and more of them than any machine would think of by itself, as it seems to them"
)
UPDATE: Final = b"\x00\x02\x25" + bytes(37)

SCHEMAS: Final = {
    "note": {
        "type": "object",
        "properties": {"text": {"type": "string", "maxLength": 1_000}},
        "required": ["text"],
        "additionalProperties": False,
    }
}

Work = Callable[[], object]
Case = tuple[str, Work | None, Work]
"""Its name, the same work without a guard if there is any, and the work."""

JSON: Final = "a JSON message of 200 B"
SCHEMA: Final = "one of the application, with a schema"
MARKED: Final = "one with an apostrophe, for libinjection"
YJS: Final = "a Yjs update of 40 B"
AUTHENTICATE: Final = "to authenticate"
LOOK: Final = "a look at a session's traffic, once in 5 s"


class Guarded:
    """The guard over one connection of ``session``, which is in a document."""

    def __init__(self, session: Session) -> None:
        settings = RealtimeSettings()
        limits = LimitsOfSessions(settings)
        limits.messages = limits.traffic = limits.edits = limits.edit_traffic = PLENTY
        self.now = datetime.now(UTC)
        self.limits = limits.open(session.id)
        self.guard = SessionGuard(session, self.limits, settings=settings, now=self.now)
        inspector = Inspector(InspectionSettings(), load_detector())
        self.rules = JsonRules(
            self.guard,
            settings=settings,
            types=compile_types(SCHEMAS),
            inspector=inspector if inspector.reads_text else None,
        )
        self.rules.receive(_message("subscribe"), self.now)

    def json(self, message: bytes) -> Work:
        """To decide about a message."""
        decided = self.rules.receive(message, self.now)
        if [type(effect) for effect in decided] != [Publish]:
            raise AssertionError("the message was refused")
        return partial(self.rules.receive, message, self.now)

    def yjs(self, message: bytes) -> None:
        """What is asked about a binary message before it is decoded, as ``DocumentClient.binary`` does."""
        guard, now, limits = self.guard, self.now, self.limits
        if guard.is_over:
            raise AssertionError("the session is over")
        guard.heard(now)
        seconds = now.timestamp()
        if limits.edits.take(1.0, seconds) or limits.edit_traffic.take(len(message), seconds):
            raise AssertionError("there is no room")
        if guard.admit(message, now) is not None:
            raise AssertionError("the message has to wait")


_decode: Final = msgspec.json.Decoder(Incoming).decode


def _relay(message: bytes) -> Sequence[JsonEffect]:
    """What whoever trusts everybody would do: decode a message, and pass it on."""
    incoming = _decode(message)
    return [Publish(str(incoming.id), incoming.payload["document"], incoming.message_type, incoming.payload, keep=True)]


def _message(message_type: str, text: str | None = None) -> bytes:
    payload = {"document": "plan"} if text is None else {"document": "plan", "text": text}
    return json.dumps({"id": "2", "message_type": message_type, "payload": payload}).encode()


async def _sessions() -> tuple[SessionManager, SessionManager, str, ThreatWatch]:
    """Two managers on one storage, of which the second is watched, and the token of a session that both have seen."""
    storage = MemorySessionStorage()
    plain, watched = SessionManager(storage), SessionManager(storage)
    watch = ThreatWatch(
        MemoryObjectStore(),
        watched,
        settings=ThreatSettings(),
        clock=watched.clock,
        events=SecurityEvents(watched.clock),
        key=b"k" * 32,
    )
    watched.recognition.watch = watch
    issued = await watched.create_session("alice", client=BROWSER, grants=EVERYTHING_WRITABLE, activate=True)
    await watched.authenticate(issued.token, client=BROWSER)
    return plain, watched, issued.token, watch


def _cases() -> list[Case]:
    plain, watched, token, watch = asyncio.run(_sessions())
    session = asyncio.run(watched.authenticate(token, client=BROWSER))
    guarded, book, traffic = Guarded(session), TrafficBook(), Traffic(session, 1_000, 0)
    if not watch.knows(session, BROWSER, guarded.now):
        raise AssertionError("the client was seen before")
    messages = {
        JSON: _message("realtime_edit", WORDS),
        SCHEMA: _message("note", WORDS),
        MARKED: _message("realtime_edit", f"don't: {WORDS}"),
    }
    return [
        *((case, partial(_relay, message), guarded.json(message)) for case, message in messages.items()),
        (YJS, None, partial(guarded.yjs, UPDATE)),
        (
            AUTHENTICATE,
            at_once(lambda: plain.authenticate(token, client=BROWSER)),
            at_once(lambda: watched.authenticate(token, client=BROWSER)),
        ),
        (LOOK, None, lambda: book.look(traffic, guarded.now)),
    ]


def run(plan: Plan) -> Finding:
    """Everything in turns, in one process."""
    cases = _cases()
    works: dict[str, Work] = {GUARDED + case: work for case, _, work in cases}
    works |= {ALONE + case: alone for case, alone, _ in cases if alone is not None}
    gc.collect()
    gc.freeze()  # as the server does
    rounds = [least(works, calls=CALLS, turns=plan.size(TURNS, 3)) for _ in range(plan.rounds)]
    rows: list[Row] = []
    for case, alone, _ in cases:
        with_guard = [found[GUARDED + case] for found in rounds]
        without = [0.0 if alone is None else found[ALONE + case] for found in rounds]
        sides = {GUARD: [one - other for one, other in zip(with_guard, without, strict=True)]}
        if alone is not None:
            sides = {ALONE: without, GUARDED: with_guard, **sides}
        rows += [Row(case, side, figures([{COST: (each, "µs")} for each in costs])) for side, costs in sides.items()]
    goals = [
        Goal(case, value(rows, case, GUARD, COST), wanted, "µs", at_least=False)
        for case, wanted in ((JSON, 2.5), (YJS, 1.0))
    ]
    return Finding(rows, goals, NOTES)


NOTES: Final = [
    "Without a guard a JSON message is decoded and passed on; to authenticate without it means without the watch.",
    "The guard looks at size, budgets, session, depth, grants, and at texts if libinjection is there.",
    "Each round is the shortest of many short turns, so that what else runs on the machine counts as little as can be.",
]

BENCHMARK: Final = Benchmark(
    name="guard",
    title="The guard over messages",
    about="What it costs to look at each message and at each token.",
    run=run,
)

if __name__ == "__main__":
    main(BENCHMARK)
