"""
The conformance suite of ``SessionStorage``: what the port promises, as tests that any backend can run.

A backend author writes, in a test module::

    class TestMyStorage(StorageConformance):
        durable = True

        @pytest.fixture(autouse=True)
        def _place(self, tmp_path: Path) -> None:
            self.path = tmp_path

        def open(self) -> MyStorage:
            return MyStorage(self.path)

The tests are coroutines, so pytest needs something that runs them: pytest-asyncio in its auto mode, or a
hook of one's own. ``pytest.register_assert_rewrite("roomkey.testing.storage")`` in ``conftest.py`` makes
failures speak. Times are given, so nothing depends on the machine's clock.

Two hooks break the storage on purpose, ``lose_index`` and ``corrupt``; without them, the suite lacks the tests
that need them.
"""

from roomkey.testing.storage.caps import CapConformance
from roomkey.testing.storage.commits import CommitConformance
from roomkey.testing.storage.damage import DamageConformance
from roomkey.testing.storage.deadlines import DeadlineConformance
from roomkey.testing.storage.lists import ListConformance
from roomkey.testing.storage.log import LogConformance
from roomkey.testing.storage.races import RaceConformance
from roomkey.testing.storage.revocations import RevocationConformance
from roomkey.testing.storage.suite import StorageSuite, disagreements, issue

__all__ = ["StorageConformance", "StorageSuite", "disagreements", "issue"]


class StorageConformance(
    CommitConformance,
    CapConformance,
    RevocationConformance,
    ListConformance,
    DeadlineConformance,
    LogConformance,
    RaceConformance,
    DamageConformance,
):
    """All of it. Subclasses say how to ``open`` the storage under test."""
