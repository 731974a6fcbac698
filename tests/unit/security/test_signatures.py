"""Messages are signed as Standard Webhooks says: whoever has the secret, or the public key, can verify them."""

from base64 import b64decode, b64encode
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from roomkey.errors import InvalidInput
from roomkey.security.signatures import PrivateSigningKey, SigningSecret, headers, signing_key

# RFC 8032, 7.1, TEST 1.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def private(key: bytes) -> str:
    return "whsk_" + b64encode(key).decode()


def test_the_example_of_the_specification_is_signed_as_it_says() -> None:
    secret = SigningSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")

    signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("key", [SEED, SEED + PUBLIC])
def test_a_private_key_signs_what_its_public_key_verifies(key: bytes) -> None:
    signing = signing_key(private(key))
    assert isinstance(signing, PrivateSigningKey)

    version, _, signature = signing.sign("msg_1", "1614265330", b"{}").partition(",")

    assert version == "v1a"
    assert signing.public == "whpk_" + b64encode(PUBLIC).decode()
    Ed25519PublicKey.from_public_bytes(PUBLIC).verify(b64decode(signature), b"msg_1.1614265330.{}")


def test_while_a_secret_is_replaced_both_sign() -> None:
    keys = [signing_key("whsec_" + b64encode(bytes([n]) * 32).decode()) for n in (1, 2)] + [signing_key(private(SEED))]

    sent = headers(keys, "msg_1", NOON, b"{}")

    timestamp = str(int(NOON.timestamp()))
    assert sent["webhook-id"] == "msg_1"
    assert sent["webhook-timestamp"] == timestamp
    assert sent["webhook-signature"].split(" ") == [key.sign("msg_1", timestamp, b"{}") for key in keys]


@pytest.mark.parametrize(
    "secret",
    ["", "secret", "whsec_", "whsec_AAAA", "whsk_AAAA", "whsk_not base64", private(SEED[:31]), private(SEED + SEED)],
)
def test_what_is_no_key_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        signing_key(secret)

    assert len(secret) < 10 or secret not in str(refusal.value)


def test_keys_cannot_be_printed() -> None:
    for key in (SigningSecret("whsec_" + "A" * 44), PrivateSigningKey(private(SEED))):
        assert "hidden" in repr(key)
