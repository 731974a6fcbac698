"""What no server should run with that others depend on: each rule is broken by something, and the example by none."""

import json
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from roomkey.cli import main
from roomkey.cli.outcome import Exit
from roomkey.config import Config, load
from roomkey.production import LIMITS, RULES, TOO_HIGH, Rule, Verdict, unsafe_settings
from roomkey.security import masterkey
from roomkey.settings import SourcedValue
from tests.support.pages import ROOT, blocks

PAGE: Final = ROOT / "docs" / "security" / "production.md"

(EXAMPLE,) = [block.text for block in blocks(PAGE) if block.language == "toml"]
"""The configuration on the page, which breaks no rule."""

WITNESS: Final = tomllib.loads(EXAMPLE)["audit"]["witnesses"]

REMOTE: Final = "rediss://redis.example.com"


class Case(NamedTuple):
    """Changes to the example (``None``: not set) that break the rule of a setting whose ``why`` has these words."""

    setting: str
    words: str
    changes: Mapping[str, Any]

    def is_about(self, rule: Rule) -> bool:
        return rule.setting == self.setting and self.words in rule.why


def beyond(setting: str, factor: float = TOO_HIGH + 1) -> Any:
    section, _, name = setting.partition(".")
    value: Any = getattr(getattr(Config(), section), name)
    return f"{value.total_seconds() * factor:.0f}s" if isinstance(value, timedelta) else int(value * factor)


REPLICATED: Final = {"storage.wait_replicas": 1}

OPEN: Final = {"server.host": "0.0.0.0"}

