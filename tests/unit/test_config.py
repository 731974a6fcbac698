import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from roomkey.config import NOT_SETTINGS, Config, describe, load, secrets_apart
from roomkey.domain.access import EVERYTHING_WRITABLE, Access, Grant, Role
from roomkey.domain.policy import OnCap
from roomkey.errors import ConfigurationError
from roomkey.security import masterkey
from roomkey.security.apikeys import ApiKey
from roomkey.settings import SourcedValue

NO_FILE = Path("/dev/null")
A_KEY = f"backend:service:{'ab' * 32}"


def configured(
    text: str = "",
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, SourcedValue] | None = None,
    folder: Path | None = None,
) -> Config:
    file = NO_FILE
    if folder is not None:
        file = folder / "roomkey.toml"
        file.write_text(text)
    return load(file, flags, environment or {})


def problems_of(
    text: str = "", *, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        configured(text, environment=environment, folder=folder)
    return caught.value.problems


def test_without_anything_the_defaults_hold() -> None:
    config = configured()

    assert (config.server.host, config.server.port) == ("127.0.0.1", 3000)
    assert config.sessions.lifetime == timedelta(hours=24)


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    text = '[server]\nport = 1\nbacklog = 11\nhost = "::1"'
    environment = {"ROOMKEY_SERVER_PORT": "2", "ROOMKEY_SERVER_BACKLOG": "22"}
    flags = {"server.port": SourcedValue(3, "--port")}

    config = configured(text, environment=environment, flags=flags, folder=tmp_path)

    assert (config.server.port, config.server.backlog, config.server.host) == (3, 22, "::1")


def test_it_is_known_where_each_value_came_from(tmp_path: Path) -> None:
    text = "[server]\nbacklog = 11"
    environment = {"SESSION_TTL": "60"}
    flags = {"server.port": SourcedValue(3, "--port")}

    config = configured(text, environment=environment, flags=flags, folder=tmp_path)
    sources = {line.name: line.source for line in describe(config)}

    assert sources["server.port"] == "--port"
    assert sources["sessions.lifetime"] == "SESSION_TTL"
    assert sources["server.backlog"] == str(tmp_path / "roomkey.toml")
    assert sources["server.host"] == "default"


@pytest.mark.parametrize(
    ("variable", "value", "setting", "expected"),
    [
        ("SESSION_TTL", "3600", "sessions.lifetime", timedelta(hours=1)),
        ("SESSION_STORAGE", "memory", "storage.url", "memory"),
        ("ROOMKEY_SESSIONS_LIFETIME", "90d", "sessions.lifetime", timedelta(days=90)),
        ("ROOMKEY_SESSIONS_IDLE_TIMEOUT", "off", "sessions.idle_timeout", None),
        ("ROOMKEY_SESSIONS_ON_CAP", "refuse", "sessions.on_cap", OnCap.REFUSE),
        ("ROOMKEY_SESSIONS_MAX_METADATA_BYTES", "64KiB", "sessions.max_metadata_bytes", 65536),
        ("ROOMKEY_SERVER_DEV", "true", "server.dev", True),
        ("ROOMKEY_SECURITY_ALLOWED_ORIGINS", "https://a.example, https://b.example", "security.allowed_origins",
         ("https://a.example", "https://b.example")),
        ("ROOMKEY_ACCESS_DEFAULT_GRANTS", "notes/**:write", "access.default_grants",
         (Grant("notes/**", Access.WRITE),)),
    ],
)  # fmt: skip
def test_the_environment_is_read_in_its_usual_notations(
    variable: str, value: str, setting: str, expected: object
) -> None:
    section, _, name = setting.partition(".")

    config = configured(environment={variable: value})

    assert getattr(getattr(config, section), name) == expected


def test_an_empty_variable_is_no_variable() -> None:
    assert configured(environment={"SESSION_TTL": ""}) == configured()


def test_grants_may_be_tables_of_the_file(tmp_path: Path) -> None:
    text = '[[access.default_grants]]\ndocuments = "notes/*"\naccess = "read"'

    config = configured(text, folder=tmp_path)

    assert config.default_grants == (Grant("notes/*", Access.READ),)


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    text = '[server]\nprot = 3\nport = "many"\n[sesions]\ncap = 1\n[sessions]\nlifetime = "soon"'

    problems = problems_of(text, environment={"ROOMKEY_SESSIONS_CAP": "0"}, folder=tmp_path)

    assert len(problems) == 5
    together = "\n".join(problems)
    for part in ("server.prot", "did you mean port?", "server.port", "sesions", "sessions.lifetime", "sessions.cap"):
        assert part in together


@pytest.mark.parametrize(("kind", "variable"), [("redis", "REDIS_URL"), ("database", "DATABASE_URL")])
def test_a_storage_on_a_server_says_which_variable_is_missing(kind: str, variable: str) -> None:
    (problem,) = problems_of(environment={"SESSION_STORAGE": kind})

    assert variable in problem


@pytest.mark.parametrize(
    ("kind", "variable", "url"),
    [("redis", "REDIS_URL", "redis://cache:6379/0"), ("database", "DATABASE_URL", "postgresql://me@db/rooms")],
)
def test_a_storage_on_a_server_is_where_its_variable_says(kind: str, variable: str, url: str) -> None:
    config = configured(environment={"ROOMKEY_STORAGE_DOCUMENTS": kind, "SESSION_STORAGE": "memory", variable: url})

    assert config.storage.location == "memory://"
    assert config.storage.documents_location == url


def test_a_password_stands_in_a_variable_of_its_own_or_the_whole_url_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://me:s3cret@db/x\n")

    apart = configured(environment={"SESSION_STORAGE": "postgresql://me@db/x", "ROOMKEY_STORAGE_PASSWORD": "s3cret"})
    in_file = configured(environment={"ROOMKEY_STORAGE_URL_FILE": str(file)})

    assert apart.storage.location == in_file.storage.location == "postgresql://me:s3cret@db/x"
    for config in (apart, in_file):
        assert "s3cret" not in repr(config)
        assert not any("s3cret" in line.value for line in describe(config))
    assert {line.name: line.source for line in describe(in_file)}["storage.url"] == str(file)


@pytest.mark.parametrize(
    ("environment", "setting"),
    [
        ({"ROOMKEY_STORAGE_URL_FILE": "/nowhere/url"}, "storage.url_file"),
        ({"ROOMKEY_STORAGE_URL_FILE": "/dev/null", "SESSION_STORAGE": "memory"}, "storage.url_file"),
        ({"ROOMKEY_STORAGE_PASSWORD": "s3cret"}, "storage.password"),
        ({"ROOMKEY_STORAGE_PASSWORD": "s3cret", "SESSION_STORAGE": "redis://:s3cret@a"}, "storage.password"),
        ({"REDIS_URL": "cache:s3cret"}, "storage.redis_url"),
        ({"DATABASE_URL": "redis://:s3cret@cache"}, "storage.database_url"),
    ],
)
def test_what_is_wrong_with_the_url_of_a_server_is_said_without_showing_it(
    environment: Mapping[str, str], setting: str
) -> None:
    (problem,) = problems_of(environment=environment)

    assert setting in problem
    assert "s3cret" not in problem


@pytest.mark.parametrize(
    ("environment", "is_refused"),
    [
        ({"SESSION_STORAGE": "postgresql://db/x"}, True),
        ({"SESSION_STORAGE": "redis", "REDIS_URL": "redis+cluster://a,b"}, True),
        ({"SESSION_STORAGE": "postgresql://db/x", "ROOMKEY_MASTER_KEY": "k" * 40}, False),
        ({"SESSION_STORAGE": "postgresql://db/x", "ROOMKEY_MASTER_KEY_FILE": "/run/secrets/key"}, False),
        ({"SESSION_STORAGE": "postgresql://db/x", "ROOMKEY_SERVER_DEV": "1"}, False),
        ({"SESSION_STORAGE": "memory", "ROOMKEY_STORAGE_DOCUMENTS": "postgresql://db/x"}, False),
        ({"SESSION_STORAGE": "sqlite:////srv/rooms.db"}, False),
    ],
)
def test_nodes_on_a_server_need_a_key_that_all_of_them_have(
    environment: Mapping[str, str], *, is_refused: bool
) -> None:
    problems = [*secrets_apart(configured(environment=environment))]

    assert ["security.master_key" in problem for problem in problems] == [True] * is_refused
    if is_refused:
        with pytest.raises(ConfigurationError, match=r"security\.master_key"):
            load(NO_FILE, {}, environment, listening=True)


def test_a_database_in_a_file_has_its_key_beside_it(tmp_path: Path) -> None:
    config = configured(environment={"SESSION_STORAGE": f"sqlite:///{tmp_path}/rooms.db"})

    assert config.master_key() is not None
    assert (tmp_path / masterkey.FILE_NAME).is_file()


def test_a_storage_that_nobody_knows_is_refused() -> None:
    (problem,) = problems_of(environment={"SESSION_STORAGE": "cloud"})

    assert "'cloud'" in problem


def test_documents_are_stored_with_the_sessions_unless_something_else_is_said(tmp_path: Path) -> None:
    apart = configured('[storage]\nurl = "memory"\ndocuments = "lmdb:///srv/notes"', folder=tmp_path)
    by_variable = configured(
        environment={"SESSION_STORAGE": "lmdb:///srv/rooms", "ROOMKEY_STORAGE_DOCUMENTS": "memory"}
    )
    together = configured(environment={"SESSION_STORAGE": "lmdb:///srv/rooms"})

    assert (apart.storage.location, apart.storage.documents_location) == ("memory://", "lmdb:///srv/notes")
    assert (by_variable.storage.location, by_variable.storage.documents_location) == ("lmdb:///srv/rooms", "memory://")
    assert (together.storage.location, together.storage.documents_location) == ("lmdb:///srv/rooms",) * 2


def test_the_directory_of_files_is_that_of_documents_too() -> None:
    environment = {"SESSION_STORAGE": "memory", "ROOMKEY_STORAGE_DOCUMENTS": "file"}

    config = configured(environment={**environment, "ROOMKEY_STORAGE_DIRECTORY": "/srv/data"})

    assert config.storage.folder is None
    assert config.storage.documents_location == "lmdb:///srv/data"
    assert config.storage.documents_folder == Path("/srv/data/documents")


@pytest.mark.parametrize("documents", ["redis", "cloud", "cloud://somewhere", "lmdb://", "memory://x", "off"])
def test_a_storage_of_documents_that_cannot_be_is_named_with_all_other_problems(documents: str) -> None:
    problems = problems_of(environment={"SESSION_STORAGE": "cloud", "ROOMKEY_STORAGE_DOCUMENTS": documents})

    assert [problem.partition(":")[0] for problem in problems] == ["storage.url", "storage.documents"]


def test_a_storage_that_cannot_be_is_one_problem_if_documents_are_to_be_there_too() -> None:
    (problem,) = problems_of(environment={"SESSION_STORAGE": "cloud", "ROOMKEY_STORAGE_DOCUMENTS": "same"})

    assert problem.startswith("storage.url")


@pytest.mark.parametrize(
    "sessions", ["lmdb:///srv/documents", "lmdb:///srv/notes/../documents", "LMDB:///srv/documents/"]
)
def test_sessions_and_documents_may_not_be_stored_in_the_same_files(sessions: str) -> None:
    (problem,) = problems_of(environment={"SESSION_STORAGE": sessions, "ROOMKEY_STORAGE_DOCUMENTS": "lmdb:///srv"})

    assert problem.startswith("storage.documents")


def test_sessions_and_documents_may_be_in_two_directories_of_one_storage_each() -> None:
    environment = {"SESSION_STORAGE": "lmdb:///srv/rooms", "ROOMKEY_STORAGE_DOCUMENTS": "lmdb:///srv/notes"}

    config = configured(environment=environment)

    assert (config.storage.folder, config.storage.documents_folder) == (
        Path("/srv/rooms"),
        Path("/srv/notes/documents"),
    )


def test_schemes_may_be_written_in_capitals(tmp_path: Path) -> None:
    config = configured(environment={"SESSION_STORAGE": f"LMDB://{tmp_path / 'data'}"})

    assert config.storage.folder == tmp_path / "data"
    assert config.master_key() is not None


def test_two_variables_must_not_contradict_each_other() -> None:
    (problem,) = problems_of(environment={"SESSION_STORAGE": "memory", "ROOMKEY_STORAGE_URL": "file"})

    assert "SESSION_STORAGE" in problem
    assert "ROOMKEY_STORAGE_URL" in problem


@pytest.mark.parametrize(
    "environment",
    [
        {"ROOMKEY_SERVER_PORT": "65536"},
        {"ROOMKEY_SERVER_TLS_CERT": "a.pem"},
        {"ROOMKEY_SERVER_TLS_CLIENT_CA": "a.pem"},
        {"ROOMKEY_MASTER_KEY": "k" * 40, "ROOMKEY_MASTER_KEY_FILE": "/key"},
        {"SESSION_TTL": "0"},
        {"SESSION_TTL": "-1"},
        {"ROOMKEY_SESSIONS_PRESET": "aal9"},
        {"ROOMKEY_ACCESS_DEFAULT_GRANTS": ":write"},
        {"ROOMKEY_CONFIG": "/nowhere/roomkey.toml"},
    ],
)
def test_what_cannot_be_is_refused_with_one_problem(environment: Mapping[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(None, {}, environment)

    assert len(caught.value.problems) == 1


ISSUER = '{"issuer": "https://a.example", "audience": "rooms", "key_set": "https://a.example/keys", "max_age": "30m"}'


@pytest.mark.parametrize(
    "environment",
    [
        {"ROOMKEY_SERVER_HOST": "0.0.0.0"},
        {"ROOMKEY_SERVER_HOST": "::"},
        {"ROOMKEY_SERVER_HOST": "rooms.example"},
        {"ROOMKEY_SERVER_HOST": "0.0.0.0", "ROOMKEY_SERVER_DEV": "true", "ROOMKEY_API_KEYS": A_KEY},
    ],
)
def test_without_keys_or_in_development_only_this_machine_may_connect(environment: Mapping[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="listens on this machine only"):
        load(NO_FILE, {}, environment, listening=True)


@pytest.mark.parametrize(
    "environment",
    [
        {"ROOMKEY_SERVER_HOST": "0.0.0.0", "ROOMKEY_API_KEYS": A_KEY},
        {"ROOMKEY_SERVER_HOST": "0.0.0.0", "ROOMKEY_SECURITY_ISSUERS": f"[{ISSUER}]"},
        {"ROOMKEY_SERVER_HOST": "::1", "ROOMKEY_SERVER_DEV": "true"},
        {"ROOMKEY_SERVER_HOST": "localhost"},
    ],
)
def test_with_keys_or_issuers_anyone_may_connect_and_without_this_machine(environment: Mapping[str, str]) -> None:
    load(NO_FILE, {}, environment, listening=True)


@pytest.mark.parametrize(
    ("issuers", "retention", "problem"),
    [
        (f"[{ISSUER}, {ISSUER}]", "90d", "is there twice"),
        (f"[{ISSUER}, {ISSUER.replace('a.example', 'b.example')}]", "90d", "need a user_prefix each"),
        (f"[{ISSUER}]", "30m", "max_age must be at most janitor.event_retention, which is 30m"),
        (f"[{ISSUER.replace('https://a.example/keys', 'http://a.example/keys')}]", "90d", "https:// only"),
        (f"[{ISSUER.replace('max_age', 'max_ages')}]", "90d", "did you mean max_age"),
    ],
)
def test_issuers_that_let_in_the_wrong_ones_are_refused(issuers: str, retention: str, problem: str) -> None:
    environment = {"ROOMKEY_SECURITY_ISSUERS": issuers, "ROOMKEY_JANITOR_EVENT_RETENTION": retention}

    with pytest.raises(ConfigurationError, match=problem):
        load(NO_FILE, {}, environment)


def test_keys_are_read_from_a_variable_and_from_tables(tmp_path: Path) -> None:
    name, role, digest = A_KEY.split(":")
    table = f'[[security.api_keys]]\nname = "{name}"\nrole = "{role}"\ndigest = "{digest}"'

    from_variable = configured(environment={"ROOMKEY_API_KEYS": f"{A_KEY},other:admin:{'cd' * 32}"})
    from_table = configured(table, folder=tmp_path)

    assert from_table.security.api_keys == (ApiKey(name, Role.SERVICE, digest),)
    assert from_variable.security.api_keys[0] == from_table.security.api_keys[0]
    assert len(from_variable.security.api_keys) == 2


def test_one_key_cannot_have_two_names() -> None:
    (problem,) = problems_of(environment={"ROOMKEY_API_KEYS": f"a:admin:{'ab' * 32},b:admin:{'ab' * 32}"})

    assert "security.api_keys" in problem


def test_what_holds_for_all_components_is_set_in_one_place(tmp_path: Path) -> None:
    (problem,) = problems_of("[api]\nallowed_origins = []", folder=tmp_path)

    assert "set security.allowed_origins" in problem


def test_the_schema_of_a_message_type_stands_in_the_file_or_in_one_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "vote.json").write_text('{"type": "object"}')
    text = '[realtime.message_types]\nvote = "vote.json"\npoll = {type = "object"}'

    config = configured(text, folder=tmp_path)

    assert config.realtime.message_types == {"vote": {"type": "object"}, "poll": {"type": "object"}}


@pytest.mark.parametrize("content", [None, "{"])
def test_a_schema_that_cannot_be_read_is_a_problem(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "vote.json").write_text(content)

    (problem,) = problems_of('[realtime.message_types]\nvote = "vote.json"', folder=tmp_path)

    assert "realtime.message_types.vote" in problem


def test_a_preset_stands_for_several_settings_and_each_may_be_changed() -> None:
    config = configured(environment={"ROOMKEY_SESSIONS_PRESET": "aal3", "ROOMKEY_SESSIONS_IDLE_TIMEOUT": "5m"})

    assert config.sessions.lifetime == timedelta(hours=12)
    assert config.sessions.idle_timeout == timedelta(minutes=5)


def test_development_makes_everything_writable_unless_grants_are_given() -> None:
    open_to_all = configured(environment={"ROOMKEY_SERVER_DEV": "1"})
    stated = configured(environment={"ROOMKEY_SERVER_DEV": "1", "ROOMKEY_ACCESS_DEFAULT_GRANTS": "a:read"})

    assert open_to_all.default_grants == EVERYTHING_WRITABLE
    assert stated.default_grants == (Grant("a", Access.READ),)


def test_a_misspelt_variable_is_refused_as_a_misspelt_setting_is() -> None:
    (problem,) = problems_of(environment={"ROOMKEY_SESSIONS_CAPP": "3"})

    assert problem == "ROOMKEY_SESSIONS_CAPP: there is no such variable, did you mean ROOMKEY_SESSIONS_CAP?"


def test_variables_that_set_nothing_are_known() -> None:
    assert configured(environment=dict.fromkeys(NOT_SETTINGS - {"ROOMKEY_CONFIG"}, "x")) == configured()


def test_every_variable_that_the_repository_names_is_known() -> None:
    root = Path(__file__).parents[2]
    pages = [*root.glob("*.md"), *(root / "docs").glob("*.md"), *(root / "script").iterdir(), root / ".ci" / "run"]

    named = {name for page in pages for name in re.findall(r"ROOMKEY_[A-Z_]*[A-Z]\b", page.read_text("utf-8"))}

    problems = problems_of(environment=dict.fromkeys(named, "x"))

    assert [problem for problem in problems if "no such variable" in problem] == []


def test_what_kubernetes_says_about_services_of_our_name_is_not_ours() -> None:
    of_services = {
        f"{service}_{name}": value
        for service in ("ROOMKEY", "ROOMKEY_SERVER", "ROOMKEY_BLUE")
        for name, value in {
            "SERVICE_HOST": "10.0.0.7",
            "SERVICE_PORT": "3000",
            "SERVICE_PORT_HTTP": "3000",
            "PORT": "tcp://10.0.0.7:3000",
            "PORT_3000_TCP": "tcp://10.0.0.7:3000",
            "PORT_3000_TCP_PROTO": "tcp",
            "PORT_3000_TCP_PORT": "3000",
            "PORT_3000_TCP_ADDR": "10.0.0.7",
        }.items()
    }

    assert configured(environment=of_services) == configured()


def test_the_master_key_is_not_shown() -> None:
    key = "correct horse battery staple and more"
    config = configured(environment={"ROOMKEY_MASTER_KEY": key})

    shown = [line.value for line in describe(config)]

    assert not any(key in value for value in shown)
    assert key not in repr(config)
    assert "<hidden>" in shown


def test_a_storage_in_a_directory_gets_a_key_file_that_stays(tmp_path: Path) -> None:
    config = configured(environment={"ROOMKEY_STORAGE_DIRECTORY": str(tmp_path / "data")})

    first, second = config.master_key(), config.master_key()

    assert first is not None
    assert first == second
    assert (tmp_path / "data" / masterkey.FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(masterkey.generate())
    file.chmod(0o640)
    config = configured(environment={"ROOMKEY_MASTER_KEY_FILE": str(file)})

    with pytest.raises(ConfigurationError, match="chmod 600"):
        config.master_key()


def test_a_storage_in_memory_needs_no_key() -> None:
    assert configured(environment={"SESSION_STORAGE": "memory"}).master_key() is None


def test_keys_for_different_purposes_have_nothing_in_common() -> None:
    master = masterkey.generate().encode()

    assert masterkey.derive(master, "tokens") == masterkey.derive(master, "tokens")
    assert masterkey.derive(master, "tokens") != masterkey.derive(master, "audit")


def test_the_effective_configuration_can_be_written_down_and_read_again(tmp_path: Path) -> None:
    before = configured(
        environment={
            "ROOMKEY_SESSIONS_PRESET": "aal1",
            "ROOMKEY_SECURITY_ALLOWED_ORIGINS": "https://a.example,https://b.example",
        }
    )
    written = {f"ROOMKEY_{line.name.replace('.', '_')}".upper(): line.value for line in describe(before)}

    after = configured(environment=written, folder=tmp_path)

    assert [(line.name, line.value) for line in describe(after)] == [
        (line.name, line.value) for line in describe(before)
    ]


def test_a_home_directory_that_does_not_exist_is_a_problem_of_the_setting() -> None:
    overrides = {"security.master_key_file": SourcedValue("~nobody-is-called-so/key", "--set")}

    with pytest.raises(ConfigurationError, match="there is no home directory for '~nobody-is-called-so/key'"):
        configured(flags=overrides)
