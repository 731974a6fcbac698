"""The installation's master key: where it is kept, and the keys that are derived from it."""

import hashlib
import hmac
import os
import secrets
from base64 import urlsafe_b64encode
from contextlib import suppress
from pathlib import Path

from roomkey.errors import ConfigurationError, explain

MIN_KEY_CHARACTERS = 32
"""Shorter keys are refused: 32 random base64 characters have 192 bits."""

FILE_NAME = "master.key"
"""What the key file is called that is made inside a data directory."""


def check(key: str) -> bytes:
    """
    The bytes of a key that was written down as text.

    Raises:
        ConfigurationError: If it is too short to be a key.
    """
    text = key.strip()
    if len(text) < MIN_KEY_CHARACTERS:
        raise ConfigurationError(
            f"the master key has at least {MIN_KEY_CHARACTERS} characters; `roomkey keys generate --master` makes one"
        )
    return text.encode()


def load(path: Path) -> bytes:
    """
    The key in a file that nobody but its owner may read.

    Raises:
        ConfigurationError: If it cannot be read, is too short, or others may read it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4096)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the key file {path} cannot be read: {_reason(error)}") from error
    if os.name == "posix" and mode & 0o077:
        raise ConfigurationError(f"others may read the key file {path}: chmod 600 it, and change the key if they did")
    return check(text)


def load_or_create(path: Path) -> bytes:
    """
    The key in the file, which is made on first use with the rights 0600.

    Of several processes that start at once, one makes it and the others read it.

    Raises:
        ConfigurationError: If it cannot be made, or as ``load`` does.
    """
    if not os.path.exists(path):  # noqa: PTH110  # unlike Path.exists it never raises
        _create(path)
    return load(path)


def generate() -> str:
    """A new key as text."""
    return urlsafe_b64encode(secrets.token_bytes(32)).decode()


def derive(master: bytes, purpose: str) -> bytes:
    """A 32-byte key for one purpose; the master cannot be computed from it (HKDF-SHA256, RFC 5869)."""
    extracted = hmac.digest(bytes(32), master, hashlib.sha256)
    return hmac.digest(extracted, b"roomkey " + purpose.encode() + b"\x01", hashlib.sha256)


def _create(path: Path) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(f"the data directory {path.parent} cannot be made: {explain(error)}") from error
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(generate() + "\n")
                file.flush()
                os.fsync(file.fileno())
            # A link appears complete or not at all, and never replaces a key that another process made first.
            with suppress(FileExistsError):
                path.hardlink_to(draft)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"no key file can be made in {path.parent}: {explain(error)}") from error


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return explain(error) if isinstance(error, OSError) else "it is not text"