CASES: Final = (
    Case("server.dev", "everybody on this machine", {"server.dev": True}),
    Case("server.tls_cert", "cross the network", {**OPEN, "server.trusted_proxies": None}),
    Case("server.tls_cert", "no TLS, and no proxy", {"server.trusted_proxies": None}),
    Case("server.trusted_proxies", "header", {"server.trusted_proxies": ["127.0.0.1", "*"]}),
    Case("server.trusted_proxies", "header", {"server.trusted_proxies": ["0.0.0.0/1", "128.0.0.0/1"]}),
    Case("server.trusted_proxies", "header", {"server.trusted_proxies": ["::/0"]}),
    Case("server.allowed_hosts", "any host", {"server.allowed_hosts": None}),
    Case("server.allowed_hosts", "any host", {"server.allowed_hosts": ["*"]}),
    Case("api.public_url", "without TLS", {"api.public_url": "http://rooms.example.com"}),
    Case("security.api_keys", "none is configured", {"security.api_keys": None}),
    Case(
        "security.api_keys",
        "may do everything",
        {"security.api_keys": [{"name": "all", "role": "admin", "digest": "0" * 64}]},
    ),
    Case(
        "security.master_key",
        "key of all keys",
        {"security.master_key_file": None, "security.master_key": masterkey.generate()},
    ),
    Case("security.master_key_file", "no master key", {"security.master_key_file": None}),
    Case("security.master_key_file", "among the data", {"security.master_key_file": "/var/lib/roomkey/keys/key"}),
    Case("security.allowed_origins", "without TLS", {"security.allowed_origins": ["http://app.example.com"]}),
    Case("storage.url", "in memory", {"storage.url": "memory", "storage.documents": "file"}),
    Case("storage.documents", "in memory", {"storage.documents": "memory"}),
    Case("audit.url", "in memory", {"audit.url": "memory"}),
    Case("storage.url", "unencrypted", {"storage.url": "redis://redis.example.com"}),
    Case("storage.url", "unencrypted", {"storage.url": "postgresql://db.example.com/rooms"}),
    Case("storage.url", "unencrypted", {"storage.url": "postgresql://db.example.com/rooms?sslmode=prefer"}),
    Case("storage.url", "unencrypted", {"storage.url": "redis+cluster://[::1]:7000,10.0.0.7", **REPLICATED}),
    Case("storage.documents", "unencrypted", {"storage.documents": "mysql://db.example.com/rooms"}),
    Case("broker.url", "unencrypted", {"storage.url": REMOTE, "broker.url": "redis://redis.example.com"}),
    Case("audit.url", "unencrypted", {"audit.url": "postgresql://[2001:db8::7]:5432/rooms"}),
    Case("storage.url", "not verified", {"storage.url": "postgresql://db.example.com/rooms?sslmode=require"}),
    Case("storage.documents", "not verified", {"storage.documents": "mysql://db.example.com/rooms?sslmode=require"}),
    Case(
        "broker.url",
        "not verified",
        {"storage.url": REMOTE, "broker.url": "postgresql://db.example.com/rooms?sslmode=require"},
    ),
    Case("audit.url", "not verified", {"audit.url": "postgresql://db.example.com/rooms?sslmode=require"}),
    Case("storage.url", "a password", {"storage.url": "rediss://me:secret@redis.example.com"}),
    Case("storage.documents", "a password", {"storage.documents": "rediss://me:secret@redis.example.com"}),
    Case("storage.redis_url", "a password", {"storage.redis_url": "rediss://me:secret@redis.example.com"}),
    Case("storage.database_url", "a password", {"storage.database_url": "postgresql://me:secret@localhost/rooms"}),
    Case("broker.url", "a password", {"storage.url": REMOTE, "broker.url": "rediss://me:secret@redis.example.com"}),
    Case("audit.url", "a password", {"audit.url": "rediss://me:secret@redis.example.com"}),
    Case("storage.password", "the password", {"storage.url": REMOTE, "storage.password": "secret"}),
    Case("storage.wait_replicas", "failover", {"storage.url": "rediss+sentinel://a.example.com/main"}),
    Case("encryption.mode", "not encrypted", {"encryption.mode": "off"}),
    Case("encryption.mode", "on a server", {"encryption.mode": "auto", "storage.url": REMOTE}),
    Case("encryption.unsealed", "from before", {"encryption.unsealed": "auto"}),
    Case("encryption.key", "environment", {"encryption.key": "env:KEY"}),
    Case("encryption.previous_key", "old key", {"encryption.previous_key": "master", "encryption.key": "file:/key"}),
    Case("audit.record", "nobody can say", {"audit.record": "off"}),
    Case("audit.witnesses", "nobody outside", {"audit.witnesses": None, "audit.quorum": None}),
    Case("audit.quorum", "no witness has signed", {"audit.quorum": 0}),
    Case("audit.public_tree", "anybody can see", {"audit.public_tree": True}),
    Case("audit.remembered_head", "beside the log", {"audit.remembered_head": None}),
    Case("audit.end_sessions_when_behind", "operators", {"audit.end_sessions_when_behind": True}),
    Case("realtime.query_tokens", "URLs", {"realtime.query_tokens": True}),
    Case("realtime.awareness_identity", "somebody else", {"realtime.awareness_identity": "off"}),
    Case("access.default_grants", "may write", {"access.default_grants": [{"documents": "**", "access": "admin"}]}),
    Case("access.default_grants", "may write", {"access.default_grants": [{"documents": "***", "access": "write"}]}),
    Case("access.default_grants", "may read", {"access.default_grants": [{"documents": "**", "access": "read"}]}),
    Case("sessions.lifetime", "30 days", {"sessions.lifetime": "31d"}),
    Case("sessions.idle_timeout", "nobody uses", {"sessions.idle_timeout": "off"}),
    Case("sessions.idle_timeout", "nobody uses", {"sessions.idle_timeout": "24h"}),
    Case("sessions.rotation_grace", "stays good", {"sessions.rotation_grace": "10m"}),
    Case("sessions.on_reuse", "overlooks", {"sessions.reuse_window": "30s"}),
    Case("login.reauthentication_age", "open session", {"login.reauthentication_age": None}),
    Case("nodes.blind_grace", "sockets go on", {"nodes.blind_grace": "1h"}),
    Case("nodes.near_cache_age", "not noticed", {"nodes.near_cache_age": "1h"}),
    *(Case(setting, "no limit", {setting: beyond(setting)}) for setting in LIMITS),
    Case(
        "limits.max_failure_delay",
        "guesses",
        {"limits.max_failure_delay": "100ms", "limits.first_failure_delay": "100ms"},
    ),
    Case("limits.exempt_networks", "large part", {"limits.exempt_networks": ["10.0.0.0/8", "0.0.0.0/0"]}),
    Case(
        "threats.on_network_change",
        "goes on",
        {"threats.on_network_change": "ignore", "threats.on_program_change": "ignore"},
    ),
    Case("threats.on_key_change", "without the key", {"threats.on_key_change": "ignore"}),
    Case("threats.weights", "does not count", {"threats.weights": {"forged": 0}}),
    Case("inspection.identities", "ids and names", {"inspection.identities": "off"}),
    Case("inspection.free_text", "messages", {"inspection.free_text": "off"}),
    Case("log.level", "tells more", {"log.level": "debug"}),
    Case("log.level", "security events", {"log.level": "error"}),
    Case("log.access", "path", {"log.access": True}),
)

HARMLESS: Final[tuple[Mapping[str, Any], ...]] = (
    {},
    {**OPEN, "server.trusted_proxies": ["10.0.0.0/8", "fc00::/7"]},
    {**OPEN, "server.trusted_proxies": None, "server.tls_cert": "/cert.pem", "server.tls_key": "/key.pem"},
    {"security.master_key_file": "/var/lib/roomkey-key"},
    {"storage.url": "redis://localhost:6379"},
    {"storage.url": "redis+unix:///run/redis.sock"},
    {"storage.url": "redis://redis.example.com?tls=1"},
    {"storage.url": "rediss+sentinel://a.example.com/main", **REPLICATED},
    {"storage.url": "postgresql://me@[::1]:5432/rooms"},
    {"storage.url": "postgresql://me@db.example.com/rooms?sslmode=verify-full"},
    {"storage.url": "postgresql://me@db.example.com/rooms?sslrootcert=/ca.pem"},
    {"storage.url": "postgresql://me@db.example.com/rooms?sslmode=require&sslrootcert=/ca.pem"},
    {"encryption.mode": "auto"},
    {"access.default_grants": [{"documents": "public/**", "access": "write"}]},
    {"sessions.lifetime": "30d"},
    {"sessions.on_reuse": "revoke", "sessions.reuse_window": "30s"},
    {"threats.on_network_change": "ignore"},
    {"limits.exempt_networks": ["10.0.0.0/8"]},
    {"login.same_site": "strict"},
    {"log.level": "warning"},
    *({setting: beyond(setting, TOO_HIGH)} for setting in LIMITS),
)


