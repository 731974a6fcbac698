import asyncio
import json
import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import lmdb
import pytest

from roomkey.backends.lmdb import FileSystemSessionStorage
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.backends.redis import RedisServer, RedisSessionStorage
from roomkey.backends.redis.layout import id_key, partitions
from roomkey.backends.sql import DatabaseSessionStorage
from roomkey.cli import app, main
from roomkey.cli.outcome import Exit
from roomkey.domain.session import partition_of
from roomkey.errors import ConfigurationError
from roomkey.ports import PLAIN_RECORDS, Author, DocumentUpdate
from roomkey.security import masterkey
from roomkey.testing.storage.suite import store as store_a_session
from tests.support.certificates import make_certificates
from tests.support.forgeries import gc, put_together, section, to_the_end, words
from tests.support.sockets import NOON

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _a_place_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SESSION_TTL", "SESSION_STORAGE", "ROOMKEY_KEY", "ROOMKEY_URL", "ROOMKEY_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def run(*arguments: str) -> int:
    return main(arguments)


def test_help_names_every_command_and_the_exit_codes(capsys: Capture) -> None:
    code = run("--help")

    shown = capsys.readouterr().out
    assert code == Exit.DONE
    for word in ("serve", "sessions", "config", "doctor", "openapi", "bench", "keys", "Exit codes"):
        assert word in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("serve", "--prot", "3000"),
        ("serve", "--port", "many"),
        ("serve", "--config", "nowhere.toml"),
        ("serve", "--storage", "redis"),
        ("serve", "--storage", "cloud"),
        ("serve", "--documents", "cloud"),
        ("documents", "list", "--documents", "lmdb:///srv/notes"),
        ("serve", "--host", "0.0.0.0"),
        ("serve", "--set", "sessions.cap"),
        ("serve", "--set", "sessions.cap=none"),
        ("config", "--set", "sessions.kap=3"),
        ("sessions", "create"),
        ("sessions", "create", "alice", "--lifetime", "soon"),
        ("sessions", "create", "alice", "--grant", "everything"),
        ("sessions", "grants", "3a"),
        ("sessions", "grants", "3a", "--grant", "everything"),
        ("sessions", "create", "alice", "--metadata", "[]"),
        ("keys", "generate", "--name", ""),
        ("bench", "--count", "0"),
    ],
)
def test_wrong_usage_and_configuration_are_told_in_words_with_exit_code_2(
    arguments: tuple[str, ...], capsys: Capture
) -> None:
    code = run(*arguments)

    said = capsys.readouterr()
    assert code == Exit.USAGE
    assert said.err.strip()
    assert "Traceback" not in said.out + said.err


COMMANDS = [
    ("serve", 0),
    ("config", 0),
    ("nodes", 0),
    ("doctor", 0),
    ("openapi", 0),
    ("asyncapi", 0),
    ("settings", 1),
    ("messages", 0),
    ("bench", 0),
    ("migrate", 1),
    ("storage copy", 2),
    ("storage verify", 1),
    ("keys generate", 1),
    ("keys list", 0),
    *((f"keys {name}", 1) for name in ("create", "show", "rotate", "revoke")),
    ("sessions list", 0),
    ("sessions extend", 2),
    ("sessions grants --no-grants", 1),
    *(
        (f"sessions {name}", 1)
        for name in (
            *("create", "show", "activate", "suspend", "resume", "expire", "invalidate", "rotate", "delete"),
            *("revoke-user", "risk", "disconnect", "history"),
        )
    ),
    ("access show --user alice", 1),
    ("access recheck", 0),
    ("groups list", 0),
    *((f"groups {name}", 1) for name in ("show", "set --no-grants", "delete")),
    ("webhooks list", 0),
    ("webhooks replay", 2),
    *((f"webhooks {name}", 1) for name in ("show", "deliveries", "enable")),
    *((f"audit {name}", 0) for name in ("export", "keys", "search", "tail", "verify")),
    *((f"audit {name}", 1) for name in ("prove", "receipt", "witness")),
    *((f"encryption {name}", 1) for name in ("rewrap", "rotate", "status")),
    ("documents list", 0),
    *((f"documents {name}", 1) for name in ("show", "versions", "delete", "export", "sessions")),
    *((f"documents {name}", 2) for name in ("import", "restore", "disconnect", "write")),
]
"""Every command, with the number of arguments that it has a place for."""


