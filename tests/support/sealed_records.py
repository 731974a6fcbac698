"""The codec that encrypts, under a key that a test names."""

from hashlib import sha256

from roomkey.encryption import records
from roomkey.encryption.records import ID_BYTES, Ciphers


class SealedRecords(records.SealedRecords):
    """Records are sealed under one key, and nothing else is read."""

    def __init__(self, key: bytes = b"key") -> None:
        made = sha256(key).digest()
        ciphers = Ciphers()
        ciphers.use({made[:ID_BYTES]: made}, writing=made[:ID_BYTES], reads_unsealed=False)
        super().__init__(ciphers)

    def within(self, store: str) -> "SealedRecords":
        """Tests open one file in several ways."""
        del store
        return self