@pytest.fixture(autouse=True)
def _a_place_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SESSION_TTL", "SESSION_STORAGE", "ROOMKEY_MASTER_KEY", "ROOMKEY_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def configuration(changes: Mapping[str, Any]) -> Config:
    """The example with these changes."""
    given = {
        f"{section}.{name}": value for section, table in tomllib.loads(EXAMPLE).items() for name, value in table.items()
    }
    given |= changes
    return load(
        overrides={name: SourcedValue(value, "a test") for name, value in given.items() if value is not None},
        environment={},
    )


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.setting}-{case.words}") for case in CASES])
def test_an_unsafe_setting_is_named_and_nothing_else(case: Case) -> None:
    found = [*unsafe_settings(configuration(case.changes))]

    assert [(finding.subject, case.words in finding.observed) for finding in found] == [(case.setting, True)]
    assert found[0].verdict in {Verdict.WARNING, Verdict.FAILED}
    assert found[0].advice


def test_every_rule_has_a_case_and_only_one_that_it_is_about() -> None:
    assert [rule for rule in RULES if not any(case.is_about(rule) for case in CASES)] == []
    assert [case for case in CASES if sum(case.is_about(rule) for rule in RULES) != 1] == []


@pytest.mark.parametrize("changes", HARMLESS, ids=str)
def test_what_is_safe_is_not_named(changes: Mapping[str, Any]) -> None:
    assert [*unsafe_settings(configuration(changes))] == []


def test_a_password_in_a_file_of_its_own_is_not_named(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("rediss://me:secret@redis.example.com\n")

    assert [*unsafe_settings(configuration({"storage.url_file": str(file)}))] == []


def test_the_defaults_are_safe_but_for_what_only_an_operator_knows() -> None:
    failed = {finding.subject for finding in unsafe_settings(Config()) if finding.verdict is Verdict.FAILED}

    # Where the key is safe that everything depends on.
    assert failed == {"encryption.mode"}


def test_the_page_has_the_rules_as_they_are() -> None:
    assert table() in PAGE.read_text("utf-8")


def table() -> str:
    """The rules as they stand on the page; those that say the same of several settings are one line."""
    settings: dict[tuple[Verdict, str, str], list[str]] = {}
    for rule in RULES:
        settings.setdefault((rule.verdict, rule.why, rule.advice), []).append(f"`{rule.setting}`")
    lines = [
        f"| {', '.join(names)} | {'fails' if verdict is Verdict.FAILED else 'warns'} | {why} | {advice} |"
        for (verdict, why, advice), names in settings.items()
    ]
    return "\n".join(["| setting | doctor | why | what to do |", "|---|---|---|---|", *lines, ""])


def installed(folder: Path) -> None:
    """The example as ``roomkey.toml``, with its places in ``folder``."""
    text = EXAMPLE
    for place in ("/etc/roomkey", "/var/lib/roomkey", "/mnt/audit"):
        here = folder / place[1:]
        here.mkdir(parents=True)
        text = text.replace(place, here.as_posix())
    (folder / "roomkey.toml").write_text(text, encoding="utf-8")
    key = folder / "etc" / "roomkey" / "master.key"
    key.write_text(masterkey.generate())
    key.chmod(0o600)


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict[str, str]]]:
    code = main(["doctor", "--port", "0", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def test_the_doctor_finds_nothing_unsafe_in_the_example(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    installed(tmp_path)

    code, findings = doctor(capsys, "--production")

    assert code == Exit.DONE
    assert {each["subject"] for each in findings} & {rule.setting for rule in RULES} == set()
    assert {each["subject"] for each in findings if each["verdict"] != "ok"} <= {"inspection", "open files", "disk"}


def test_the_doctor_fails_for_what_is_unsafe_in_production_only_if_asked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    installed(tmp_path)
    unsafe = ("--set", "realtime.query_tokens=true")

    code, findings = doctor(capsys, "--production", *unsafe)
    (named,) = [each for each in findings if each["subject"] == "realtime.query_tokens"]
    assert (code, named["verdict"]) == (Exit.FAILED, "failed")

    code, findings = doctor(capsys, *unsafe)
    assert code == Exit.DONE
    assert "realtime.query_tokens" not in {each["subject"] for each in findings}


def test_warnings_alone_do_not_fail(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    installed(tmp_path)

    code, findings = doctor(capsys, "--production", "--set", "log.access=true")

    assert code == Exit.DONE
    assert "log.access" in {each["subject"] for each in findings}
