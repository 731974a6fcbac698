"""
The conformance suites of what nodes share: ``OneTime``, ``Counters``, ``Leases`` and ``Checkpoints``.

A backend author writes, in a test module::

    class TestMyLeases(LeasesConformance):
        moment = timedelta(milliseconds=50)

        def open(self) -> AbstractAsyncContextManager[Leases]:
            return my_leases(self.url)

        async def pass_time(self, by: timedelta) -> None:
            await asyncio.sleep(by.total_seconds())

What keeps time with a clock that the test moves takes ``moment`` as it is and moves that clock instead.
The rest is as in ``roomkey.testing.storage``.
"""

from roomkey.testing.shared.checkpoints import CheckpointsConformance, DurableCheckpointsConformance
from roomkey.testing.shared.counters import CountersConformance
from roomkey.testing.shared.leases import DurableLeasesConformance, LeasesConformance
from roomkey.testing.shared.one_time import OneTimeConformance

__all__ = [
    "CheckpointsConformance",
    "CountersConformance",
    "DurableCheckpointsConformance",
    "DurableLeasesConformance",
    "LeasesConformance",
    "OneTimeConformance",
]
