"""``roomkey encryption …``: which keys there are, and everything written anew under another one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from roomkey.cli import main
from roomkey.cli.outcome import Exit

Capture = pytest.CaptureFixture[str]

COMMANDS = ("status", "rotate", "rewrap")


@pytest.fixture(autouse=True)
def _a_place_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SESSION_STORAGE", "REDIS_URL", "DATABASE_URL", "ROOMKEY_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def storage(tmp_path: Path, capsys: Capture) -> str:
    """A storage with an encrypted session of alice in it."""
    (tmp_path / "roomkey.toml").write_text('[encryption]\nmode = "on"\nannouncement = "50ms"\n', encoding="utf-8")
    url = f"lmdb://{tmp_path / 'data'}"
    assert main(("sessions", "create", "alice", "--storage", url)) == Exit.DONE
    capsys.readouterr()
    return url


def run(*arguments: str) -> int:
    return main(("encryption", *arguments))


def status(storage: str, capsys: Capture) -> dict[str, Any]:
    assert run("status", storage, "--json") == Exit.DONE
    return json.loads(capsys.readouterr().out)


def listed(storage: str, capsys: Capture) -> list[str]:
    assert main(("sessions", "list", "--storage", storage, "--json")) == Exit.DONE
    return [session["user_id"] for session in json.loads(capsys.readouterr().out)["sessions"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_storage_that_is_not_there_is_not_made(command: str, tmp_path: Path, capsys: Capture) -> None:
    code = run(command, f"lmdb://{tmp_path / 'nowhere'}")

    assert code == Exit.USAGE
    assert capsys.readouterr().err == f"roomkey: there is no storage in {tmp_path / 'nowhere'}\n"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_memory_has_no_keys_to_look_at(command: str, capsys: Capture) -> None:
    code = run(command, "memory://")

    assert code == Exit.USAGE
    assert "what is in memory is not encrypted" in capsys.readouterr().err


def test_a_rotation_makes_a_new_key_and_leaves_everything_readable(storage: str, capsys: Capture) -> None:
    (before,) = status(storage, capsys)["keys"]

    code = run("rotate", storage)
    capsys.readouterr()

    after = status(storage, capsys)
    assert code == Exit.DONE
    assert [key["writes"] for key in after["keys"]] == [True]
    assert after["keys"][0]["id"] != before["id"]
    assert not after["reads_unsealed"]
    assert listed(storage, capsys) == ["alice"]


def test_what_is_there_is_not_in_the_files_as_it_is(storage: str, tmp_path: Path) -> None:
    del storage
    (tmp_path / "roomkey.toml").unlink()
    assert main(("sessions", "create", "bob", "--storage", f"lmdb://{tmp_path / 'plain'}")) == Exit.DONE

    record = b"active"  # a part of every session's record
    sealed, plain = ((tmp_path / name / "data.mdb").read_bytes() for name in ("data", "plain"))

    assert plain.count(record) + plain.count(b"pending") > 0
    assert sealed.count(record) + sealed.count(b"pending") == 0


def test_without_the_right_master_key_nothing_is_opened_and_the_key_is_named(
    storage: str, tmp_path: Path, capsys: Capture
) -> None:
    data = (tmp_path / "data" / "data.mdb").read_bytes()
    (key,) = status(storage, capsys)["keys"]
    (tmp_path / "data" / "master.key").write_text("another" * 10, encoding="utf-8")

    code = main(("sessions", "list", "--storage", storage))

    said = capsys.readouterr().err
    assert code == Exit.USAGE
    assert key["wrapped_by"] in said
    assert len(said.splitlines()) == 1
    assert (tmp_path / "data" / "data.mdb").read_bytes() == data


def test_encryption_that_is_switched_off_opens_nothing_that_is_encrypted(
    storage: str, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "roomkey.toml").write_text("", encoding="utf-8")

    code = main(("sessions", "list", "--storage", storage))

    assert code == Exit.USAGE
    assert "encryption.mode is off, and the storage has data keys" in capsys.readouterr().err


def test_records_that_are_not_under_the_newest_key_are_counted(tmp_path: Path, capsys: Capture) -> None:
    url = f"lmdb://{tmp_path / 'data'}"
    assert main(("sessions", "create", "bob", "--storage", url)) == Exit.DONE
    (tmp_path / "roomkey.toml").write_text('[encryption]\nmode = "on"\nannouncement = "50ms"\n', encoding="utf-8")
    assert main(("sessions", "create", "alice", "--storage", url)) == Exit.DONE
    capsys.readouterr()

    before = status(url, capsys)["records"]
    main(("doctor", "--storage", url))
    doctor = capsys.readouterr().out
    assert run("rotate", url) == Exit.DONE
    capsys.readouterr()
    after = status(url, capsys)["records"]

    assert 0 < before["under_old_keys"] < before["looked_at"]
    assert before["all_looked_at"]
    assert f"{before['under_old_keys']} of {before['looked_at']} records" in " ".join(doctor.split())
    assert after == {"looked_at": before["looked_at"], "under_old_keys": 0, "all_looked_at": True}


def test_whoever_looks_for_the_rotation_among_api_keys_is_told_where_it_is(capsys: Capture) -> None:
    code = main(("keys", "rotate"))
    said = capsys.readouterr().err
    main(("keys", "--help"))
    help = " ".join(capsys.readouterr().out.split())

    assert code == Exit.USAGE
    assert "`roomkey encryption rotate`" in said
    assert "roomkey encryption rotate" in help


# --- users --------------------------------------------------------------------------------------------


def stored_bytes(folder: Path) -> bytes:
    """Everything that lies in a folder, names of files included."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"".join(str(path).encode() + path.read_bytes() for path in files)


