"""Every setting refuses what cannot be, in a sentence that names it; none is taken and then fails somewhere else."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, cast, get_args, get_origin, get_type_hints

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from roomkey.config import SECTIONS, SHARED, Config, load
from roomkey.errors import ConfigurationError
from roomkey.setting_rules import MAY_BE_ZERO, check
from roomkey.settings import SourcedValue

NO_FILE = Path("/dev/null")
NONSENSE = "\x00 not a value of anything \x7f"


def kinds() -> dict[str, Any]:
    """Every setting with its type."""
    found: dict[str, Any] = {}
    for section in SECTIONS:
        for name, kind in get_type_hints(cast("type[object]", type(getattr(Config(), section)))).items():
            if f"{section}.{name}" not in SHARED:
                found[f"{section}.{name}"] = kind
    return found


KINDS = kinds()


def refusal(setting: str, value: Any, *, as_text: bool = True) -> tuple[str, ...]:
    """What is wrong with a value that was given with ``--set``; nothing, if it was taken."""
    try:
        load(NO_FILE, {setting: SourcedValue(value, "--set", as_text=as_text)}, {})
    except ConfigurationError as error:
        return error.problems
    return ()


def settings_of(kind: type) -> list[str]:
    return [setting for setting, found in KINDS.items() if kind in (found, *get_args(found))]


@pytest.mark.parametrize("setting", KINDS)
def test_a_default_is_allowed(setting: str) -> None:
    section, _, name = setting.partition(".")

    check(setting, getattr(getattr(Config(), section), name))


@pytest.mark.parametrize("setting", KINDS)
def test_nonsense_is_refused_and_the_setting_is_named(setting: str) -> None:
    (problem, *more) = refusal(setting, NONSENSE)

    assert setting in problem
    assert more == []


def test_no_setting_takes_a_type_that_it_is_not() -> None:
    for setting in KINDS:
        for value in ({"a": 1}, [["a"]], object()):
            if get_origin(KINDS[setting]) is Mapping and isinstance(value, dict):
                continue
            found = refusal(setting, value, as_text=False)
            assert found, (setting, value)
            assert any(setting in problem for problem in found), (setting, value, found)


@pytest.mark.parametrize("setting", settings_of(timedelta))
def test_a_duration_is_longer_than_nothing_and_no_longer_than_time(setting: str) -> None:
    is_allowed = not refusal(setting, "0s")

    assert is_allowed is (setting in MAY_BE_ZERO)
    for value in ("-1s", "0.0001s", "nan", "inf", "1e9", "36526d", "999999999d", "soon", "1h30m", "1y"):
        assert refusal(setting, value), value
    for value in (float("nan"), float("inf"), -1, True):
        assert refusal(setting, value, as_text=False), value


@pytest.mark.parametrize("setting", [*settings_of(int), *settings_of(float)])
def test_a_number_is_positive_and_not_beyond_all_measure(setting: str) -> None:
    is_allowed = not refusal(setting, "0")

    assert is_allowed is (setting in MAY_BE_ZERO or setting == "server.port")
    for value in ("-1", "nan", "inf", "-inf", "1e400", str(10**13), "1,000", "many", "0x10", "10 XB", "½"):
        assert refusal(setting, value), value
    for value in (float("nan"), float("inf"), -1, True, 10**30):
        assert refusal(setting, value, as_text=False), value


@pytest.mark.parametrize("setting", settings_of(Path))
@pytest.mark.parametrize("value", ["a\nb", "a\x00b", "\x7f"])
def test_a_path_of_a_file_can_be_read_by_people(setting: str, value: str) -> None:
    assert refusal(setting, value)


def test_the_directory_of_data_cannot_be_nowhere() -> None:
    assert refusal("storage.directory", "   ") == ("storage.directory: a path cannot be empty (--set)",)


ORIGINS = [
    "*",
    "null",
    "nonsense",
    "app.example.com",
    "//app.example.com",
    "https://",
    "https://app.example.com/",
    "https://app.example.com/path",
    "https://app.example.com?x",
    "https://app.example.com#x",
    "https://user@app.example.com",
    "https://*.example.com",
    "https://app.example.com:*",
    "https://app.example.com:99999",
    "https://app.example.com:443",
    "https://App.example.com",
    "HTTPS://app.example.com",
    "https://b\u00fccher.example",
    "https://app example.com",
    "https://app.example.com https://other.example.com",
    "wss://app.example.com",
    "https:app.example.com",
]


@pytest.mark.parametrize("origin", ORIGINS)
def test_an_origin_is_what_browsers_send(origin: str) -> None:
    (problem,) = refusal("security.allowed_origins", f"https://good.example.com,{origin}")

    assert problem.startswith("security.allowed_origins: '")
    assert problem.endswith("(--set)")
    assert ("cookies" in problem) is (origin == "*")


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com",
        "http://localhost:5173",
        "http://127.0.0.1:8080",
        "https://[::1]:8443",
        "https://xn--bcher-kva.example",
        "capacitor://localhost",
        "chrome-extension://abcdefghijklmnop",
    ],
)
def test_an_origin_that_browsers_send_is_taken(origin: str) -> None:
    assert refusal("security.allowed_origins", origin) == ()


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("server.host", ["", " ", "http://localhost", "localhost:3000", "[::1]", "a b", "a..b", "x" * 300, "*"]),
        ("server.port", ["-1", "65536", "http"]),
        ("server.allowed_hosts", ["https://a.example", "a.example:80", "*.", "a.*.example", "**", "*.10.0.0.7", "a b"]),
        ("server.trusted_proxies", ["proxy", "10.0.0.0/33", "10.0.0.7:80", "10.0.0.1/8", "http://10.0.0.7"]),
        (
            "api.public_url",
            ["rooms.example.com", "ftp://a.example", "https://", "https://a.example?x", "https://u@a.example", "/x"],
        ),
        ("realtime.path", ["", "ws", "/", "/ws/", "//ws", "/a b", "/ws?x", "/ws#x", "/../ws", "/%zz", "/yjs"]),
        ("documents.path", ["", "yjs", "/", "/yjs/", "/ws", "/hocuspocus"]),
        ("documents.hocuspocus_path", ["", "hocuspocus", "/", "/ws", "/yjs"]),
        ("security.master_key", ["short"]),
        ("security.api_keys", ["backend", "backend:service", "backend:king:" + "ab" * 32, "backend:service:xyz"]),
        ("access.default_grants", ["notes/**", ":write", "notes:own"]),
        ("storage.url", ["redis", "cloud", "cloud://x", "lmdb://"]),
        ("storage.documents", ["redis", "cloud", "cloud://x", "lmdb://"]),
        ("sessions.on_cap", ["explode"]),
        ("sessions.on_reuse", ["explode"]),
        ("log.level", ["loud"]),
        ("server.dev", ["perhaps"]),
    ],
)
def test_what_has_a_form_is_checked_for_it(setting: str, values: list[str]) -> None:
    taken = [value for value in values if not any(setting in problem for problem in refusal(setting, value))]

    assert taken == []


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("server.host", ["localhost", "::1", "0.0.0.0", "rooms.example.com", "my_box"]),
        ("server.allowed_hosts", ["rooms.example.com", "*.example.com", "10.0.0.7", "::1", "*"]),
        ("server.trusted_proxies", ["10.0.0.7", "10.0.0.0/8", "::1", "*", "127.0.0.1, fd00::/8"]),
        ("api.public_url", ["https://rooms.example.com", "http://10.0.0.7:3000/", "https://a.example/rooms"]),
        ("realtime.path", ["/ws", "/a/b", "/rooms.v1"]),
        ("server.max_connections", ["off", "100"]),
        ("sessions.idle_timeout", ["never", "15m"]),
    ],
)
def test_what_has_the_form_is_taken(setting: str, values: list[str]) -> None:
    refused = [value for value in values if refusal(setting, value)]

    assert refused == []


@given(st.sampled_from(sorted(KINDS)), st.text(max_size=30))
@example("security.allowed_origins", "https://[")
@example("api.public_url", "https://[")
def test_no_text_makes_reading_fail_in_another_way(setting: str, value: str) -> None:
    for problem in refusal(setting, value):
        assert isinstance(problem, str)
