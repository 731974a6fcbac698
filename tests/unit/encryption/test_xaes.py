"""The cipher is the one of its specification."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from roomkey.encryption.xaes import PREFIX_BYTES, KeyDerivation

NONCE = b"ABCDEFGHIJKLMNOPQRSTUVWX"


@pytest.mark.parametrize(
    ("key", "associated", "sealed"),
    [
        (b"\x01", b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (b"\x03", b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
)
def test_the_examples_of_the_specification_come_out(key: bytes, associated: bytes, sealed: str) -> None:
    cipher = AESGCM(KeyDerivation(key * 32).key(NONCE[:PREFIX_BYTES]))

    assert cipher.encrypt(NONCE[PREFIX_BYTES:], b"XAES-256-GCM", associated or None).hex() == sealed
