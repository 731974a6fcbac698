"""What a store has been asked for so far: commands and bytes, by its own count."""

import socket
from typing import Final

from msgspec import Struct

from benchmarks.databases import Database, find
from benchmarks.node import output_of
from benchmarks.processes import HOST


class Counts(Struct, frozen=True):
    """
    Since its start. Of Redis commands, and bytes that it received and sent.

    PostgreSQL counts no commands and no bytes of the network: instead there are transactions, and as received the bytes
    of its write-ahead log. ``stored`` is the memory of Redis, and the files of PostgreSQL.
    """

    commands: float
    received: float
    sent: float
    stored: float

    def since(self, before: "Counts") -> "Counts":
        """What came between two looks; of what is stored, all that there is now."""
        return Counts(
            self.commands - before.commands, self.received - before.received, self.sent - before.sent, self.stored
        )


def counts(store: Database) -> Counts:
    """As it stands now. Asking is counted, too."""
    return _of_redis(store) if store.url.startswith("redis:") else _of_postgresql(store)


def _of_redis(store: Database) -> Counts:
    received = b""
    with socket.create_connection((HOST, store.port), timeout=10) as connection:
        connection.sendall(b"INFO\r\nQUIT\r\n")
        while chunk := connection.recv(65536):
            received += chunk
    found = dict(line.split(":", 1) for line in received.decode().splitlines() if ":" in line)
    return Counts(
        float(found["total_commands_processed"]),
        float(found["total_net_input_bytes"]),
        float(found["total_net_output_bytes"]),
        float(found["used_memory"]),
    )


ASKED_OF_POSTGRESQL: Final = """
SELECT sum(xact_commit + xact_rollback), pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0'), sum(pg_database_size(datid))
FROM pg_stat_database WHERE datid <> 0
"""


def _of_postgresql(store: Database) -> Counts:
    psql = find("psql")
    if psql is None:
        raise RuntimeError("there is no psql")
    told = output_of([psql, store.url, "--no-psqlrc", "--tuples-only", "--no-align", "-c", ASKED_OF_POSTGRESQL])
    commands, received, stored = map(float, told.decode().strip().split("|"))
    return Counts(commands, received, 0.0, stored)
