"""What the published contract says about who may do what, tried out by everyone on everything."""

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from roomkey.audit.log import AuditLog
from roomkey.audit.opening import open_log
from roomkey.audit.settings import AuditSettings
from roomkey.audit.trail import AuditTrail
from roomkey.backends.memory.leases import MemoryLeases
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.domain.access import Access, Grant, Role
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import IssuedSession
from roomkey.encryption.subjects import SubjectKeys, blind_index
from roomkey.errors import KeyExists
from roomkey.ports import Clock, SessionStorage
from roomkey.security.narrowing import Narrowing, Scope
from tests.support.rest import Answer, Rest, documents_at_work

KEY: Final = bytes(32)

ROOT: Final = Path(__file__).parents[2]

MISSING_SESSION: Final = "00" + "a" * 26

GRANTED: Final[Mapping[str, Access | None]] = {
    "session": None,
    "reader": Access.READ,
    "writer": Access.WRITE,
    "keeper": Access.ADMIN,
}
"""Sessions of alice that are active, by what they are granted of the documents `secret` and `nothing`."""

KEYS: Final = tuple(Role)
CALLERS: Final = (*KEYS, "within scope", "out of scope", *GRANTED, "pending session", "stranger", "forged")

BODIES: Final[Mapping[str, Any]] = {
    "POST /sessions": {"user_id": "carol"},
    "POST /sessions/batch": {"create": [{"user_id": "carol"}]},
    "PUT /sessions/{id}/grants": {"grants": [{"documents": "**", "access": "admin"}]},
    "POST /keys": {"name": "another", "role": "admin", "only": {"scopes": ["keys:write"]}},
    "PUT /documents/{name}": {"content": "loud"},
    "PATCH /documents/{name}": {"content": "loud"},
}
KINDS: Final = {
    "PATCH /documents/{name}": "application/merge-patch+json",
    "POST /documents/{name}/import": "application/vnd.roomkey.document",
}

TARGETS: Final[Mapping[str, tuple[str, ...]]] = {
    "id": ("itself", "sibling", "other", "missing"),
    "user_id": ("itself", "other", "missing"),
    "name": ("there", "missing"),
    "key_name": ("there", "missing"),
}
"""What the path may name. Parameters that are not here name something that is not there."""

NAMES: Final = {"user_id": {"itself": "alice", "other": "bob", "missing": "nobody"}}
EXISTING: Final = {"name": "secret", "key_name": "worker"}

FOR_SESSIONS: Final = frozenset({"POST /logout"})
"""Nobody is refused before they are asked, because a cookie that opens nothing is dropped, too."""

LEVELS: Final = ("read", "write", "admin")


class Promise(Struct, frozen=True):
    """What the contract says of one operation."""

    operation: str
    access: Mapping[str, str]
    scope: str | None
    is_public: bool

    @property
    def targets(self) -> tuple[str, ...]:
        """What the path may name; ``nothing`` if all that it could name is not there."""
        for name, targets in TARGETS.items():
            if f"{{{name}}}" in self.operation:
                return targets
        return ("nothing",) if "{" in self.operation or self.operation == "GET /audit/log/checkpoint" else ("it",)


def promises() -> Iterator[Promise]:
    """Those of the contract as it is published, whatever the rules of the program are."""
    contract = json.loads((ROOT / "spec" / "openapi.json").read_text(encoding="utf-8"))
    for path, methods in contract["paths"].items():
        for method, said in methods.items():
            yield Promise(
                f"{method.upper()} {path}",
                said["x-roomkey-access"],
                said.get("x-roomkey-scope"),
                said["security"] == [],
            )


