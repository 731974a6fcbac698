"""What is taken for an attack, what honest people write, and what is done about either."""

import importlib
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.errors import SuspiciousInput
from roomkey.security.injection import (
    MAX_REPORTED,
    MAX_TEXT_BYTES,
    Detector,
    InspectionSettings,
    Inspector,
    Reaction,
    Suspicion,
    load_detector,
    texts_in,
)
from tests.support.sockets import NOON

found = load_detector()
needs_library = pytest.mark.skipif(found is None, reason="libinjection is not installed")

HONEST = [
    "alice",
    "O'Brien",
    "D'Angelo; MD",
    "Seán Ó'Súilleabháin",
    "a--b",
    "--",
    "alice@example.com",
    "o'brien+tag@example.com",
    "google-oauth2|1157",
    "auth0|5f7c8ec7c33c6c004bbafe82",
    "CN=Ada,OU=Research,O=Example",
    "https://example.com/a?b=1&c=2#d",
    "https://example.com/search?q=it's",
    "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
    "c2VjcmV0IHRleHQ=",
    "eyJhbGciOiJIUzI1NiJ9.e30=",
    "#ff8800",
    "1 = 1",
    "50% off; today",
    "Ada's laptop",
    'MacBook Pro (13", 2020)',
    "<3",
    "a < b",
    "x > y",
    "Tom & Jerry's",
    "Rock 'n' Roll",
    "before the 2nd meeting -- final",
    "v1.0; draft",
    "C:\\Users\\ada",
    "select",
    "Union Jack",
    "drop me a line",
    "2026-01-02T12:00:00Z",
    "{'a': 1}",
    "私の名前は'太郎'です",
    "Владимир",
]
"""Values of identities and metadata that must pass."""

ATTACKS = {
    "' OR '1'='1": Suspicion.SQL,
    "1 OR 1=1": Suspicion.SQL,
    "admin'--": Suspicion.SQL,
    "x'; DROP TABLE users; --": Suspicion.SQL,
    "1 UNION SELECT password FROM users": Suspicion.SQL,
    "' UNION SELECT * FROM sessions WHERE ''='": Suspicion.SQL,
    "1; EXEC xp_cmdshell('dir')": Suspicion.SQL,
    "' OR sleep(5)#": Suspicion.SQL,
    "<script>alert(1)</script>": Suspicion.HTML,
    "<img src=x onerror=alert(1)>": Suspicion.HTML,
    "<svg/onload=alert(1)>": Suspicion.HTML,
    '"><script>steal()</script>': Suspicion.HTML,
    "<a href=javascript:alert(1)>here</a>": Suspicion.HTML,
    "' onmouseover='alert(1)": Suspicion.HTML,
    "<iframe src=//evil.example>": Suspicion.HTML,
}


def detect(text: str) -> Suspicion | None:
    """As libinjection, for tests of what surrounds it."""
    return Suspicion.HTML if "<script" in text else None


def inspector(detector: Detector | None = detect, **settings: Any) -> Inspector:
    return Inspector(InspectionSettings(**settings), detector)


@needs_library
@pytest.mark.parametrize("text", HONEST)
def test_honest_values_pass(text: str) -> None:
    assert found is not None
    assert found(text) is None


@needs_library
@pytest.mark.parametrize(("text", "what"), ATTACKS.items())
def test_attacks_are_found(text: str, what: Suspicion) -> None:
    assert found is not None
    assert found(text) is what


# What libinjection takes apart, but for "<" and "=".
PIECES = [
    *("'", '"', "`", ">", "/", " ", "\n", "\0", ":", "-", "!", "?", "(", ")", "x"),
    *("onload", "onerror", "href", "src", "style", "javascript:", "script", "svg", "!--", "-->", "!doctype", "?xml"),
]


@needs_library
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_without_a_tag_or_the_value_of_an_attribute_there_is_no_active_html(text: str) -> None:
    library: Any = importlib.import_module("libinjection")

    assert not library.is_xss(text)["is_xss"]


@needs_library
@pytest.mark.parametrize("text", [text for text in ATTACKS if text != "1 UNION SELECT password FROM users"])
def test_what_is_looked_at_in_messages_is_what_could_be_an_attack(text: str) -> None:
    payload = {"document": "d", "op": [{"insert": text}]}

    assert inspector(found).look_at_message(msgspec.json.encode(payload), payload) is not None


def test_a_name_that_looks_like_an_attack_is_refused_and_not_repeated() -> None:
    fields = [("user_id", "alice"), ("metadata", "<script>")]

    with pytest.raises(SuspiciousInput, match="metadata looks like active HTML") as caught:
        inspector().look_at_identity(fields)

    assert "script" not in str(caught.value)
    assert inspector(identities=Reaction.FLAG).look_at_identity(fields) is Suspicion.HTML
    assert inspector(identities=Reaction.OFF).look_at_identity(fields) is None
    assert inspector().look_at_identity([("user_id", "alice"), ("client.device", None)]) is None


def test_without_the_library_nothing_is_looked_at_and_that_is_known() -> None:
    nobody = inspector(None)

    assert nobody.is_missing
    assert not nobody.reads_text
    assert nobody.look_at_identity([("user_id", "<script>")]) is None
    assert nobody.look_at_text("<script>") is None
    assert not inspector(None, identities=Reaction.OFF, free_text=Reaction.OFF).is_missing
    assert not inspector().is_missing


@pytest.mark.parametrize("escaped", [b'{"a":"\\u003cscript\\u003e"}', b'{"a":"<script>"}', b'{"<script>":[[1]]}'])
def test_escapes_and_keys_hide_nothing(escaped: bytes) -> None:
    assert inspector().look_at_message(escaped, msgspec.json.decode(escaped)) is Suspicion.HTML


def test_text_is_looked_at_as_far_as_the_limit() -> None:
    early, late = ["a" * 100, "<script>"], ["<script>", "a" * MAX_TEXT_BYTES]

    assert inspector().look_at_text(early) is Suspicion.HTML
    assert inspector().look_at_text(late) is None  # the last of a list comes first
    assert inspector().look_at_text("a" * MAX_TEXT_BYTES + "<script>") is None


def test_deep_and_wide_values_are_walked_without_recursion() -> None:
    value: Any = "x"
    for level in range(50_000):
        value = [value] if level % 2 else {"k": value}

    assert sum(1 for _ in texts_in(value)) == 25_001


def test_a_session_is_reported_once_a_minute_and_memory_is_bounded() -> None:
    watch = inspector()

    assert watch.is_news("a", NOON)
    assert not watch.is_news("a", NOON + timedelta(seconds=59))
    assert watch.is_news("b", NOON + timedelta(seconds=59))
    assert watch.is_news("a", NOON + timedelta(seconds=60))
    for number in range(MAX_REPORTED):
        watch.is_news(str(number), NOON)
    assert watch.is_news("a", NOON + timedelta(seconds=61)), "the oldest are forgotten"
    assert not watch.is_news(str(MAX_REPORTED - 1), NOON)
