"""Histories of sessions and documents for tests of copying: drawn by Hypothesis, or one that has everything."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from roomkey.domain.lifecycle import NEXT_STATE, apply
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import Client, Deleted, Session, SessionFilter, SessionState, TokenRotated
from roomkey.domain.token_uses import Place, TokenUse
from roomkey.errors import Conflict
from roomkey.ports import DocumentStore, Page, Secret, SessionStorage
from roomkey.testing.documents.suite import ALICE, KEY, update, version
from roomkey.testing.storage.suite import NOON, details, everything, fact, issue, rich

USERS = ("alice", "bob", "\N{SNOWMAN}", "dora")
NAMES = ("a", "a/b", "x" * 600, "x" * 601)
LINEAGES = ("first", "second", "third")

Step = tuple[str, int, int]

session_steps = st.lists(
    st.tuples(
        st.sampled_from(["create", "change", "change", "rotate", "touch", "use", "delete", "revoke", "purge", "many"]),
        st.integers(0, 50),
        st.integers(0, 50),
    ),
    max_size=30,
)
document_steps = st.lists(
    st.tuples(
        st.sampled_from(["create", "append", "append", "compact", "keep", "forget", "delete"]),
        st.integers(0, len(NAMES) - 1),
        st.integers(0, 50),
    ),
    max_size=30,
)


async def live_sessions(storage: SessionStorage, steps: Sequence[Step], begin: int = 0) -> None:
    """Let the steps happen, an hour from one to the next."""
    for number, (kind, which, choice) in enumerate(steps, begin):
        at = NOON + number * timedelta(hours=1)
        sessions = sorted(await everything(storage), key=lambda session: (session.created_at, session.id))
        session = sessions[which % len(sessions)] if sessions else None
        user = USERS[which % len(USERS)]
        match kind:
            case "create":
                policy = SessionPolicy(cap=2)
                new = rich(user, at) if choice % 2 else issue(user, at, policy=policy)
                await storage.create([new], policy, at)
            case "many":
                policy = SessionPolicy(cap=5)
                await storage.create([issue(user, at, policy=policy) for _ in range(choice % 4 + 1)], policy, at)
            case "revoke":
                kept = session.id if session is not None and choice % 2 else None
                await storage.revoke_user(user, at, actor="key:test", reason=None, except_session=kept)
            case "purge":
                await storage.purge_events(at - timedelta(hours=choice))
            case _ if session is not None:
                await _change(storage, session, kind, choice, at)
            case _:
                pass


async def _change(storage: SessionStorage, session: Session, kind: str, choice: int, at: Any) -> None:
    found = await storage.get_with_secret(session.id)
    assert found is not None
    secret = found[1]
    if kind == "touch":
        await storage.touch(session.id, at)
    elif kind == "use":
        use = TokenUse(Place.of(Client(device=str(choice))), True, at, at)
        await storage.note_use(session.id, use, generation=secret.generation, window=timedelta(days=1))
    elif kind == "delete":
        await storage.delete(fact(session, Deleted, at))
    elif kind == "rotate" and session.state is SessionState.ACTIVE:
        event = fact(session, TokenRotated, at)
        current = bytes([choice]) * 32
        after = Secret(
            current=current, generation=secret.generation + 1, previous=secret.current, rotated_at=at, uses=secret.uses
        )
        await storage.update(apply(session, event), event, secret=after)
    elif kinds := sorted(NEXT_STATE[session.state], key=lambda kind: kind.tag()):
        chosen: Any = kinds[choice % len(kinds)]
        event = fact(session, chosen, at, **details(chosen, at))
        await storage.update(apply(session, event), event)


async def live_documents(store: DocumentStore, steps: Sequence[Step], begin: int = 0) -> None:
    """Let the steps happen, a second from one to the next."""
    for number, (kind, which, choice) in enumerate(steps, begin):
        name = NAMES[which]
        record = await store.find(name)
        at = NOON + timedelta(seconds=number)
        if record is None:
            if kind == "create":
                with suppress(Conflict):  # it was deleted
                    await store.create(name, LINEAGES[choice % len(LINEAGES)], at)
            continue
        lineage = record.lineage
        match kind:
            case "append":
                changes = [update(b"%d" % each, number, (ALICE, KEY)[each % 2]) for each in range(choice)]
                await store.append(name, lineage, changes)
            case "compact" if record.sequence:
                upto = choice % record.sequence + 1
                snapshot = b"s" * choice * 10_000
                await store.compact(name, lineage, snapshot=snapshot, upto=upto, authorship=b"who")
            case "keep":
                await store.keep_version(name, lineage, version(b"v" * choice, number, str(choice)))
            case "forget":
                numbers = [each.number for each in (await store.versions(name, Page())).versions]
                await store.forget_versions(name, lineage, numbers[: choice % 3])
            case "delete":
                await store.delete(name, lineage, at)
            case _:
                pass


async def furnish(sessions: SessionStorage, documents: DocumentStore) -> None:
    """Make everything that there can be."""
    steps = [("many", number, number) for number in range(12)]
    steps += [("change", number, 0) for number in range(20)]
    steps += [("rotate", number, number) for number in range(20)]
    steps += [("use", 3, 1), ("touch", 4, 1), ("delete", 5, 0), ("revoke", 0, 1), ("create", 0, 1), ("revoke", 1, 0)]
    await live_sessions(sessions, steps)
    await live_documents(
        documents,
        [("create", which, which) for which in range(len(NAMES))]
        + [("append", which, 20 + which) for which in range(len(NAMES))]
        + [("compact", 0, 7), ("compact", 1, 21), ("append", 0, 5), ("keep", 0, 3), ("keep", 0, 4), ("forget", 0, 1)]
        + [("keep", 1, 9), ("delete", 2, 0), ("create", 2, 1), ("append", 2, 2)],
    )


async def users_of(sessions: SessionStorage) -> dict[str, int]:
    """How many sessions each user has."""
    return {user: len(await everything(sessions, SessionFilter(user_id=user))) for user in USERS}
