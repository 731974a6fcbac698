"""What the commands say about a storage on a server that is away, and about what several nodes need."""

import json
from pathlib import Path
from typing import Any

import pytest

from roomkey.cli import main
from roomkey.cli.outcome import Exit

Capture = pytest.CaptureFixture[str]

AWAY = [
    "redis://me:s3cret@127.0.0.1:1",
    "redis+sentinel://127.0.0.1:1/name?sentinel_password=s3cret",
    "redis+cluster://:s3cret@127.0.0.1:1",
    "postgresql://me:s3cret@127.0.0.1:1/rooms",
    "mysql://me:s3cret@127.0.0.1:1/rooms",
]
"""Nobody listens there."""


@pytest.fixture(autouse=True)
def _a_place_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SESSION_STORAGE", "REDIS_URL", "DATABASE_URL", "ROOMKEY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROOMKEY_STORAGE_TIMEOUT", "200ms")


def complaint(capsys: Capture) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("roomkey:")]
    return line


SERVE = ("serve", "--dev", "--port", "0", "--storage")
COPY = ("storage", "copy", "lmdb://from")
OTHERS = [
    *(("sessions", "list", "--storage"), ("documents", "list", "--storage")),
    *(("nodes", "--storage"), ("storage", "verify")),
]


@pytest.mark.parametrize(
    ("command", "url"),
    [
        *((SERVE, url) for url in AWAY),
        *((other, AWAY[0]) for other in OTHERS),
        (("storage", "copy", "lmdb://from"), AWAY[3]),
    ],
)
def test_a_server_that_is_away_is_one_line_without_its_password(
    command: tuple[str, ...], url: str, tmp_path: Path, capsys: Capture
) -> None:
    main(("sessions", "create", "alice", "--storage", f"lmdb://{tmp_path / 'from'}"))
    main(("documents", "list", "--storage", f"lmdb://{tmp_path / 'from'}"))
    capsys.readouterr()

    code = main((*command, url))

    assert code in {Exit.USAGE, Exit.AWAY}
    assert "s3cret" not in complaint(capsys)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "postgresql://me@127.0.0.1:1/rooms"])
def test_a_node_does_not_start_on_a_server_with_secrets_of_its_own(url: str, capsys: Capture) -> None:
    code = main(("serve", "--port", "0", "--storage", url))

    assert code == Exit.USAGE
    assert "security.master_key" in complaint(capsys)


def findings(capsys: Capture) -> dict[str, Any]:
    return {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}


@pytest.mark.parametrize("url", AWAY)
def test_the_doctor_names_a_server_that_is_away(url: str, capsys: Capture) -> None:
    code = main(("doctor", "--port", "0", "--storage", url, "--json"))

    output = capsys.readouterr().out
    found = {finding["subject"]: finding for finding in json.loads(output)}
    assert code == Exit.FAILED
    assert found["storage"]["verdict"] == "failed"
    assert found["nodes"]["verdict"] == "failed"
    assert "s3cret" not in output


def test_the_doctor_says_what_nodes_share(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    main(("doctor", "--port", "0", "--storage", AWAY[0], "--dev", "--json"))
    in_development = findings(capsys)["nodes"]
    monkeypatch.setenv("ROOMKEY_MASTER_KEY", "k" * 40)
    main(("doctor", "--port", "0", "--storage", AWAY[0], "--json"))
    with_key = findings(capsys)["nodes"]

    assert in_development["verdict"] == "warning"
    assert with_key["verdict"] == "ok"


def test_the_doctor_makes_no_database(tmp_path: Path, capsys: Capture) -> None:
    main(("doctor", "--port", "0", "--storage", f"sqlite:///{tmp_path}/rooms.db", "--json"))

    assert findings(capsys)["storage"]["observed"] == f"{tmp_path}/rooms.db will be created"
    assert [*tmp_path.iterdir()] == []


def test_a_copy_makes_no_database_where_none_is_to_be_read(tmp_path: Path, capsys: Capture) -> None:
    code = main(("storage", "copy", f"sqlite:///{tmp_path}/rooms.db", "lmdb://to"))

    assert code == Exit.USAGE
    assert "rooms.db" in complaint(capsys)
    assert [*tmp_path.iterdir()] == []


def test_the_configuration_is_shown_without_passwords(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("REDIS_URL", AWAY[0])
    monkeypatch.setenv("DATABASE_URL", AWAY[3])

    main(("config", "--storage", AWAY[0], "--documents", AWAY[1]))

    output = capsys.readouterr().out
    assert "s3cret" not in output
    assert "redis://me:<hidden>@127.0.0.1:1" in output
