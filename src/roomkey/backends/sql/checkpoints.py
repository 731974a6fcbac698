"""Checkpoints in a database of SQL."""

from collections.abc import Mapping

from roomkey.backends.sql.database import Database
from roomkey.backends.sql.shared_queries import SharedQueries
from roomkey.backends.sql.statements import run


class DatabaseCheckpoints:
    """``ports.Checkpoints`` in a database, which has to be entered."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = SharedQueries.of(database.dialect)

    async def load(self, consumer: str) -> Mapping[int, int]:
        rows = await self._database.read(
            lambda connection: run(connection, self._queries.checkpoints, consumer.encode())
        )
        return {int(partition): int(sequence) for partition, sequence in rows}

    async def save(self, consumer: str, partition: int, sequence: int) -> None:
        place = consumer.encode(), partition, sequence
        # May be repeated: the position is the same the second time.
        await self._database.write(
            lambda connection: run(connection, self._queries.save_checkpoint, *place), may_repeat=True
        )
