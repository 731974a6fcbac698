"""Proofs of possession: one that is right is taken, and whatever is changed about it is not."""

import json
from base64 import urlsafe_b64decode
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkey.errors import InvalidProof
from roomkey.security import dpop
from tests.support.proofs import ProofKey, b64

URL: Final = "https://rooms.example.com/sessions/me"
NOW: Final = 1_772_366_400.0
TOKEN: Final = "a token"

KEY: Final = ProofKey()
GOOD: Final = KEY.proof("GET", URL, at=NOW, token=TOKEN)


def look(text: str, *, method: str = "GET", url: str = URL, token: str | None = TOKEN, now: float = NOW) -> str:
    proof = dpop.read(text)
    dpop.check(proof, method=method, urls=[url], token=token, now=now, age=60)
    return proof.key


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "Ed25519"])
def test_a_proof_names_the_key_that_made_it(algorithm: str) -> None:
    key = ProofKey(algorithm)

    assert look(key.proof("GET", URL, at=NOW, token=TOKEN)) == key.thumbprint


def test_the_thumbprint_is_the_one_of_rfc_8037() -> None:
    # RFC 8037, A.3.
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}

    assert dpop.thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_proof_of_rfc_9449_is_right() -> None:
    # RFC 9449, 4.1 and 4.2.
    text = (
        "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0Rs"
        "cEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2"
        "In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2Vu"
        "IiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
    )

    key = look(text, method="POST", url="https://server.example.com/token", token=None, now=1_562_262_616)

    assert key == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "POST"},
        {"method": "get"},
        {"url": "https://rooms.example.com/sessions"},
        {"url": "http://rooms.example.com/sessions/me"},
        {"url": "https://rooms.example.com:8443/sessions/me"},
        {"url": "https://evil.example/sessions/me"},
        {"token": "another token"},
        {"now": NOW + 61},
        {"now": NOW - 61},
    ],
    ids=str,
)
def test_a_proof_for_something_else_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidProof):
        look(GOOD, **asked)


@pytest.mark.parametrize(
    "url",
    [
        "HTTPS://ROOMS.example.com/sessions/me",
        "https://rooms.example.com:443/sessions/me?a=b#c",
        "https://rooms.example.com/sessions/%6de",
        "wss://rooms.example.com/sessions/me",
    ],
)
def test_an_address_may_be_written_in_several_ways(url: str) -> None:
    assert look(KEY.proof("GET", url, at=NOW, token=TOKEN)) == KEY.thumbprint


@pytest.mark.parametrize(
    "claims",
    [
        {"jti": None},
        {"jti": ""},
        {"jti": "x" * 257},
        {"jti": 7},
        {"htm": None},
        {"htu": None},
        {"htu": "/sessions/me"},
        {"htu": "https://rooms.example.com@evil.example/sessions/me"},
        {"htu": "https://user@rooms.example.com/sessions/me"},
        {"htu": "https://rooms.example.com/sessions%2Fme"},
        {"htu": "https://[/"},
        {"htu": "https://rooms.example.com:99999/sessions/me"},
        {"iat": None},
        {"iat": "now"},
        {"iat": 1e308},
        {"ath": None},
        {"ath": "\u00e4"},
    ],
    ids=str,
)
def test_claims_that_are_missing_or_wrong_are_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(InvalidProof):
        look(KEY.proof("GET", URL, at=NOW, token=TOKEN, **claims))


def headers() -> list[dict[str, Any]]:
    good = {"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.jwk}
    x, y = KEY.jwk["x"], KEY.jwk["y"]
    return [
        good | {"typ": "JWT"},
        good | {"alg": "none"},
        good | {"alg": "HS256", "jwk": {"kty": "oct", "k": "c2VjcmV0"}},
        good | {"alg": "RS256"},
        good | {"alg": "EdDSA"},
        good | {"crit": ["exp"]},
        good | {"jwk": KEY.jwk | {"d": "c2VjcmV0"}},
        good | {"jwk": KEY.jwk | {"crv": "P-384"}},
        good | {"jwk": KEY.jwk | {"x": y, "y": x}},
        good | {"jwk": KEY.jwk | {"x": "A" * 43, "y": "A" * 43}},
        good | {"jwk": KEY.jwk | {"x": x + "="}},
        good | {"jwk": KEY.jwk | {"x": 5}},
        good | {"jwk": KEY.jwk | {"x": "A" * 44}},
        good | {"jwk": {}},
        good | {"jwk": ProofKey().jwk},
        good | {"jwk": ProofKey("EdDSA").jwk, "alg": "EdDSA"},
        {"typ": "dpop+jwt", "alg": "ES256"},
    ]


@pytest.mark.parametrize("header", headers(), ids=lambda header: json.dumps(header)[:60])
def test_headers_that_are_not_those_of_a_proof_are_refused(header: dict[str, Any]) -> None:
    claims = {"jti": "1", "htm": "GET", "htu": URL, "iat": NOW, "ath": dpop.hash_of(TOKEN)}

    with pytest.raises(InvalidProof):
        look(KEY.token(header, claims))


def test_what_has_another_spelling_of_the_same_key_is_refused() -> None:
    # The last of 43 characters has two bits that mean nothing: there would be four thumbprints for one key.
    x = KEY.jwk["x"]
    twin = next(
        x[:-1] + last
        for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        if last != x[-1] and urlsafe_b64decode(x[:-1] + last + "=") == urlsafe_b64decode(x + "=")
    )

    with pytest.raises(InvalidProof):
        look(
            KEY.token(
                {"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.jwk | {"x": twin}},
                {"jti": "1", "htm": "GET", "htu": URL, "iat": NOW, "ath": dpop.hash_of(TOKEN)},
            )
        )


@given(st.integers(0, len(GOOD) - 1), st.characters(codec="utf-8"))
@settings(max_examples=150, deadline=None)
def test_no_change_of_a_character_leaves_a_proof_right(position: int, character: str) -> None:
    changed = GOOD[:position] + character + GOOD[position + 1 :]
    if changed == GOOD:
        return
    try:
        look(changed)
    except InvalidProof:
        return
    # Only bits of the signature's last character that stand for nothing may differ.
    assert position == len(GOOD) - 1


@given(
    st.one_of(
        st.text(max_size=200),
        st.lists(st.binary(max_size=60), min_size=3, max_size=3).map(lambda parts: ".".join(map(b64, parts))),
    )
)
@settings(max_examples=200, deadline=None)
def test_whatever_comes_is_a_proof_or_refused(text: str) -> None:
    with pytest.raises(InvalidProof):
        dpop.read(text)


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["typ", "alg", "jwk", "crit"]), JSON | st.sampled_from(["dpop+jwt", "ES256", "EdDSA"])
    ),
    st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "d"]),
        JSON | st.sampled_from(["EC", "OKP", "P-256", "Ed25519", "A" * 43]),
    ),
    st.dictionaries(st.sampled_from(["jti", "htm", "htu", "iat", "ath", "nonce"]), JSON),
)
@settings(max_examples=200, deadline=None)
def test_whatever_a_proof_contains_it_is_refused_in_good_order(
    header: dict[str, Any], jwk: dict[str, Any], claims: dict[str, Any]
) -> None:
    text = KEY.token(
        {"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.jwk | jwk} | header,
        {"jti": "1", "htm": "GET", "htu": URL, "iat": NOW} | claims,
    )
    try:
        proof = dpop.read(text)
        dpop.check(proof, method="GET", urls=[URL], token=TOKEN, now=NOW, age=60)
    except InvalidProof:
        return
    assert proof.key == KEY.thumbprint
