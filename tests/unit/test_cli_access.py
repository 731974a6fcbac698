"""``roomkey access …`` on a storage itself."""

import json
from pathlib import Path

import pytest

from roomkey.cli import main
from roomkey.cli.outcome import Exit

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture) -> list[str]:
    monkeypatch.chdir(tmp_path)
    for name in ("SESSION_STORAGE", "ROOMKEY_KEY", "ROOMKEY_URL", "ROOMKEY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    where = ["--storage", f"lmdb://{tmp_path / 'store'}"]
    main(["sessions", "create", "alice", "--activate", "--grant", "team/**:write", *where])
    capsys.readouterr()
    return where


def test_who_may_do_what_is_shown_with_the_reason(storage: list[str], capsys: Capture) -> None:
    code = main(["access", "show", "team/plan", "--user", "alice", "--json", *storage])
    found = json.loads(capsys.readouterr().out)
    main(["access", "show", "other", "--user", "alice", *storage])
    for_people = capsys.readouterr().out

    assert (code, found["access"]) == (Exit.DONE, "write")
    assert found["sessions"][0]["grant"] == {"documents": "team/**", "access": "write"}
    assert "no grant of the session matches the document" in for_people


def test_a_recheck_is_of_a_document_or_of_a_session(storage: list[str], capsys: Capture) -> None:
    done = main(["access", "recheck", "--document", "team/plan", "--reason", "you left the team", *storage])
    printed = capsys.readouterr().out
    codes = [
        main(["access", "recheck", *arguments, *storage])
        for arguments in ([], ["--document", "a", "--session", "b"], ["--session", "nobody"])
    ]

    assert done == Exit.DONE
    assert "checked" in printed
    assert codes == [Exit.USAGE, Exit.USAGE, Exit.FAILED]
