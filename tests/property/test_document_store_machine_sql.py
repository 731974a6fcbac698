"""Any sequence of calls leads where a simple model leads, in documents on SQL."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import rule, run_state_machine_as_test

from roomkey.backends.sql.database import DatabaseSettings
from roomkey.backends.sql.documents import DatabaseDocumentStore
from roomkey.ports import DocumentStore
from tests.property.test_document_store_machine import DocumentStoreMachine
from tests.support.databases import empty_database
from tests.support.effort import examples


class DatabaseMachine(DocumentStoreMachine):
    """Each run has a database of its own."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def open(self) -> DocumentStore:
        return DatabaseDocumentStore(self.url, DatabaseSettings(migrate=True, pool_size=2))

    @rule()
    def open_again(self) -> None:
        self.run(self.store.__aexit__(None, None, None))
        self.enter()


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_a_database_does_as_the_model(dialect: str, request: pytest.FixtureRequest) -> None:
    folder = Path(tempfile.mkdtemp(prefix="roomkey-machine-"))

    class Machine(DatabaseMachine):
        def __init__(self) -> None:
            super().__init__(empty_database(dialect, Path(tempfile.mkdtemp(dir=folder)), request))

    effort = settings(max_examples=examples(10), stateful_step_count=25, deadline=None)
    try:
        run_state_machine_as_test(Machine, settings=effort)  # pyright: ignore[reportUnknownMemberType]
    finally:
        shutil.rmtree(folder)
