"""A token of an issuer is good, or it lets nobody in."""

import hmac
from base64 import urlsafe_b64decode
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import RSAKey

from roomkey.domain.access import Access, Grant
from roomkey.errors import InvalidToken
from roomkey.issuers.key_sets import keys_in
from roomkey.issuers.settings import Issuer, clashes_of
from roomkey.issuers.tokens import MAX_TOKEN_CHARS, Identity, peek, verify
from roomkey.testing.clock import ManualClock
from tests.support.issuers import AUDIENCE, NAME, Provider, in_base64, key_set, new_key, stamp
from tests.support.rest import START


@pytest.fixture
def provider(tmp_path: Path) -> Provider:
    return Provider(tmp_path, ManualClock(START))


def _made_of(header: bytes, payload: bytes) -> str:
    return f"{in_base64(header)}.{in_base64(payload)}.x"


def look(provider: Provider, token: str, **settings: Any) -> Identity:
    """What the token says, if it is good."""
    peek(token)
    return verify(token, provider.issuer(**settings), keys_in(provider.file.read_bytes()), provider.clock.now())


def test_a_genuine_token_that_is_no_text_is_refused(provider: Provider) -> None:
    payload = msgspec.Raw(msgspec.json.encode(provider.claims(more="?")).replace(b"?", b"\xe2"))

    with pytest.raises(InvalidToken):
        look(provider, provider.signed(payload))


@pytest.mark.parametrize("kind", ["EC", "RSA", "OKP"])
def test_a_good_token_says_who_its_holder_is(tmp_path: Path, kind: str) -> None:
    provider = Provider(tmp_path, ManualClock(START), new_key(kind))

    identity = look(provider, provider.token())

    assert identity == Identity(user_id="alice", grants=None, issued_at=START, issuer=NAME)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://login.example.com"}, "another issuer"),
        ({"aud": "somebody else"}, "somebody else"),
        ({"aud": ["a", "b"]}, "somebody else"),
        ({"aud": []}, "somebody else"),
        ({"exp": stamp(START) - 31}, "expired"),
        ({"exp": None}, "does not say"),
        ({"iat": None}, "does not say"),
        ({"aud": None}, "does not say"),
        ({"iat": "now"}, "does not say"),
        ({"exp": True}, "does not say"),
        ({"nbf": stamp(START) + 31}, "not good yet"),
        ({"iat": stamp(START) + 31}, "not good yet"),
        ({"iat": stamp(START) - 3631}, "too long ago"),
        ({"sub": None}, "does not say sub"),
        ({"sub": ""}, "does not say sub"),
        ({"sub": 7}, "does not say sub"),
        ({"sub": "a\u202eb"}, "cannot be a user"),
        ({"sub": "a" * 300}, "cannot be a user"),
    ],
)
def test_what_a_genuine_token_says_must_fit(provider: Provider, claims: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidToken, match=why):
        look(provider, provider.token(**claims))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["other", AUDIENCE]},
        {"exp": stamp(START) - 29},
        {"nbf": stamp(START) + 29},
        {"iat": stamp(START) - 3600},
        {"exp": stamp(START) + 0.5},
        {"more": {"of": ["anything"]}},
    ],
)
def test_clocks_may_be_a_little_wrong_and_audiences_several(provider: Provider, claims: dict[str, Any]) -> None:
    assert look(provider, provider.token(**claims)).user_id == "alice"


def test_another_key_opens_nothing(provider: Provider) -> None:
    claims = provider.claims()

    for forged in (
        provider.signed(claims, key=new_key(id="first")),
        provider.signed(claims, key=new_key(id="unknown")),
        provider.signed(claims, key=new_key("OKP", id="first")),
    ):
        with pytest.raises(InvalidToken, match="not signed by the issuer"):
            look(provider, forged)


def test_the_public_key_is_no_secret_to_sign_with(tmp_path: Path) -> None:
    """The oldest of these attacks (RFC 8725, 2.1): HMAC with what everybody can read."""
    rsa = RSAKey.generate_key(2048, {"kid": "first"})
    provider = Provider(tmp_path, ManualClock(START), rsa)
    signed = _made_of(b'{"alg":"HS256","kid":"first"}', msgspec.json.encode(provider.claims())).rpartition(".")[0]
    for secret in (rsa.as_pem(private=False), rsa.as_der(private=False), provider.file.read_bytes(), b""):
        forged = f"{signed}.{in_base64(hmac.digest(secret, signed.encode(), 'sha256'))}"
        with pytest.raises(InvalidToken):
            look(provider, forged)


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "ES512", "", "RS256"])
def test_the_algorithm_is_one_of_the_configured_and_fits_the_key(provider: Provider, algorithm: str) -> None:
    header, payload, signature = provider.token().split(".")
    changed = {**msgspec.json.decode(_bytes(header)), "alg": algorithm}

    for end in (signature, ""):
        with pytest.raises(InvalidToken):
            look(provider, f"{in_base64(msgspec.json.encode(changed))}.{payload}.{end}", algorithms=("ES256",))


def test_a_key_in_the_token_is_not_looked_at(provider: Provider) -> None:
    own = new_key(id="mine")

    for header in (
        {"jwk": own.as_dict(private=False)},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/chain"},
    ):
        with pytest.raises(InvalidToken):
            look(provider, provider.signed(provider.claims(), header, own))


