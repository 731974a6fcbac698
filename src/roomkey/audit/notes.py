"""
Signed notes: texts with signatures of several keys (C2SP signed-note, and tlog-cosignature for those of witnesses).

Whoever reads a note verifies what keys that it knows have signed, and ignores all other signatures.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import IntEnum
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from roomkey.errors import InvalidInput, NotProven

MAX_NOTE_BYTES: Final = 128 * 1024
MAX_SIGNATURES: Final = 64
"""Verifiers must accept at least 16; post-quantum ones have 5 KB each."""

KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 4
TIME_BYTES: Final = 8
SIGNATURE_BYTES: Final = 64

LATEST: Final = 2**40
"""Seconds of a time that dates can express; the format allows more, which no clock will show."""

_SIGNATURE_LINE: Final = re.compile(r"\u2014 (?P<name>[^\s+]+) (?P<content>[A-Za-z0-9+/]+=*)")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


class SignatureType(IntEnum):
    """How a key signs."""

    ED25519 = 1
    COSIGNATURE = 4
    """Ed25519 over the text and the time: how witnesses sign checkpoints."""


class VerifierKey(Struct, frozen=True):
    """The public half of a key that signs notes. Its text is ``name+id+key``, as tools exchange it."""

    name: str
    type: SignatureType
    public: bytes

    @property
    def id(self) -> bytes:
        """What its signatures begin with."""
        return sha256(b"%b\n%c%b" % (self.name.encode(), self.type, self.public)).digest()[:KEY_ID_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{_base64(bytes([self.type]) + self.public)}"

    def signed_at(self, text: str, content: bytes) -> datetime | None:
        """
        When the key has signed ``text``; ``None`` if its signatures do not say that.

        Raises:
            NotProven: If it has not signed it so.
        """
        message, at = text.encode(), None
        if self.type is SignatureType.COSIGNATURE:
            seconds = int.from_bytes(content[:TIME_BYTES])
            if seconds >= LATEST:
                raise NotProven(f"the cosignature of {self.name} is of a time that will never come")
            message, content = _cosigned(text, seconds), content[TIME_BYTES:]
            at = datetime.fromtimestamp(seconds, UTC)
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(content, message)
        except InvalidSignature:
            raise NotProven(f"the signature of {self.name} is not one of its key") from None
        return at


def verifier_key(text: str) -> VerifierKey:
    """
    The key that is written so.

    Raises:
        InvalidInput: If none is, or its type is not known.
    """
    name, _, rest = text.strip().partition("+")
    id, _, encoded = rest.partition("+")
    content = _decoded(encoded)
    if not _is_name(name) or content is None or len(content) != 1 + KEY_BYTES:
        raise InvalidInput("a verifier key has the form name+id+key, as in example.com/log+1a2b3c4d+AbCd…")
    if content[0] not in (*SignatureType,):
        raise InvalidInput(f"the verifier key of {name} is of type {content[0]}, which is neither 1 nor 4")
    key = VerifierKey(name, SignatureType(content[0]), content[1:])
    if key.id.hex() != id:
        raise InvalidInput(f"the verifier key of {name} has another id than is written in it: was it cut or changed?")
    return key


class Signature(NamedTuple):
    """A line below a note. Which key it is of, and what that has signed, is not known before it was verified."""

    name: str
    key_id: bytes
    content: bytes

    @property
    def line(self) -> str:
        """As it stands below a text, with the end of the line."""
        return f"\u2014 {self.name} {_base64(self.key_id + self.content)}\n"


class Signer:
    """A key that signs notes, and its name. ``seed`` is the private key, 32 secret bytes (RFC 8032)."""

    def __init__(self, name: str, seed: bytes, type: SignatureType = SignatureType.ED25519) -> None:
        if not _is_name(name):
            raise InvalidInput("the name of a key is not empty, and has neither spaces nor a plus sign")
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.key = VerifierKey(name, type, self._private.public_key().public_bytes_raw())

    def sign(self, text: str, at: datetime | None = None) -> Signature:
        """A signature below ``text``, which ends with a line; that of a witness has a time ``at`` which it was made."""
        if at is None:
            return Signature(self.key.name, self.key.id, self._private.sign(text.encode()))
        seconds = int(at.timestamp())
        content = seconds.to_bytes(TIME_BYTES) + self._private.sign(_cosigned(text, seconds))
        return Signature(self.key.name, self.key.id, content)


class Note(Struct, frozen=True):
    """A text and the signatures below it, which may be of anybody."""

    text: str
    signatures: Sequence[Signature]

    def __str__(self) -> str:
        return f"{self.text}\n{''.join(signature.line for signature in self.signatures)}"

    def with_signatures(self, more: Iterable[Signature]) -> "Note":
        """The note with signatures of further keys."""
        return Note(self.text, (*self.signatures, *more))

    def verified(self, keys: Iterable[VerifierKey]) -> Mapping[VerifierKey, datetime | None]:
        """
        The keys among ``keys`` that have signed it, and when if they say that.

        Raises:
            NotProven: If a signature that bears the name and id of one of them is none.
        """
        known = {(key.name, key.id): key for key in keys}
        signed: dict[VerifierKey, datetime | None] = {}
        for signature in self.signatures:
            key = known.get((signature.name, signature.key_id))
            if key is not None and key not in signed:
                signed[key] = key.signed_at(self.text, signature.content)
        return signed


def note(content: bytes | str) -> Note:
    """
    The note that is written so; nothing of it is verified.

    Raises:
        InvalidInput: If it is none, or too long.
    """
    text = _text(content)
    body, separator, below = text.rpartition("\n\n")
    if not separator or not below.endswith("\n"):
        raise InvalidInput("a signed note has an empty line before its signatures, and ends with a line")
    return Note(body + "\n", signatures(below))


def signatures(lines: str) -> Sequence[Signature]:
    """
    The signatures that stand below a note.

    Raises:
        InvalidInput: If a line is none, or there are none or too many.
    """
    found = lines.removesuffix("\n").split("\n")
    if len(found) > MAX_SIGNATURES:
        raise InvalidInput(f"a signed note has at most {MAX_SIGNATURES} signatures here")
    return tuple(map(_signature, found))


def _signature(line: str) -> Signature:
    match = _SIGNATURE_LINE.fullmatch(line)
    content = None if match is None else _decoded(match["content"])
    if match is None or content is None or len(content) <= KEY_ID_BYTES:
        raise InvalidInput("a line below a signed note is not a signature")
    return Signature(match["name"], content[:KEY_ID_BYTES], content[KEY_ID_BYTES:])


def _text(content: bytes | str) -> str:
    if len(content) > MAX_NOTE_BYTES:
        raise InvalidInput(f"a signed note has at most {MAX_NOTE_BYTES} bytes here")
    try:
        text = content.decode() if isinstance(content, bytes) else content
    except UnicodeDecodeError:
        raise InvalidInput("a signed note is text in UTF-8") from None
    if _CONTROL.search(text):
        raise InvalidInput("a signed note has no control characters")
    return text


def _cosigned(text: str, seconds: int) -> bytes:
    """What a witness signs."""
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def _is_name(name: str) -> bool:
    return bool(name) and name.isprintable() and not any(letter.isspace() or letter == "+" for letter in name)


def _base64(content: bytes) -> str:
    return b64encode(content).decode()


def _decoded(text: str) -> bytes | None:
    """Base64 as RFC 4648, 4, has it, in the only way in which it is written; ``None`` if it is not."""
    try:
        content = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        return None
    return content if _base64(content) == text else None
