"""The reference of settings says what the code says, and leaves nothing out."""

import pytest

from roomkey import config
from roomkey.config import Config
from roomkey.settings_reference import Entry, entries, markdown
from tests.support.pages import ROOT

PAGE = ROOT / "docs" / "settings.md"


def entry(name: str) -> Entry:
    (found,) = [each for each in entries() if each.name == name]
    return found


def test_the_page_is_the_one_that_is_printed() -> None:
    """If this fails on purpose: ``roomkey settings --markdown > docs/settings.md``."""
    assert PAGE.read_text(encoding="utf-8") == markdown()


def test_every_setting_is_in_it_once() -> None:
    names = [each.name for each in entries()]

    assert sorted(names) == sorted([*(line.name for line in config.describe(Config())), "sessions.preset"])


def test_every_setting_has_a_sentence() -> None:
    assert [each.name for each in entries() if not each.meaning.endswith(".")] == []


def test_every_variable_is_with_its_setting() -> None:
    assert {variable: each.name for each in entries() for variable in each.variables} == config.variables()


@pytest.mark.parametrize(
    ("name", "type", "default"),
    [
        ("server.port", "integer", "3000"),
        ("server.workers", "integer or `auto`", "1"),
        ("server.tls_client_auth", "`required`, `optional`", "required"),
        ("server.trusted_proxies", "list of text", "none"),
        ("sessions.idle_timeout", "duration or off", "1h"),
        ("sessions.on_cap", "`evict_oldest`, `refuse`", "evict_oldest"),
        ("api.max_body_bytes", "size", "64KiB"),
        ("security.client_certificates", "list of tables with `key`, `fingerprint`, `name`, `subject`", "none"),
        ("realtime.message_types", "table", "none"),
        ("limits.session_requests_per_second", "number", "100"),
        ("security.master_key", "text or off", "off"),
    ],
)
def test_types_and_defaults_are_those_that_a_file_has(name: str, type: str, default: str) -> None:
    assert (entry(name).type, entry(name).default) == (type, default)


def test_a_setting_is_found_by_words_of_its_name_its_variables_and_its_sentence() -> None:
    found = {word: [each.name for each in entries() if each.mentions(word.split())] for word in ("SESSION_TTL", "x-y")}

    assert found == {"SESSION_TTL": ["sessions.lifetime"], "x-y": []}
    assert entry("sessions.cap").mentions(["ACTIVE", "maximum"])
    assert not entry("sessions.cap").mentions(["active", "minimum"])
