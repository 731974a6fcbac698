"""What nodes share in SQL databases keeps the promises of the ports."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from roomkey.backends.sealing import Seal
from roomkey.backends.sql.checkpoints import DatabaseCheckpoints
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.leases import DatabaseLeases
from roomkey.backends.sql.one_time import DatabaseOneTime
from roomkey.ports import OneTimeLimits
from roomkey.testing.shared import DurableCheckpointsConformance, DurableLeasesConformance, OneTimeConformance
from tests.support.databases import PATIENT, empty_database, let_time_pass


class OnDatabase:
    dialect: ClassVar[str]

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        self.url = empty_database(self.dialect, tmp_path, request)

    async def pass_time(self, by: timedelta) -> None:
        async with self.database() as database:
            await let_time_pass(database, by, "roomkey_one_time", "roomkey_leases")

    @asynccontextmanager
    async def database(self) -> AsyncGenerator[Database]:
        async with Database(self.url, PATIENT) as database:
            yield database


class DatabaseOneTimeConformance(OnDatabase, OneTimeConformance):
    __test__ = False

    @asynccontextmanager
    async def open(self, limits: OneTimeLimits) -> AsyncGenerator[DatabaseOneTime]:
        async with self.database() as database:
            yield DatabaseOneTime(database, "tickets", limits, Seal(b"secret", "tickets"))


class DatabaseLeasesConformance(OnDatabase, DurableLeasesConformance):
    __test__ = False

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[DatabaseLeases]:
        async with self.database() as database:
            yield DatabaseLeases(database)


class DatabaseCheckpointsConformance(OnDatabase, DurableCheckpointsConformance):
    __test__ = False

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[DatabaseCheckpoints]:
        async with self.database() as database:
            yield DatabaseCheckpoints(database)


class TestSqliteOneTime(DatabaseOneTimeConformance):
    __test__ = True
    dialect = "sqlite"


class TestPostgresqlOneTime(DatabaseOneTimeConformance):
    __test__ = True
    dialect = "postgresql"


class TestMariadbOneTime(DatabaseOneTimeConformance):
    __test__ = True
    dialect = "mariadb"


class TestSqliteLeases(DatabaseLeasesConformance):
    __test__ = True
    dialect = "sqlite"


class TestPostgresqlLeases(DatabaseLeasesConformance):
    __test__ = True
    dialect = "postgresql"


class TestMariadbLeases(DatabaseLeasesConformance):
    __test__ = True
    dialect = "mariadb"


class TestSqliteCheckpoints(DatabaseCheckpointsConformance):
    __test__ = True
    dialect = "sqlite"


class TestPostgresqlCheckpoints(DatabaseCheckpointsConformance):
    __test__ = True
    dialect = "postgresql"


class TestMariadbCheckpoints(DatabaseCheckpointsConformance):
    __test__ = True
    dialect = "mariadb"