class Authority:
    """An interface with a document, keys of every kind, and sessions on demand."""

    def __init__(self, rest: Rest, secrets: Mapping[str, str]) -> None:
        self.rest = rest
        self._secrets = secrets
        self._exported = b""

    async def furnish(self) -> None:
        """See that there are the document and the key that paths name, whatever has been deleted."""
        rest, store = self.rest, self.rest.document_store
        assert store is not None
        if not self._exported or await store.find("secret") is None:
            content = {"content-type": "application/json"}
            await rest.call("PUT", "/documents/secret", token=rest.admin, body=b'{"content":"quiet"}', headers=content)
            await rest.call("POST", "/documents/secret/versions", token=rest.admin)
            self._exported = (await rest.call("GET", "/documents/secret/export", token=rest.admin)).body
        with suppress(KeyExists):
            await rest.keys.create("worker", Role.SERVICE, only=Narrowing(scopes=(Scope.KEYS_WRITE,)), actor="test")

    async def deviations(self, promise: Promise) -> list[str]:
        """What the interface does otherwise than promised, in words."""
        found = list[str]()
        for who in CALLERS:
            if who.endswith("scope") and promise.scope is None:
                continue
            answers = dict[str, Answer]()
            for target in promise.targets:
                answer, is_changed = await self._tried(promise, who, target)
                wanted = expected(promise, who, target)
                if target in ("other", "there", "missing") and wanted is not None:
                    answers[target] = answer
                if not _keeps(answer.status, wanted, target):
                    found.append(f"{promise.operation} by {who} on {target}: {answer.status}, not {wanted}")
                if wanted is not None and is_changed:
                    found.append(f"{promise.operation} by {who} on {target}: refused, and something has changed")
            if not _are_alike(answers.values()):
                found.append(f"{promise.operation} by {who}: other and missing can be told apart")
        return found

    async def _tried(self, promise: Promise, who: str, target: str) -> tuple[Answer, bool]:
        rest, operation = self.rest, promise.operation
        await self.furnish()
        own, token = await self._caller(promise, who)
        sibling, other = await rest.session("alice"), await rest.session("bob")
        ids = {"itself": own.id, "sibling": sibling.id, "other": other.id, "missing": MISSING_SESSION}
        before = await self._state(own, sibling, other)
        method, _, path = operation.partition(" ")
        for name, named in {"id": ids, **NAMES}.items():
            path = path.replace(f"{{{name}}}", named.get(target, "nothing"))
        for name, existing in EXISTING.items():
            path = path.replace(f"{{{name}}}", existing if target == "there" else "nothing")
        path = path.replace("{number}", "1").replace("{", "").replace("}", "")
        body = json.dumps(BODIES[operation]).encode() if operation in BODIES else b""
        if operation.endswith("/import"):
            body = self._exported
        kind = {"content-type": KINDS.get(operation, "application/json")} if body else {}
        answer = await rest.call(method, path, token=token, body=body, headers=kind)
        return answer, await self._state(own, sibling, other) != before

    async def _caller(self, promise: Promise, who: str) -> tuple[IssuedSession, str | None]:
        """The session that is called `itself`, and what the caller presents."""
        access = GRANTED.get(who)
        grants = () if access is None else (Grant("secret", access), Grant("nothing", access))
        own = await self.rest.session("alice", *grants, active=who != "pending session")
        if who == "stranger":
            return own, None
        if who == "forged":
            return own, f"{own.id}.{'A' * 43}"
        if who.endswith("scope"):
            return own, self._secrets[f"{who}-{promise.scope}"]
        return own, self._secrets.get(who, own.token)

    async def _state(self, *sessions: IssuedSession) -> list[Any]:
        rest, admin = self.rest, self._secrets["admin"]
        paths = ("/documents", "/documents/secret", "/documents/secret/versions")
        bodies = [(await rest.call("GET", path, token=admin)).body for path in paths]
        keys = [key.rotated_at for key in await rest.keys.list()]
        found = await rest.sessions.get_sessions([each.id for each in sessions])
        return [*bodies, keys, found, await rest.sessions.count_sessions()]


def expected(promise: Promise, who: str, target: str) -> int | None:
    """The status with which it is refused; ``None`` if it is not."""
    if who in ("forged", "stranger"):
        is_open = promise.is_public if who == "forged" else promise.access[who] == "yes"
        return None if is_open and promise.operation not in FOR_SESSIONS else 401
    if who.endswith("scope"):
        return None if who == "within scope" else 403
    extent = promise.access["session" if who in GRANTED else who]
    if extent == "no" or extent in LEVELS:
        return 403 if extent == "no" else _expected_by_grant(extent, GRANTED[who])
    if extent == "yes" or target in ("itself", "it") or (extent == "own user" and target == "sibling"):
        return None
    return 403 if who == "pending session" or target == "sibling" else 404


def _expected_by_grant(wanted: str, granted: Access | None) -> int | None:
    if granted is None:
        return 404
    return None if LEVELS.index(granted) >= LEVELS.index(wanted) else 403


def _keeps(status: int, wanted: int | None, target: str) -> bool:
    if wanted is not None:
        return status == wanted
    return status not in (401, 403) and (status != 404 or target in ("missing", "nothing"))


def _are_alike(answers: Any) -> bool:
    return len({repr(answer.told) for answer in answers}) <= 1


def an_audit_log(storage: SessionStorage, clock: Clock) -> tuple[AuditLog, AuditTrail]:
    """A log that nobody writes."""
    objects, leases, settings = MemoryObjectStore(), MemoryLeases(clock), AuditSettings()
    log = open_log(objects, leases, key_of=lambda _: KEY, node="n", clock=clock, settings=settings)
    trail = AuditTrail(
        log,
        objects,
        SubjectKeys(objects, clock, str),
        naming=blind_index(KEY),
        settings=settings,
        events=storage,
        leases=leases,
        clock=clock,
        node="n",
    )
    return log, trail


@asynccontextmanager
async def an_authority() -> AsyncGenerator[Authority]:
    """An interface in memory, furnished."""
    async with documents_at_work(policy=SessionPolicy(cap=1000), trail=an_audit_log, threats=True) as rest:
        wanted = {str(role): (role, Narrowing()) for role in Role}
        for scope in Scope:
            others = tuple(other for other in Scope if other is not scope)
            wanted[f"within scope-{scope}"] = (Role.ADMIN, Narrowing(scopes=(scope,)))
            wanted[f"out of scope-{scope}"] = (Role.ADMIN, Narrowing(scopes=others))
        secrets = {
            name: (await rest.keys.create(name.replace(" ", "-"), role, only=only, actor="test")).secret
            for name, (role, only) in wanted.items()
        }
        yield Authority(rest, secrets)