@pytest.mark.parametrize(("command", "places"), COMMANDS)
def test_an_argument_too_many_is_named_beside_the_usage_of_the_command(
    command: str, places: int, capsys: Capture
) -> None:
    arguments = [str(number) for number in range(places)]

    code = run(*command.split(), *arguments, "surplus")

    wrong, usage = capsys.readouterr().err.splitlines()
    assert code == Exit.USAGE
    assert wrong == "roomkey: there is no place for the argument 'surplus'"
    assert usage.startswith(f"roomkey: usage: roomkey {command.partition(' --')[0]} ")
    assert len(re.findall(r"\b[A-Z_]{2,}\b(?!\])", usage.partition(";")[0].replace("[OPTIONS]", ""))) <= places


def test_the_table_has_every_command() -> None:
    pages = ["", "access", "groups", "sessions", "documents", "storage", "keys", "audit", "encryption", "webhooks"]
    offered = {
        f"{page} {name}".strip()
        for page in pages
        for name in (app[page] if page else app)
        if not name.startswith("-") and f"{page} {name}".strip() not in pages
    }

    assert offered == {command.partition(" --")[0] for command, _ in COMMANDS}


def test_an_argument_that_is_missing_is_named_beside_the_usage_of_the_command(capsys: Capture) -> None:
    code = run("sessions", "show")

    assert code == Exit.USAGE
    assert capsys.readouterr().err.splitlines() == [
        "roomkey: ID is missing",
        "roomkey: usage: roomkey sessions show ID [OPTIONS]; `roomkey sessions show --help` explains them",
    ]


def test_a_missing_argument_has_the_name_that_the_usage_gives_it(capsys: Capture) -> None:
    run("sessions", "create")

    wrong, usage = capsys.readouterr().err.splitlines()
    assert wrong == "roomkey: USER_ID is missing"
    assert "USER_ID" in usage


def test_every_problem_of_the_configuration_has_a_line_of_its_own(capsys: Capture) -> None:
    code = run("config", "--set", "sessions.cap=0", "--set", "server.port=-1")

    lines = capsys.readouterr().err.splitlines()
    assert code == Exit.USAGE
    assert len(lines) == 2
    assert all(line.startswith("roomkey: ") for line in lines)


