"""Who records the events of sessions goes on from what is noted, whatever of the audit log is shown."""

from datetime import timedelta

from roomkey.audit.following import EventsRecorded, load_positions
from roomkey.audit.records import AuditRecord
from roomkey.ports import LoggedEvent
from roomkey.testing.storage.suite import issue
from tests.support.audit import new_log
from tests.support.audit_trail import NOON, Office


async def test_who_is_behind_what_is_shown_goes_on_there() -> None:
    office, log = Office(), new_log()
    records = [AuditRecord(type="command.x", at=NOON + timedelta(minutes=number)) for number in range(20)]
    await log.append(await office.sealer.seal(records))
    await log.integrate()
    await log.retain(15)
    recorded = EventsRecorded(office.sealer, log, office.objects, office.clock)

    await recorded.load("audit")
    await recorded.consume(3, [LoggedEvent(1, issue().event)])
    await recorded.save("audit", 3, 1)
    await recorded.flush()

    _, noted = await load_positions(office.objects)
    assert (noted.size, noted.sequences) == (21, {3: 1})
    assert len(await log.entries(15, 100)) == 6
