"""Key rings that need nothing but this machine: a key that the process has, and a command that has one."""

import asyncio
import hmac
import os
import signal
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

from roomkey.errors import ConfigurationError, Storage, explain
from roomkey.ports import KeyRing, WrappedKey

_NONCE_BYTES: Final = 12
_ID_BYTES: Final = 4

MAX_ANSWER_BYTES: Final = 64 * 1024
"""Size beyond which the answer of a command, or of a service, is none."""


class LocalKeyRing:
    """A key-encryption key that this process has: AES-256-GCM. ``name`` says where it is from."""

    def __init__(self, name: str, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  # not all commands need it

        self.id = f"{name}-{hmac.digest(key, b'roomkey key id', 'sha256')[:_ID_BYTES].hex()}"
        self._cipher = AESGCM(hmac.digest(key, b"roomkey key encryption", "sha256"))

    async def wrap(self, key: bytes, place: bytes) -> WrappedKey:
        """As ``ports.KeyRing``."""
        nonce = os.urandom(_NONCE_BYTES)
        return WrappedKey(self.id, nonce + self._cipher.encrypt(nonce, key, place))

    async def unwrap(self, key: WrappedKey, place: bytes) -> bytes:
        """As ``ports.KeyRing``."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415

        if key.wrapped_by != self.id:
            raise not_ours(key, self)
        try:
            return self._cipher.decrypt(key.wrapped[:_NONCE_BYTES], key.wrapped[_NONCE_BYTES:], place)
        except (InvalidTag, ValueError):
            raise ConfigurationError(f"a data key that {self.id} wrapped was altered") from None


class CommandKeyRing:
    """
    A command that wraps and unwraps, such as one that speaks to a hardware module.

    It is run without a shell, with ``wrap`` or ``unwrap`` behind its arguments, and is given the key in base64, and on
    a second line its place in base64, on its standard input. It answers one line of base64 and exits with 0. Everything
    else is a failure, of which the first line of its standard error is shown.
    """

    def __init__(self, arguments: Sequence[str], *, id: str = "command", timeout: timedelta) -> None:
        """``id`` names the key that the command uses: change it when the command begins to use another one."""
        self.id = id
        self._arguments = arguments
        self._timeout = timeout

    async def wrap(self, key: bytes, place: bytes) -> WrappedKey:
        """As ``ports.KeyRing``."""
        return WrappedKey(self.id, await self._run("wrap", key, place))

    async def unwrap(self, key: WrappedKey, place: bytes) -> bytes:
        """As ``ports.KeyRing``."""
        if key.wrapped_by != self.id:
            raise not_ours(key, self)
        return await self._run("unwrap", key.wrapped, place)

    async def _run(self, verb: str, value: bytes, place: bytes) -> bytes:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._arguments,
                verb,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # so that what it started ends with it
            )
        except OSError as error:
            raise ConfigurationError(f"the command of the key ring cannot be run: {explain(error)}") from None
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                answer, said = await _exchange(process, b64encode(value) + b"\n" + b64encode(place) + b"\n")
                code = await process.wait()
        except TimeoutError:
            raise Storage(
                f"the command of the key ring did not end within {self._timeout.total_seconds():g}s"
            ) from None
        finally:
            await _end(process)
        if code != 0:
            reason = said[:200].decode(errors="replace").partition("\n")[0]
            raise Storage(f"the command of the key ring failed ({code}): {reason}")
        return _decoded(answer)


class KeyRings:
    """A key ring, and others that wrapped what is still there: it wraps with the first, and unwraps with all."""

    def __init__(self, present: KeyRing, *before: KeyRing) -> None:
        self.id = present.id
        self._present = present
        self._all: Mapping[str, KeyRing] = {ring.id: ring for ring in (*reversed(before), present)}

    async def wrap(self, key: bytes, place: bytes) -> WrappedKey:
        """As ``ports.KeyRing``."""
        return await self._present.wrap(key, place)

    async def unwrap(self, key: WrappedKey, place: bytes) -> bytes:
        """As ``ports.KeyRing``."""
        return await self._all.get(key.wrapped_by, self._present).unwrap(key, place)


def not_ours(key: WrappedKey, ring: KeyRing) -> ConfigurationError:
    """The error for a key that another key-encryption key wrapped."""
    return ConfigurationError(
        f"the data keys are wrapped with {key.wrapped_by}, and the key that is configured is {ring.id}: nothing was "
        "changed; give the right one, or the former one as encryption.previous_key"
    )


async def _exchange(process: asyncio.subprocess.Process, question: bytes) -> tuple[bytes, bytes]:
    """What a command says on both its outputs when it is given ``question``."""
    # Pipes were asked for.
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None  # noqa: S101
    assert stdout is not None  # noqa: S101
    assert stderr is not None  # noqa: S101
    with suppress(BrokenPipeError, ConnectionResetError):  # it did not want to know
        stdin.write(question)
        await stdin.drain()
    stdin.close()
    async with asyncio.TaskGroup() as group:
        answer, said = group.create_task(_read(stdout)), group.create_task(_read(stderr))
    return answer.result(), said.result()


async def _read(stream: asyncio.StreamReader) -> bytes:
    """Everything, of which only the beginning is kept."""
    kept = b""
    while part := await stream.read(MAX_ANSWER_BYTES):
        kept = (kept + part)[:MAX_ANSWER_BYTES]
    return kept


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    await process.wait()


def _decoded(answer: bytes) -> bytes:
    try:
        return b64decode(answer.strip(), validate=True)
    except ValueError:
        raise Storage("the command of the key ring answered something that is not base64") from None
