"""``roomkey audit tail | search | export`` show what operators did, to people and to programs."""

import json
from pathlib import Path

import pytest

from roomkey.cli import main
from roomkey.cli.audit_trail import cef
from roomkey.cli.outcome import Exit

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _a_place_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ROOMKEY_KEY", "ROOMKEY_URL", "ROOMKEY_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str) -> int:
    return main([*arguments, "--storage", "lmdb://data"])


def test_what_was_done_on_a_storage_without_a_server_is_found_there(capsys: Capture) -> None:
    assert run("sessions", "revoke-user", "alice") == Exit.DONE
    assert run("sessions", "revoke-user", "bob") == Exit.DONE
    capsys.readouterr()

    codes = [run("audit", "search", "--user", "alice", "--since", "1h", "--json")]
    [found] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    codes.append(run("audit", "tail", "-n", "3", "--type", "command"))
    tail = capsys.readouterr().out.splitlines()
    codes.append(run("audit", "export"))
    exported = [json.loads(line)["type"] for line in capsys.readouterr().out.splitlines()]
    codes.append(run("audit", "export", "--format", "cef", "--from", "1"))
    events = capsys.readouterr().out.splitlines()

    assert codes == [Exit.DONE] * 4
    assert (found["type"], found["actor"], found["user_id"]) == ("command.revoke_user", "key:command-line", "alice")
    assert [line.split()[0] for line in tail] == ["index", "0", "1"]
    assert exported[:3] == ["command.revoke_user", "command.revoke_user", "view.search_audit"]
    assert events[0].startswith("CEF:0|Roomkey|roomkey|1|command.revoke_user|command.revoke_user|3|rt=")
    assert " duser=bob " in events[0]


def test_a_moment_that_is_none_is_refused(capsys: Capture) -> None:
    assert run("audit", "search", "--since", "yesterday") == Exit.USAGE
    assert "neither a moment" in capsys.readouterr().err


def test_what_somebody_typed_breaks_no_line_of_an_export() -> None:
    entry = {
        "index": 7,
        "type": "security.a|b",
        "at": "2026-01-02T12:00:00Z",
        "outcome": "refused",
        "actor": "anonymous",
        "reason": "a=b\\c\nCEF:0|forged",
        "details": {"x": "=\n"},
    }

    line = cef(entry)

    assert "\n" not in line
    assert line.startswith(r"CEF:0|Roomkey|roomkey|1|security.a\|b|security.a\|b|7|rt=1767355200000 ")
    assert r"reason=a\=b\\c\nCEF:0|forged " in line
    assert r'msg={"x":"\=\\n"} ' in line
