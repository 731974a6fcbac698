"""A key ring opens what it wrapped, and says in one line what is wrong with everything else."""

import asyncio
import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from roomkey.encryption.key_rings import CommandKeyRing, LocalKeyRing
from roomkey.encryption.key_services import AwsKeyRing, VaultKeyRing
from roomkey.encryption.opening import open_key_ring
from roomkey.encryption.settings import EncryptionSettings, problems
from roomkey.errors import ConfigurationError, Storage
from roomkey.ports import KeyRing, WrappedKey

KEY, PLACE = bytes(range(32)), b"place"
TIMEOUT = timedelta(seconds=20)

COMMAND = """
import sys, base64
verb, key, place = sys.argv[-1], *(base64.b64decode(line) for line in sys.stdin.read().split())
mask = lambda data: bytes(each ^ 0x55 for each in data)
if verb == "wrap":
    answer = mask(key) + place
elif not key.endswith(place):
    sys.exit("not of this place\\nmore")
else:
    answer = mask(key[: -len(place)])
print(base64.b64encode(answer).decode())
"""


class Service:
    """A server of its own that has a key: Vault's transit engine under ``/v1``, KMS under ``/``."""

    def __init__(self) -> None:
        self._cipher = AESGCM(bytes(32))
        self.seen: list[Mapping[str, str]] = []

    def answer(self, path: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> tuple[int, Any]:
        self.seen.append(body)
        if path.startswith("/v1/"):
            if headers.get("X-Vault-Token") != "right":
                return 403, {"errors": ["permission denied"]}
            return self._vault(path.split("/")[3], body)
        return self._kms(headers["X-Amz-Target"].partition(".")[2], body)

    def _vault(self, verb: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        place = b64decode(body["associated_data"])
        if verb == "encrypt":
            sealed = self._cipher.encrypt(bytes(12), b64decode(body["plaintext"]), place)
            return 200, {"data": {"ciphertext": "vault:v1:" + b64encode(sealed).decode()}}
        try:
            key = self._cipher.decrypt(bytes(12), b64decode(body["ciphertext"].removeprefix("vault:v1:")), place)
        except (InvalidTag, ValueError):
            return 400, {"errors": ["cipher: message authentication failed"]}
        return 200, {"data": {"plaintext": b64encode(key).decode()}}

    def _kms(self, verb: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        place = json.dumps(body["EncryptionContext"]).encode()
        if verb == "Encrypt":
            sealed = self._cipher.encrypt(bytes(12), b64decode(body["Plaintext"]), place)
            return 200, {"CiphertextBlob": b64encode(sealed).decode()}
        try:
            return 200, {
                "Plaintext": b64encode(
                    self._cipher.decrypt(bytes(12), b64decode(body["CiphertextBlob"]), place)
                ).decode()
            }
        except (InvalidTag, ValueError):
            return 400, {"__type": "InvalidCiphertextException"}


@contextmanager
def serving(answer: Callable[[str, Mapping[str, str], Any], tuple[int, Any]]) -> Generator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            code, value = answer(self.path, dict(self.headers.items()), body)
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(code)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Not in tests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def vault(address: str, token: str = "right") -> VaultKeyRing:
    def connect() -> httpx.AsyncClient:
        # The names that Vault's server is given are as they are written.
        return httpx.AsyncClient(base_url=address, headers={"X-Vault-Token": token})

    return VaultKeyRing(connect, "roomkey")


class KmsError(Exception):
    """As those of botocore."""

    def __init__(self, code: str) -> None:
        super().__init__("something that quotes what was sent")
        self.response = {"Error": {"Code": code}}


class KmsOverHttp:
    """What boto3 does, as far as it is used: the calls, the protocol, and the errors."""

    def __init__(self, address: str) -> None:
        self._address = address

    def encrypt(self, *, KeyId: str, Plaintext: bytes, EncryptionContext: Mapping[str, str]) -> Mapping[str, Any]:  # noqa: N803
        return self._call("Encrypt", KeyId=KeyId, Plaintext=Plaintext, EncryptionContext=EncryptionContext)

    def decrypt(self, *, KeyId: str, CiphertextBlob: bytes, EncryptionContext: Mapping[str, str]) -> Mapping[str, Any]:  # noqa: N803
        return self._call("Decrypt", KeyId=KeyId, CiphertextBlob=CiphertextBlob, EncryptionContext=EncryptionContext)

    def _call(self, verb: str, **arguments: Any) -> Mapping[str, Any]:
        body = {
            name: b64encode(value).decode() if isinstance(value, bytes) else value for name, value in arguments.items()
        }
        response = httpx.post(self._address, json=body, headers={"X-Amz-Target": f"TrentService.{verb}"})
        answer = response.json()
        if response.is_error:
            raise KmsError(answer["__type"])
        return {name: b64decode(value) for name, value in answer.items()}


def command(tmp_path: Path, text: str = COMMAND, timeout: timedelta = TIMEOUT) -> CommandKeyRing:
    file = tmp_path / "ring.py"
    file.write_text(text)
    return CommandKeyRing((sys.executable, "-SE", str(file)), timeout=timeout)


async def keeps_its_promises(ring: KeyRing) -> None:
    wrapped = await ring.wrap(KEY, PLACE)

    assert wrapped.wrapped_by == ring.id
    assert KEY not in wrapped.wrapped
    assert await ring.unwrap(wrapped, PLACE) == KEY
    with pytest.raises((ConfigurationError, Storage)):
        await ring.unwrap(wrapped, b"another place")
    with pytest.raises(ConfigurationError, match=f"another key.*{ring.id}"):
        await ring.unwrap(WrappedKey("another key", wrapped.wrapped), PLACE)


async def test_a_key_of_this_process_wraps() -> None:
    await keeps_its_promises(LocalKeyRing("test", b"secret"))

    assert LocalKeyRing("test", b"secret").id == LocalKeyRing("test", b"secret").id != LocalKeyRing("test", b"x").id


async def test_a_command_wraps_and_its_first_word_is_shown_when_it_fails(tmp_path: Path) -> None:
    await keeps_its_promises(command(tmp_path))

    with pytest.raises(Storage, match=r"failed \(1\): not of this place$"):
        await command(tmp_path).unwrap(WrappedKey("command", b"nothing"), PLACE)


async def test_a_command_that_hangs_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    hanging = (
        "import os, pathlib, time\nif not os.fork():\n"
        f"    pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\ntime.sleep(1000)"
    )

    with pytest.raises(Storage, match="did not end within"):
        await command(tmp_path, hanging, timedelta(seconds=1.5)).wrap(KEY, PLACE)

    async with asyncio.timeout(10):
        while lives(int((tmp_path / "pid").read_text())):  # noqa: ASYNC110  # nobody tells of another's child
            await asyncio.sleep(0.01)


def lives(process: int) -> bool:
    """Whether it runs; what has ended and nobody has asked for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("print('not base64!')", "not base64"), ("import sys; sys.exit(3)", r"failed \(3\)")],
)
async def test_a_command_that_answers_nonsense_is_said(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(Storage, match=complaint):
        await command(tmp_path, text).wrap(KEY, PLACE)


async def test_a_command_that_is_not_there_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be run"):
        await CommandKeyRing((str(tmp_path / "nothing"),), timeout=TIMEOUT).wrap(KEY, PLACE)


async def test_no_shell_sees_the_arguments_of_a_command(tmp_path: Path) -> None:
    ring = CommandKeyRing((sys.executable, "-SEc", COMMAND, f"; touch {tmp_path / 'shell'}"), timeout=TIMEOUT)

    assert await ring.unwrap(await ring.wrap(KEY, PLACE), PLACE) == KEY
    assert not (tmp_path / "shell").exists()


async def test_vault_wraps() -> None:
    service = Service()
    with serving(service.answer) as address:
        await keeps_its_promises(vault(address))

        with pytest.raises(Storage, match="403"):
            await vault(address, "wrong").wrap(KEY, PLACE)


async def test_kms_wraps_and_its_errors_show_nothing_that_was_sent() -> None:
    with serving(Service().answer) as address:
        ring = AwsKeyRing(KmsOverHttp(address), "alias/roomkey")
        await keeps_its_promises(ring)

    with pytest.raises(Storage, match="aws-kms:alias/roomkey failed: ConnectError"):
        await ring.wrap(KEY, PLACE)


@pytest.mark.parametrize("answer", [(500, {}), (200, b"no JSON"), (200, {"data": {}}), (200, [])])
async def test_a_service_that_answers_nonsense_is_away(answer: tuple[int, Any]) -> None:
    with serving(lambda _path, _headers, _body: answer) as address:
        with pytest.raises(Storage):
            await vault(address).wrap(KEY, PLACE)
        with pytest.raises(Storage):
            await vault(address).unwrap(WrappedKey("vault:transit/roomkey", b"vault:v1:x"), PLACE)


async def test_a_service_that_is_away_is_said() -> None:
    with pytest.raises(Storage, match="did not answer"):
        await vault("http://127.0.0.1:9").wrap(KEY, PLACE)


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "kek"
    file.write_text("k" * 43)
    file.chmod(0o640)

    with pytest.raises(ConfigurationError, match="chmod 600"):
        open_key_ring(EncryptionSettings(key=f"file:{file}"), None)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (EncryptionSettings(key="file:/nowhere/kek"), "cannot be read"),
        (EncryptionSettings(key="env:ROOMKEY_TEST_NO_SUCH_KEY"), "is not set"),
        (EncryptionSettings(key="plugin:no.such.module:ring"), "cannot be loaded"),
        (EncryptionSettings(key="plugin:os:getpid"), "does not return a key ring"),
        (EncryptionSettings(), "no master key"),
    ],
)
def test_a_key_that_cannot_be_had_is_said(settings: EncryptionSettings, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        open_key_ring(settings, None)


@pytest.mark.parametrize("key", ["command", "nonsense", "file:", "vault:x", "env"])
def test_a_key_that_cannot_be_is_found_when_settings_are_read(key: str) -> None:
    assert len([*problems(EncryptionSettings(key=key))]) == 1
    assert [*problems(EncryptionSettings(key="env:A", previous_key="master", command=("a",)))] == []
