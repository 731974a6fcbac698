"""``roomkey migrate``, from the shell to the database."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.databases import empty_database


def migrate(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "roomkey", "migrate", *arguments]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ROOMKEY_")}
    return subprocess.run(command, cwd=folder, env=variables, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mariadb"])
def test_check_says_what_is_to_be_done_and_does_nothing(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = empty_database(dialect, tmp_path, request)

    checked = [migrate(url, "--check", folder=tmp_path) for _ in range(2)]
    made = migrate(url, folder=tmp_path)
    again = migrate(url, folder=tmp_path)
    after = migrate(url, "--check", folder=tmp_path)

    assert [each.returncode for each in (*checked, made, again, after)] == [1, 1, 0, 0, 0]
    assert all("0001_sessions" in each.stdout and "to be applied" in each.stdout for each in checked)
    assert "0001_sessions" in made.stdout
    assert "up to date" in again.stdout


def test_a_configuration_without_a_sql_database_is_nothing_to_migrate(tmp_path: Path) -> None:
    done = migrate("--storage", "memory", folder=tmp_path)

    assert done.returncode == 2
    assert "nothing to migrate" in done.stderr


def test_a_database_that_is_away_is_told_in_a_line(tmp_path: Path) -> None:
    done = migrate("postgresql://ada:s3cr3t@127.0.0.1:1/rooms", folder=tmp_path)

    assert done.returncode == 3
    assert "away" in done.stderr
    assert "s3cr3t" not in done.stderr
    assert "Traceback" not in done.stderr