def test_extensions_that_must_be_understood_are_not(provider: Provider) -> None:
    with pytest.raises(InvalidToken):
        look(provider, provider.signed(provider.claims(), {"crit": ["exp"], "exp": 1}))


def test_headers_that_providers_add_do_no_harm(provider: Provider) -> None:
    assert look(provider, provider.token(header={"x5t": "abc", "nonce": "n" * 500, "typ": "JWT"})).user_id == "alice"


@pytest.mark.parametrize("type", ["at+jwt", "AT+JWT", "application/at+jwt"])
def test_a_type_can_be_demanded(provider: Provider, type: str) -> None:
    assert look(provider, provider.token(header={"typ": type}), token_type="at+jwt").user_id == "alice"
    for other in ("JWT", None, 7):
        with pytest.raises(InvalidToken):
            look(provider, provider.token(header={"typ": other}), token_type="at+jwt")


def spoilt(token: str) -> list[str]:
    """Texts that are no tokens, made of one that is."""
    return [
        token.rpartition(".")[0],
        token + ".x",
        token[:-2] + ("AA" if token[-2:] != "AA" else "BB"),
        token + "A" * MAX_TOKEN_CHARS,
        "é" + token,
        "",
        "..",
        "a.b.c",
        _made_of(b"[]", b"{}"),
        _made_of(b'{"alg":"ES256"}', b"[" * 5000),
        _made_of(b'{"alg":7}', b'{"iss":"x"}'),
    ]


def test_what_is_no_token_is_refused(provider: Provider) -> None:
    for text in spoilt(provider.token()):
        with pytest.raises(InvalidToken):
            look(provider, text)


@given(st.text(max_size=200) | st.builds(_made_of, st.binary(), st.binary()))
def test_no_text_at_all_does_more_harm_than_that(text: str) -> None:
    with pytest.raises(InvalidToken):
        peek(text)


# --- what may be done -----------------------------------------------------------------------------------


def test_users_of_an_issuer_can_have_a_prefix_and_another_claim(provider: Provider) -> None:
    identity = look(provider, provider.token(email="a@example.com"), user_claim="email", user_prefix="acme:")

    assert identity.user_id == "acme:a@example.com"


def test_grants_are_those_of_the_issuer_or_of_the_token(provider: Provider) -> None:
    usual, said = Grant("shared/**", Access.READ), {"documents": "team-7/**", "access": "write"}
    token = provider.token(rooms=[said])

    assert look(provider, token, grants=(usual,)).grants == (usual,)
    assert look(provider, token, grants=(usual,), grants_claim="rooms").grants == (Grant("team-7/**", Access.WRITE),)


def test_who_should_say_what_users_may_do_and_does_not_lets_them_do_nothing(provider: Provider) -> None:
    assert look(provider, provider.token(), grants_claim="rooms").grants == ()


@pytest.mark.parametrize(
    "said", ["**", [{"documents": "**"}], [{"documents": "**", "access": "root"}], {}, [7], None, 7]
)
def test_grants_that_are_none_are_refused(provider: Provider, said: Any) -> None:
    token = provider.signed({**provider.claims(), "rooms": said})

    with pytest.raises(InvalidToken, match="grants in rooms"):
        look(provider, token, grants_claim="rooms")


# --- key sets -------------------------------------------------------------------------------------------


def test_what_is_not_understood_in_a_set_is_passed_over() -> None:
    content = msgspec.json.decode(key_set(new_key(), new_key("RSA", "second")))
    content["keys"] += [
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "x"},
        {"kty": "EC", "crv": "P-256", "x": "zz", "y": "!"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "RSA", "n": "AQAB" * 60, "e": "AQAB"},  # 1,440 bits
        {**new_key(id="for encryption").as_dict(private=False), "use": "enc"},
        {"kty": []},
        {},
    ]

    assert [key.get("kid") for key in keys_in(msgspec.json.encode(content))] == ["first", "second"]


# --- settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"key_set": "http://login.example.com/keys"},
        {"key_set": "ftp://login.example.com/keys"},
        {"key_set": "https://user:secret@login.example.com/keys"},
        {"key_set": ""},
        {"issuer": ""},
        {"audience": ""},
        {"algorithms": ()},
        {"max_age": timedelta()},
        {"max_age": timedelta(days=2)},
        {"leeway": timedelta(hours=1)},
    ],
)
def test_an_issuer_that_lets_in_whom_it_should_not_cannot_be_configured(settings: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"issuer": NAME, "audience": AUDIENCE, "key_set": "https://login.example.com/keys"}
    assert Issuer(**usual)

    with pytest.raises(ValueError, match=r"."):
        Issuer(**{**usual, **settings})


@pytest.mark.parametrize(
    ("one", "other", "clashes"),
    [("", "b:", 1), ("a", "ab", 1), ("a:", "b:", 0), ("a:", "a:", 1), ("ab", "a", 1)],
)
def test_users_of_two_issuers_are_never_taken_for_one_another(one: str, other: str, clashes: int) -> None:
    issuers = [
        Issuer(issuer=f"https://{name}.example", audience="r", key_set=f"https://{name}.example/k", user_prefix=prefix)
        for name, prefix in (("one", one), ("other", other))
    ]

    assert len([*clashes_of(issuers)]) == clashes
    assert [*clashes_of([issuers[0], issuers[0]])] == ["https://one.example is there twice"]


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
