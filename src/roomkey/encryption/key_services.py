"""
Key rings of services: HashiCorp Vault (or OpenBao) and AWS KMS. Both are used through ``encryption.key = "plugin:…"``.

They are given what speaks to the service, so that where it is, who we are there, and which certificates are trusted
is said in the words of its own library.
"""

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import httpx

from roomkey.encryption.key_rings import MAX_ANSWER_BYTES, not_ours
from roomkey.errors import ConfigurationError, Storage
from roomkey.ports import WrappedKey


class VaultKeyRing:
    """
    The transit engine of Vault. Its keys are rotated there: what older versions wrapped is unwrapped, too.

    The key needs a type that knows associated data, as ``aes256-gcm96`` does, which is the default.
    """

    def __init__(self, connect: Callable[[], httpx.AsyncClient], key: str, *, mount: str = "transit") -> None:
        """``connect`` makes a client with the address as ``base_url`` and the token as header ``X-Vault-Token``."""
        self.id = f"vault:{mount}/{key}"
        self._connect = connect
        self._key = key
        self._mount = mount

    async def wrap(self, key: bytes, place: bytes) -> WrappedKey:
        """As ``ports.KeyRing``."""
        answer = await self._ask("encrypt", {"plaintext": _text(key), "associated_data": _text(place)})
        return WrappedKey(self.id, _field(answer, "ciphertext").encode())

    async def unwrap(self, key: WrappedKey, place: bytes) -> bytes:
        """As ``ports.KeyRing``."""
        if key.wrapped_by != self.id:
            raise not_ours(key, self)
        question = {"ciphertext": key.wrapped.decode("ascii", "replace"), "associated_data": _text(place)}
        try:
            return b64decode(_field(await self._ask("decrypt", question), "plaintext"), validate=True)
        except ValueError:
            raise Storage(f"{self.id} answered something that is not base64") from None

    async def _ask(self, verb: str, question: Mapping[str, str]) -> Any:
        try:
            async with self._connect() as client:
                response = await client.post(f"/v1/{self._mount}/{verb}/{self._key}", json=question)
        except httpx.HTTPError as error:
            raise Storage(f"{self.id} did not answer: {type(error).__name__}") from None
        if response.status_code == _BAD_REQUEST and verb == "decrypt":
            raise ConfigurationError(f"{self.id} did not wrap this data key, or it was altered")
        if response.is_error or len(response.content) > MAX_ANSWER_BYTES:
            raise Storage(f"{self.id} refused to {verb} ({response.status_code})")
        try:
            return response.json()
        except ValueError:
            raise Storage(f"{self.id} answered something that is not JSON") from None


class KmsClient(Protocol):
    """What is used of ``boto3.client("kms")``. Its calls block; they are made on threads."""

    def encrypt(self, *, KeyId: str, Plaintext: bytes, EncryptionContext: Mapping[str, str]) -> Mapping[str, Any]:  # noqa: N803
        """As boto3 has it."""
        ...

    def decrypt(self, *, KeyId: str, CiphertextBlob: bytes, EncryptionContext: Mapping[str, str]) -> Mapping[str, Any]:  # noqa: N803
        """As boto3 has it."""
        ...


class AwsKeyRing:
    """A key of AWS KMS. Its rotation is a matter of AWS: what it wrapped before is unwrapped, too."""

    def __init__(self, client: KmsClient, key_id: str) -> None:
        """``key_id`` is an id, an ARN or an alias, as KMS has them."""
        self.id = f"aws-kms:{key_id}"
        self._client = client
        self._key_id = key_id

    async def wrap(self, key: bytes, place: bytes) -> WrappedKey:
        """As ``ports.KeyRing``."""
        answer = await self._call(
            self._client.encrypt, KeyId=self._key_id, Plaintext=key, EncryptionContext=_context(place)
        )
        return WrappedKey(self.id, answer["CiphertextBlob"])

    async def unwrap(self, key: WrappedKey, place: bytes) -> bytes:
        """As ``ports.KeyRing``."""
        if key.wrapped_by != self.id:
            raise not_ours(key, self)
        answer = await self._call(
            self._client.decrypt, KeyId=self._key_id, CiphertextBlob=key.wrapped, EncryptionContext=_context(place)
        )
        return answer["Plaintext"]

    async def _call(self, call: Callable[..., Mapping[str, Any]], **arguments: Any) -> Mapping[str, Any]:
        try:
            return await asyncio.to_thread(call, **arguments)
        except Exception as error:  # noqa: BLE001  # botocore makes its classes as it goes; it is not imported here
            code = _code_of(error)
            if code in _NOT_OURS:
                raise ConfigurationError(f"{self.id} did not wrap this data key, or it was altered") from None
            raise Storage(f"{self.id} failed: {code}") from None


_BAD_REQUEST: Final = 400

_NOT_OURS: Final = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
"""What KMS says of a data key that another key has wrapped, or for another place."""


def _code_of(error: Exception) -> str:
    """The code of an error of AWS; of any other its class. What it says may quote what was sent."""
    response: Any = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return code if isinstance(code, str) else type(error).__name__


def _context(place: bytes) -> Mapping[str, str]:
    return {"roomkey": place.hex()}


def _text(value: bytes) -> str:
    return b64encode(value).decode()


def _field(answer: Any, name: str) -> str:
    try:
        found = answer["data"][name]
    except (KeyError, TypeError, IndexError):
        found = None
    if not isinstance(found, str):
        raise Storage(f"the answer of Vault has no {name}")
    return found
