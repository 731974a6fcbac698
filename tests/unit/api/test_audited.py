"""What must be recorded is not done while it cannot be recorded, and whatever ends one's own access always is."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from roomkey.audit.log import AuditLog
from roomkey.audit.opening import open_log
from roomkey.audit.records import AuditRecord
from roomkey.audit.settings import AuditSettings
from roomkey.audit.trail import AuditTrail
from roomkey.backends.memory.leases import MemoryLeases
from roomkey.domain.access import Access, Grant
from roomkey.encryption.subjects import SubjectKeys, blind_index
from roomkey.ports import Clock, SessionStorage
from tests.support.audit_trail import FailingObjects
from tests.support.rest import START, Rest, a_library

BOUND = 4
DAY = timedelta(days=1)


class Trailed(Rest):
    """An interface with an audit log that nobody writes, so that everything waits."""

    def __init__(self, *, end_sessions_when_behind: bool = False) -> None:
        self.objects = FailingObjects()
        soon = timedelta(seconds=0.05)
        self.settings = AuditSettings(
            queue_records=BOUND,
            patience=DAY,
            receipt_timeout=soon,
            end_sessions_when_behind=end_sessions_when_behind,
        )
        super().__init__(trail=self._trail, open_documents=a_library())

    def _trail(self, storage: SessionStorage, clock: Clock) -> tuple[AuditLog, AuditTrail]:
        leases = MemoryLeases(clock)
        key = b"k" * 32
        log = open_log(self.objects, leases, key_of=lambda _: key, node="n", clock=clock, settings=self.settings)
        trail = AuditTrail(
            log,
            self.objects,
            SubjectKeys(self.objects, clock, str),
            naming=blind_index(b"names"),
            settings=self.settings,
            events=storage,
            leases=leases,
            clock=clock,
            node="n",
        )
        return log, trail

    def fall_behind(self) -> None:
        assert self.trail is not None
        for _ in range(BOUND):
            self.trail.record(AuditRecord(type="view.x", at=START))


COMMANDS: Sequence[tuple[str, str, Any]] = [
    ("POST", "/sessions", {"user_id": "bob"}),
    ("POST", "/sessions/batch", {"create": [{"user_id": "bob"}]}),
    ("PUT", "/sessions/{id}/suspend", None),
    ("PUT", "/sessions/{id}/invalidate", None),
    ("PUT", "/sessions/{id}/extend", {}),
    ("PUT", "/sessions/{id}/grants", {"grants": []}),
    ("PUT", "/sessions/{id}/rotate", None),
    ("DELETE", "/sessions/{id}", None),
    ("DELETE", "/users/alice/sessions", None),
    ("GET", "/sessions/{id}", None),
    ("GET", "/sessions", None),
    ("GET", "/users/alice/sessions", None),
    ("GET", "/documents", None),
    ("GET", "/audit", None),
]


@pytest.mark.parametrize(("method", "path", "body"), COMMANDS)
async def test_what_an_operator_wants_to_do_is_refused_and_not_done(method: str, path: str, body: object) -> None:
    rest = Trailed()
    issued = await rest.session("alice")
    before = await rest.storage.heads()
    rest.fall_behind()

    answer = await rest.call(method, path.format(id=issued.id), token=rest.admin, json=body)

    assert (answer.status, answer.code, answer.header("retry-after")) == (503, "audit_behind", "1")
    assert await rest.storage.heads() == before


@pytest.mark.parametrize("name", ["/health", "/health/live", "/health/ready", "/openapi.json", "/asyncapi.json"])
async def test_what_concerns_nobody_is_answered(name: str) -> None:
    rest = Trailed()
    rest.fall_behind()

    assert (await rest.call("GET", name, token=rest.admin)).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/sessions/me"),
        ("DELETE", "/sessions/me"),
        ("PUT", "/sessions/{id}/invalidate"),
        ("DELETE", "/users/alice/sessions"),
    ],
)
async def test_whoever_wants_to_be_signed_out_is(method: str, path: str) -> None:
    rest = Trailed()
    issued = await rest.session("alice")
    rest.fall_behind()

    answer = await rest.call(method, path.format(id=issued.id), token=issued.token)

    assert answer.status in (200, 204)


async def test_deleting_a_document_is_refused_to_everybody() -> None:
    rest = Trailed()
    issued = await rest.session("alice", Grant("**", Access.ADMIN))
    rest.fall_behind()

    answer = await rest.call("DELETE", "/documents/plan", token=issued.token)

    assert answer.code == "audit_behind"


async def test_operators_may_be_allowed_to_end_sessions_all_the_same() -> None:
    rest = Trailed(end_sessions_when_behind=True)
    issued = await rest.session("alice")
    rest.fall_behind()

    ended = await rest.call("DELETE", "/users/alice/sessions", token=rest.admin)
    resumed = await rest.call("PUT", f"/sessions/{issued.id}/resume", token=rest.admin)

    assert (ended.status, resumed.status) == (200, 503)


async def test_reads_of_the_applications_backend_are_not_refused_because_they_are_not_recorded() -> None:
    rest = Trailed()
    rest.fall_behind()

    assert (await rest.call("GET", "/sessions", token=rest.service)).status == 200
    assert (await rest.call("POST", "/sessions", token=rest.service, json={"user_id": "bob"})).status == 503


async def test_a_receipt_that_cannot_be_had_in_time_is_null_and_the_command_is_done() -> None:
    rest = Trailed()
    issued = await rest.session("alice")
    prefer = {"prefer": "respond-async, Audit-Receipt"}

    answer = await rest.call("PUT", f"/sessions/{issued.id}/invalidate", token=rest.admin, headers=prefer)

    assert answer.status == 200
    assert answer.json["audit"] == {"index": None, "receipt": None}
    assert answer.json["state"] == "invalidated"
    assert rest.trail is not None
    assert rest.trail.statistics().recorder.queued == 1


async def test_health_says_that_it_is_behind() -> None:
    rest = Trailed()
    assert rest.trail is not None
    before = rest.trail.degradations()

    rest.fall_behind()

    assert before == {}
    assert "4 records" in rest.trail.degradations()["audit"]


async def test_an_answer_that_is_repeated_is_no_second_command() -> None:
    rest = Trailed()
    twice = {"idempotency-key": "once"}
    assert rest.trail is not None

    for _ in range(2):
        await rest.call("POST", "/sessions/batch", token=rest.admin, json={"create": []}, headers=twice)

    assert rest.trail.statistics().recorder.queued == 1


async def test_whoever_follows_the_log_does_not_lengthen_it_with_every_look() -> None:
    rest = Trailed()
    assert rest.trail is not None

    for path in ("/audit", "/audit?cursor=5", "/audit?limit=3", "/audit?user_id=alice"):
        assert (await rest.call("GET", path, token=rest.admin)).status == 200
    rest.clock.advance(minutes=1)
    await rest.call("GET", "/audit", token=rest.admin)

    assert rest.trail.statistics().recorder.queued == 3
