"""``roomkey migrate``, from the shell to the database."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from roomkey.cli import main
from tests.support.databases import empty_database


def migrate(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "roomkey", "migrate", *arguments]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ROOMKEY_")}
    return subprocess.run(command, cwd=folder, env=variables, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mariadb"])
def test_check_says_what_is_to_be_done_and_does_nothing(
    dialect: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = empty_database(dialect, tmp_path, request)
    monkeypatch.chdir(tmp_path)

    # Each begins anew with the database; one process is enough for that.
    ended = [
        (main(("migrate", url, *flags)), capsys.readouterr().out)
        for flags in (["--check"], ["--check"], [], [], ["--check"])
    ]

    assert [code for code, _ in ended] == [1, 1, 0, 0, 0]
    assert all("0001_sessions" in output and "to be applied" in output for _, output in ended[:2])
    assert "0001_sessions" in ended[2][1]
    assert "up to date" in ended[3][1]


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