def test_config_tells_what_holds_and_why(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_TTL", "600")

    run("config", "--port", "4000", "--json")

    settings = {line["name"]: line for line in json.loads(capsys.readouterr().out)}
    assert settings["server.port"] == {"name": "server.port", "value": "4000", "source": "--port"}
    assert settings["sessions.lifetime"] == {"name": "sessions.lifetime", "value": "10m", "source": "SESSION_TTL"}


def test_config_hides_secrets(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    key = masterkey.generate()
    monkeypatch.setenv("ROOMKEY_MASTER_KEY", key)

    run("config")

    shown = capsys.readouterr().out
    assert key not in shown
    assert "<hidden>" in shown


def test_a_key_is_for_a_backend_unless_something_else_is_said(capsys: Capture) -> None:
    run("keys", "generate", "web", "--json")
    web = json.loads(capsys.readouterr().out)
    run("keys", "generate", "--role", "admin", "--json")
    admin = json.loads(capsys.readouterr().out)

    assert (web["name"], web["role"]) == ("web", "service")
    assert (admin["name"], admin["role"]) == ("backend", "admin")


def test_a_generated_key_is_what_its_digest_says(capsys: Capture) -> None:
    code = run("keys", "generate", "--name", "backend", "--role", "service", "--json")

    made = json.loads(capsys.readouterr().out)
    assert code == Exit.DONE
    assert made["key"].startswith("rkey_")
    assert made["digest"] == sha256(made["key"].encode()).hexdigest()
    assert (made["name"], made["role"]) == ("backend", "service")


def test_the_printed_lines_make_a_server_accept_the_key(capsys: Capture, tmp_path: Path) -> None:
    run("keys", "generate", "backend")
    printed = capsys.readouterr().out
    (tmp_path / "roomkey.toml").write_text(printed[printed.index("[[") : printed.index("Or:")])

    code = run("config")

    assert code == Exit.DONE
    assert "backend:service:" in capsys.readouterr().out.replace("\n", "")


def test_a_generated_master_key_is_accepted(capsys: Capture) -> None:
    run("keys", "generate", "--master", "--json")

    assert masterkey.check(json.loads(capsys.readouterr().out)["master_key"])


def test_the_doctor_finds_nothing_wrong_where_nothing_is(capsys: Capture) -> None:
    code = run("doctor", "--port", "0", "--json")

    findings = json.loads(capsys.readouterr().out)
    assert code == Exit.DONE
    assert {"libraries", "clock", "open files", "configuration", "port", "data directory", "disk", "master key"} <= {
        finding["subject"] for finding in findings
    }


def test_the_doctor_says_what_to_do_about_a_taken_port(capsys: Capture, taken_port: int) -> None:
    code = run("doctor", "--port", str(taken_port), "--json")

    (finding,) = [each for each in json.loads(capsys.readouterr().out) if each["subject"] == "port"]
    assert code == Exit.FAILED
    assert finding["verdict"] == "failed"
    assert "--port" in finding["advice"]


def test_the_doctor_notices_a_key_file_that_others_may_read(capsys: Capture, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / masterkey.FILE_NAME).write_text(masterkey.generate())
    (data / masterkey.FILE_NAME).chmod(0o644)

    code = run("doctor", "--port", "0")

    assert code == Exit.FAILED
    assert "chmod" in capsys.readouterr().out


def test_the_doctor_notices_a_data_directory_that_is_a_file(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    code = run("doctor", "--port", "0")

    assert code == Exit.FAILED
    assert "is not a directory" in capsys.readouterr().out


def test_the_doctor_looks_at_the_storage_of_documents_if_it_is_another_one(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("")

    code = run("doctor", "--port", "0", "--storage", "memory", "--documents", f"lmdb://{tmp_path / 'notes'}", "--json")

    findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert code == Exit.FAILED
    assert findings["storage"]["observed"] == "memory://: a restart loses all sessions"
    assert findings["documents: data directory"]["observed"] == f"{tmp_path / 'notes'} is not a directory"
    assert "--documents" in findings["documents: data directory"]["advice"]


def test_the_doctor_mentions_a_storage_of_both_once(capsys: Capture) -> None:
    run("doctor", "--port", "0", "--storage", "memory", "--documents", "memory", "--json")

    (finding,) = [each for each in json.loads(capsys.readouterr().out) if each["subject"].endswith("storage")]
    assert finding["observed"] == "memory://: a restart loses all sessions and documents"


def store_a_document(directory: Path, *updates: bytes) -> None:
    """As a version stored it that did not look closely."""

    async def append() -> None:
        async with FileSystemDocumentStore(directory / "documents") as store:
            record = await store.create("notes/plan", "lineage", NOON)
            updates_of_bob = [DocumentUpdate(update, Author("user:bob", None, "bob"), NOON) for update in updates]
            await store.append("notes/plan", record.lineage, updates_of_bob)

    asyncio.run(append())


def test_the_doctor_finds_documents_in_which_somebody_was_silenced_and_says_what_to_do(
    capsys: Capture, tmp_path: Path
) -> None:
    hurt = put_together(section(7, 0, words("abcd"), gc(to_the_end(4))))
    store_a_document(tmp_path / "data", hurt, put_together(section(8, 3, words("x"))))

    code = run("doctor", "--port", "0", "--json")

    findings = [each for each in json.loads(capsys.readouterr().out) if each["subject"].startswith("document")]
    silenced, waiting, summary = findings
    assert code == Exit.DONE
    assert [each["verdict"] for each in findings] == ["warning"] * 3
    assert silenced["subject"] == waiting["subject"] == "document 'notes/plan'"
    assert "client 7" in silenced["observed"]
    assert "reload the page" in silenced["advice"]
    assert "client 8 wait" in waiting["observed"]
    assert summary["observed"] == "1 looked at, 2 findings"


def test_the_doctor_finds_nothing_wrong_with_documents_that_are_well(capsys: Capture, tmp_path: Path) -> None:
    store_a_document(tmp_path / "data", put_together(section(7, 0, words("abcd"), gc(5))))

    run("doctor", "--port", "0", "--json")

    (finding,) = [each for each in json.loads(capsys.readouterr().out) if each["subject"].startswith("document")]
    assert (finding["verdict"], finding["observed"]) == ("ok", "1 looked at, 0 findings")


def test_the_doctor_names_damaged_records_and_sets_them_aside_if_told_to(capsys: Capture, tmp_path: Path) -> None:
    directory = tmp_path / "data"

    async def damage() -> None:
        async with FileSystemSessionStorage(directory) as storage:
            await store_a_session(storage, "alice")
        with lmdb.Environment(str(directory), max_dbs=9) as environment:
            table = environment.open_db(b"sessions")
            with environment.begin(write=True, db=table) as transaction:
                ((key, value),) = transaction.cursor()
                transaction.put(key, value[:-1])

    asyncio.run(damage())

    def about_records(*options: str) -> list[tuple[str, str]]:
        assert run("doctor", "--port", "0", "--json", *options) == Exit.DONE
        findings = json.loads(capsys.readouterr().out)
        records = [each for each in findings if each["subject"].startswith(("session ", "records of sessions"))]
        return [(each["verdict"], each["observed"]) for each in records]

    named = about_records()
    set_aside = about_records("--set-aside")
    afterwards = about_records()

    assert named == [("warning", "a session record is damaged: its checksum is wrong"), ("warning", "1 damaged")]
    assert set_aside[-1] == ("ok", "1 of 1 damaged ones are set aside")
    assert afterwards == [("ok", "0 damaged")]


def test_the_doctor_sets_damaged_records_of_a_database_aside_if_told_to(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "roomkey.db"
    monkeypatch.setenv("SESSION_STORAGE", f"sqlite:///{file}")

    async def make() -> None:
        async with DatabaseSessionStorage(f"sqlite:///{file}") as storage:
            await store_a_session(storage, "alice")

    asyncio.run(make())
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE roomkey_sessions SET record = substr(record, 1, 40)")
    capsys.readouterr()

    def about_records(*options: str) -> list[tuple[str, str]]:
        assert run("doctor", "--port", "0", "--json", *options) == Exit.DONE
        findings = json.loads(capsys.readouterr().out)
        records = [each for each in findings if each["subject"].startswith(("session ", "records of sessions"))]
        return [(each["verdict"], each["observed"]) for each in records]

    named = about_records()
    set_aside = about_records("--set-aside")
    afterwards = about_records()

    assert named == [("warning", "a session record is damaged: its checksum is wrong"), ("warning", "1 damaged")]
    assert set_aside[-1] == ("ok", "1 of 1 damaged ones are set aside")
    assert afterwards == [("ok", "0 damaged")]


def test_the_doctor_names_and_sets_aside_what_is_damaged_on_a_server(
    capsys: Capture, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSION_STORAGE", redis_url)

    async def damage() -> None:
        server = RedisServer(redis_url)
        async with RedisSessionStorage(server) as storage:
            session = await store_a_session(storage, "alice")
            id = id_key(session.id)
            assert id is not None
            shelf = partitions(server.prefix)[partition_of("alice")].shelves[id[0] >> 4]
            await server.ask("HSET", shelf, id, b"damaged")

    asyncio.run(damage())

    def about_records(*options: str) -> list[str]:
        run("doctor", "--port", "0", "--json", *options)
        findings = json.loads(capsys.readouterr().out)
        return [
            each["observed"] for each in findings if each["subject"].startswith(("session ", "records of sessions"))
        ]

    assert about_records() == ["a session record is damaged: it is too short", "1 damaged"]
    assert about_records("--set-aside")[-1] == "1 of 1 damaged ones are set aside"
    assert about_records() == ["0 damaged"]


def test_the_doctor_says_how_a_directory_without_checksums_gets_some(capsys: Capture, tmp_path: Path) -> None:
    async def make() -> None:
        async with FileSystemSessionStorage(tmp_path / "data", codec=PLAIN_RECORDS):
            pass

    asyncio.run(make())

    run("doctor", "--port", "0", "--json")

    findings = [each for each in json.loads(capsys.readouterr().out) if each["subject"] == "records of sessions"]
    assert "carry no checksums" in findings[0]["observed"]
    assert "roomkey storage copy" in findings[0]["advice"]


def test_config_shows_where_documents_are_stored(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOMKEY_STORAGE_DOCUMENTS", "lmdb:///srv/notes")

    run("config", "--json")
    by_variable = json.loads(capsys.readouterr().out)
    run("config", "--documents", "memory", "--json")
    by_flag = json.loads(capsys.readouterr().out)

    shown = {"name": "storage.documents", "value": "lmdb:///srv/notes", "source": "ROOMKEY_STORAGE_DOCUMENTS"}
    assert shown in by_variable
    assert {"name": "storage.documents", "value": "memory", "source": "--documents"} in by_flag


def test_a_server_that_is_away_is_exit_code_3(capsys: Capture, taken_port: int) -> None:
    # Somebody listens there, but nobody answers within the patience of the command; port 1 has nobody at all.
    assert taken_port
    code = run("sessions", "list", "--url", "http://127.0.0.1:1")

    assert code == Exit.AWAY
    assert "no answer from http://127.0.0.1:1" in capsys.readouterr().err


def test_the_contract_is_printed(capsys: Capture) -> None:
    code = run("openapi")

    assert code == Exit.DONE
    assert json.loads(capsys.readouterr().out)["openapi"].startswith("3.1")


def test_what_is_said_on_sockets_and_by_hooks_is_printed(capsys: Capture) -> None:
    code = run("asyncapi")

    assert code == Exit.DONE
    assert json.loads(capsys.readouterr().out)["asyncapi"] == "3.0.0"


def test_settings_are_found_by_words(capsys: Capture) -> None:
    found = run("settings", "idle session", "--json")
    names = [line["name"] for line in json.loads(capsys.readouterr().out)]
    page = run("settings", "--markdown")
    said = capsys.readouterr().out
    nothing = run("settings", "nonsense")

    assert (found, page, nothing) == (Exit.DONE, Exit.DONE, Exit.FAILED)
    assert "sessions.idle_timeout" in names
    assert said.startswith("# Settings\n")
    assert "no setting mentions nonsense" in capsys.readouterr().err


def test_the_messages_are_printed(capsys: Capture) -> None:
    code = run("messages")

    assert code == Exit.DONE
    assert json.loads(capsys.readouterr().out)["$id"] == "urn:roomkey:ws"


def test_the_benchmark_measures_four_commands_on_two_storages(capsys: Capture) -> None:
    code = run("bench", "--count", "200", "--json")

    measured = json.loads(capsys.readouterr().out)
    assert code == Exit.DONE
    assert [(line["storage"], line["command"]) for line in measured] == [
        (storage, command) for storage in ("memory", "file") for command in ("create", "get", "update", "delete")
    ]
    assert all(line["per_second"] > 0 for line in measured)


def test_the_benchmark_is_a_table_for_people(capsys: Capture) -> None:
    run("bench", "--count", "10")

    assert "per second" in capsys.readouterr().out


def test_on_a_storage_itself_no_server_is_needed(capsys: Capture, tmp_path: Path) -> None:
    storage = ("--storage", f"lmdb://{tmp_path / 'store'}", "--json")

    run("sessions", "create", "alice", "--grant", "notes/**:write", "--lifetime", "2h", *storage)
    issued = json.loads(capsys.readouterr().out)
    id = issued["session"]["id"]
    for command, state in (
        ("activate", "active"),
        ("suspend", "suspended"),
        ("resume", "active"),
        ("extend", "active"),
    ):
        assert run("sessions", command, id, *storage) == Exit.DONE
        assert json.loads(capsys.readouterr().out)["state"] == state
    assert run("sessions", "rotate", id, *storage) == Exit.DONE
    assert json.loads(capsys.readouterr().out)["token"] != issued["token"]
    assert run("sessions", "list", "--user", "alice", *storage) == Exit.DONE
    assert [each["id"] for each in json.loads(capsys.readouterr().out)["sessions"]] == [id]
    assert run("sessions", "revoke-user", "alice", *storage) == Exit.DONE
    assert json.loads(capsys.readouterr().out)["revoked"] == 1
    assert run("sessions", "show", id, *storage) == Exit.DONE
    assert json.loads(capsys.readouterr().out)["state"] == "invalidated"
    assert run("sessions", "delete", id, *storage) == Exit.DONE
    capsys.readouterr()
    assert run("sessions", "show", id, *storage) == Exit.FAILED
    assert "not_found" in capsys.readouterr().err


def test_the_risk_of_a_session_is_explained_in_words(capsys: Capture, tmp_path: Path) -> None:
    storage = ("--storage", f"lmdb://{tmp_path / 'store'}")
    run("sessions", "create", "alice", "--activate", "--json", *storage)
    id = json.loads(capsys.readouterr().out)["session"]["id"]

    code = run("sessions", "risk", id, *storage)
    shown = capsys.readouterr().out

    assert code == Exit.DONE
    assert "allow" in shown
    assert "0.0 count, 0 were recorded" in shown


def test_grants_are_replaced_or_all_taken_away(capsys: Capture, tmp_path: Path) -> None:
    storage = ("--storage", f"lmdb://{tmp_path / 'store'}", "--json")
    run("sessions", "create", "alice", "--grant", "**:admin", *storage)
    id = json.loads(capsys.readouterr().out)["session"]["id"]

    code = run("sessions", "grants", id, "--grant", "notes/a:b:read", "--grant", "notes/**:write", *storage)
    given = json.loads(capsys.readouterr().out)["grants"]
    run("sessions", "grants", id, "--no-grants", *storage)
    taken = json.loads(capsys.readouterr().out)["grants"]

    assert code == Exit.DONE
    assert given == [{"documents": "notes/a:b", "access": "read"}, {"documents": "notes/**", "access": "write"}]
    assert taken == []


def test_what_the_state_does_not_allow_is_said_and_fails(capsys: Capture, tmp_path: Path) -> None:
    storage = ("--storage", f"lmdb://{tmp_path / 'store'}")
    run("sessions", "create", "alice", "--json", *storage)
    id = json.loads(capsys.readouterr().out)["session"]["id"]

    code = run("sessions", "resume", id, *storage)

    said = capsys.readouterr().err
    assert code == Exit.FAILED
    assert "pending" in said


def test_a_session_is_given_more_time_as_the_help_says(capsys: Capture, tmp_path: Path) -> None:
    storage = ("--storage", f"lmdb://{tmp_path / 'store'}", "--json")
    run("sessions", "create", "alice", "--lifetime", "1h", *storage)
    before = json.loads(capsys.readouterr().out)["session"]

    code = run("sessions", "extend", before["id"], "2h", *storage)

    after = json.loads(capsys.readouterr().out)
    assert code == Exit.DONE
    gained = datetime.fromisoformat(after["expires_at"]) - datetime.fromisoformat(before["expires_at"])
    assert timedelta(hours=1) <= gained < timedelta(hours=1, minutes=5)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("create", ""), "user_id: "),
        (("create", "alice", "--grant", "notes/**:own"), "grants/0/access: "),
        (("create", "alice", "--device", "x" * 200), "client/device: "),
        (("list", "--limit", "501"), "limit: "),
    ],
)
def test_a_value_that_is_refused_is_told_with_its_field_and_the_reason(
    arguments: tuple[str, ...], field: str, capsys: Capture, tmp_path: Path
) -> None:
    code = run("sessions", *arguments, "--storage", f"lmdb://{tmp_path / 'store'}")

    (line,) = capsys.readouterr().err.splitlines()
    assert code == Exit.FAILED
    assert field in line
    assert len(line.partition(field)[2]) > 10


def test_users_are_shown_as_they_are_called(capsys: Capture, tmp_path: Path) -> None:
    storage = ("--storage", f"lmdb://{tmp_path / 'store'}")
    run("sessions", "create", "[red]alice/bob[/red] 日本", *storage)
    capsys.readouterr()

    run("sessions", "list", "--user", "[red]alice/bob[/red] 日本", *storage)

    assert "[red]alice/bob[/red] 日本" in capsys.readouterr().out


def test_a_storage_that_cannot_be_opened_is_away(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a directory")

    code = run("sessions", "list", "--storage", f"lmdb://{tmp_path / 'store'}")

    assert code in (Exit.AWAY, Exit.USAGE)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_doctor_notices_files_for_tls_that_cannot_be_used(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    made, other = make_certificates(tmp_path), make_certificates(tmp_path / "other")
    for cert, key, observed in (
        (made.certificate, tmp_path / "nowhere.key", "{key} cannot be read: no such file or directory"),
        (made.key, made.key, "{cert} and {key} are not a certificate and a key in PEM"),
        (made.certificate, other.key, "{cert} and {key} do not belong together"),
        (made.certificate, made.key, "{cert} and its key can be read"),
    ):
        run("doctor", "--port", "0", "--tls-cert", str(cert), "--tls-key", str(key), "--json")

        findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
        assert observed.format(cert=cert, key=key) in findings["TLS"]["observed"]


def test_debug_leaves_an_error_to_the_interpreter_which_shows_where_it_comes_from() -> None:
    with pytest.raises(ConfigurationError):
        run("config", "--storage", "cloud", "--debug")


# --- stored keys --------------------------------------------------------------------------------------


def test_a_stored_key_is_shown_once_with_what_narrows_it(capsys: Capture) -> None:
    where = ("--storage", "memory", "--json")
    narrowed = ("--scope", "sessions:read", "--only-users", "tenant-1:", "--lifetime", "1d")

    code = run("keys", "create", "desk", "--role", "support", *narrowed, *where)
    made = json.loads(capsys.readouterr().out)
    run("keys", "list", *where)
    listed = json.loads(capsys.readouterr().out)

    assert code == Exit.DONE
    assert made["secret"].startswith("rkey_")
    assert made["key"]["only"] == {"scopes": ["sessions:read"], "documents": None, "users": ["tenant-1:"]}
    assert made["key"]["created_by"] == "key:command-line"
    assert [key["name"] for key in listed["keys"]] == ["command-line"]  # in memory, each command has its own


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("create", "desk", "--scope", "everything"), Exit.FAILED),
        (("create", "a/b"), Exit.FAILED),
        (("create", "desk", "--lifetime", "soon"), Exit.USAGE),
        (("rotate", "none", "--overlap", "soon"), Exit.USAGE),
        (("rotate", "none"), Exit.FAILED),
        (("revoke", "command-line"), Exit.FAILED),
        (("show", "none"), Exit.FAILED),
    ],
)
def test_what_cannot_be_done_with_a_key_is_said(arguments: tuple[str, ...], code: Exit, capsys: Capture) -> None:
    assert run("keys", *arguments, "--storage", "memory") == code
    assert capsys.readouterr().err.startswith("roomkey: ")
