"""
XAES-256-GCM: AES-256-GCM with nonces so long that chance never repeats one (C2SP ``xaes-256-gcm``).

The first half of a nonce makes a key of its own for AES-GCM, the second half is its nonce. AES-GCM alone would allow
2**32 records for each key with random nonces, counted over all processes that write; here nobody needs to count. A
process keeps the first half for ``RECORDS_PER_CIPHER`` records, because making a cipher costs more than using it; the
second half is from the system each time, so that neither a fork, nor a restart, nor a copied machine repeats it.
"""

from os import urandom
from typing import Final

KEY_BYTES: Final = 32
PREFIX_BYTES: Final = 12
NONCE_BYTES: Final = 24
TAG_BYTES: Final = 16

_BLOCK_BYTES: Final = 16
_REDUCTION: Final = 0x87
"""The polynomial of CMAC for blocks of 128 bits (NIST SP 800-38B)."""


class KeyDerivation:
    """What makes a cipher of a key and the first half of a nonce."""

    __slots__ = ("_encrypt_blocks", "_mask")

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415

        # ECB of single blocks is what CMAC is made of.
        block_cipher = Cipher(algorithms.AES256(key), modes.ECB())  # noqa: S305

        def encrypt_blocks(blocks: bytes) -> bytes:
            encryptor = block_cipher.encryptor()
            return encryptor.update(blocks) + encryptor.finalize()

        self._encrypt_blocks = encrypt_blocks
        doubled = int.from_bytes(encrypt_blocks(bytes(_BLOCK_BYTES))) << 1
        carry = doubled >> 128
        self._mask = (doubled ^ (carry << 128) ^ (_REDUCTION * carry)).to_bytes(_BLOCK_BYTES)

    def key(self, prefix: bytes) -> bytes:
        """The key of AES-256-GCM for nonces that begin with ``prefix``."""
        # Two blocks of the KDF in counter mode (NIST SP 800-108): counter, label X, separator, context.
        blocks = b"\x00\x01X\x00" + prefix, b"\x00\x02X\x00" + prefix
        return self._encrypt_blocks(b"".join(self._masked(block) for block in blocks))

    def _masked(self, block: bytes) -> bytes:
        return (int.from_bytes(block) ^ int.from_bytes(self._mask)).to_bytes(_BLOCK_BYTES)


def new_prefix() -> bytes:
    """The first half of a nonce."""
    return urandom(PREFIX_BYTES)
