"""Any sequence of storage calls leads where a simple model leads, on every SQL database."""

import shutil
import tempfile
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis.stateful import rule, run_state_machine_as_test

from roomkey.backends.sql import DatabaseSessionStorage, DatabaseSettings
from roomkey.ports import SessionStorage
from tests.property.test_storage_machine import StorageMachine
from tests.support.databases import empty_database
from tests.support.effort import examples


class DatabaseMachine(StorageMachine):
    """Each run has a database of its own."""

    settings: ClassVar[DatabaseSettings] = DatabaseSettings(migrate=True, pool_size=2)

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def open(self) -> SessionStorage:
        return DatabaseSessionStorage(self.url, self.settings)

    @rule()
    def open_again(self) -> None:
        self.run(self.storage.__aexit__(None, None, None))
        self.enter()


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mariadb"])
def test_a_database_does_as_the_model(dialect: str, request: pytest.FixtureRequest) -> None:
    folder = Path(tempfile.mkdtemp(prefix="roomkey-machine-"))

    class Machine(DatabaseMachine):
        def __init__(self) -> None:
            super().__init__(empty_database(dialect, Path(tempfile.mkdtemp(dir=folder)), request))

    effort = settings(max_examples=examples(6), stateful_step_count=25, deadline=None)
    try:
        run_state_machine_as_test(Machine, settings=effort)  # pyright: ignore[reportUnknownMemberType]
    finally:
        shutil.rmtree(folder)
