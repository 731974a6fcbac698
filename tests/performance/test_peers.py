"""The servers that Roomkey is compared with work: what one client types, the others read."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import editing
from benchmarks.editing import PEERS, PYCRDT_WEBSOCKET_SQLITE, Side, check

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 30


@pytest.mark.parametrize("name", [*PEERS, PYCRDT_WEBSOCKET_SQLITE])
def test_what_clients_of_a_peer_type_is_read_by_real_ones_and_by_those_who_come_later(name: str) -> None:
    with editing.peer(name) as side:
        assert isinstance(side, Side), side.reason

        check(side)


def test_a_peer_that_stores_documents_has_them_after_a_restart(tmp_path: Path) -> None:
    with editing.peer(PYCRDT_WEBSOCKET_SQLITE, str(tmp_path)) as side:
        assert isinstance(side, Side), side.reason
        typing = side.typing("notes", 1, 1)
        with closing(side.join(["notes"])[0]) as connection:
            for _ in range(5):
                connection.sendall(typing.edit(0) or b"")
            wait_for_rows(next(tmp_path.glob("*.sqlite")), 5)

    with editing.peer(PYCRDT_WEBSOCKET_SQLITE, str(tmp_path)) as side:
        assert isinstance(side, Side), side.reason
        typing.check(side.text("notes"))


def wait_for_rows(file: Path, wanted: int) -> None:
    """It stores in the background and tells nobody."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    with closing(sqlite3.connect(file)) as database:
        while (found := database.execute("SELECT count(*) FROM yupdates").fetchone()[0]) < wanted:
            assert time.monotonic() < deadline, f"{found} of {wanted} updates are stored"
