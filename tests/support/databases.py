"""A database of its own for each test: a file of SQLite, a schema of PostgreSQL, a database of MariaDB."""

from itertools import count
from pathlib import Path
from typing import Final

import pytest

_NUMBERS: Final = count(1)


def empty_database(dialect: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """The URL of one with nothing in it, not even the schema."""
    match dialect:
        case "sqlite":
            return f"sqlite:///{folder}/roomkey.db"
        case "mariadb":
            return request.getfixturevalue("mariadb_url")
        case _:
            # The migrations make it. That is quicker than a database of its own.
            return f"{request.getfixturevalue('postgresql_server').url}?schema=test_{next(_NUMBERS)}"