def test_nothing_in_the_files_says_who_has_a_session(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "roomkey.toml").write_text('[encryption]\nmode = "on"\n', encoding="utf-8")
    for name, url in (("data", f"lmdb://{tmp_path / 'data'}"), ("sql", f"sqlite:///{tmp_path / 'sql'}/roomkey.db")):
        (tmp_path / name).mkdir(mode=0o700)
        user = f"ada-lovelace-{name}"
        assert main(("sessions", "create", user, "--storage", url)) == Exit.DONE
        assert main(("sessions", "revoke-user", user, "--storage", url)) == Exit.DONE
        capsys.readouterr()

        assert listed(url, capsys) == [user]
        assert status(url, capsys)["users"] == "hidden"
        assert b"lovelace" not in stored_bytes(tmp_path / name)


def test_users_of_a_storage_that_was_in_use_are_hidden_by_copying_it(tmp_path: Path, capsys: Capture) -> None:
    settings, first, second = tmp_path / "roomkey.toml", f"lmdb://{tmp_path / 'one'}", f"lmdb://{tmp_path / 'two'}"
    assert main(("sessions", "create", "ada-lovelace", "--storage", first)) == Exit.DONE
    settings.write_text('[encryption]\nmode = "on"\n', encoding="utf-8")
    assert main(("sessions", "create", "grace-hopper", "--storage", first)) == Exit.DONE
    capsys.readouterr()
    assert run("status", first) == Exit.DONE
    assert "ids of users can be read in the indexes of sessions: `roomkey storage copy`" in capsys.readouterr().err
    assert status(first, capsys)["users"] == "readable"

    assert main(("storage", "copy", first, second)) == Exit.DONE
    assert main(("storage", "copy", first, second)) == Exit.DONE, "what was copied is found to be the same"
    shutil.copy(tmp_path / "one" / "master.key", tmp_path / "two" / "master.key")
    capsys.readouterr()

    assert sorted(listed(second, capsys)) == ["ada-lovelace", "grace-hopper"]
    assert status(second, capsys)["users"] == "hidden"
    stored = stored_bytes(tmp_path / "two")
    assert b"lovelace" not in stored
    assert b"hopper" not in stored


def test_a_copy_of_a_storage_without_keys_is_encrypted_where_that_is_on(tmp_path: Path, capsys: Capture) -> None:
    first, second = f"lmdb://{tmp_path / 'one'}", f"lmdb://{tmp_path / 'two'}"
    assert main(("sessions", "create", "ada-lovelace", "--storage", first)) == Exit.DONE
    (tmp_path / "roomkey.toml").write_text('[encryption]\nmode = "on"\n', encoding="utf-8")

    assert main(("storage", "copy", first, second)) == Exit.DONE
    shutil.copy(tmp_path / "one" / "master.key", tmp_path / "two" / "master.key")
    capsys.readouterr()

    assert listed(second, capsys) == ["ada-lovelace"]
    found = status(second, capsys)
    assert (found["users"], found["reads_unsealed"]) == ("hidden", False)
    assert b"lovelace" not in stored_bytes(tmp_path / "two")
    assert not status(first, capsys)["encrypted"], "the source is only read"


def test_a_user_id_that_is_too_long_to_be_hidden_is_refused_in_a_sentence(storage: str, capsys: Capture) -> None:
    code = main(("sessions", "create", "x" * 160, "--storage", storage))

    assert code == Exit.FAILED
    said = capsys.readouterr().err
    assert said == "roomkey: a user id has at most 159 bytes where ids are encrypted, not 256 (invalid_input)\n"
