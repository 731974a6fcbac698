"""``roomkey audit witness``: a server that signs the heads of logs of others, and remembers what it has signed."""

import asyncio
import signal
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import uvicorn
from msgspec import Struct

from roomkey.audit.notes import SignatureType, Signer, VerifierKey, verifier_key
from roomkey.audit.witness import WitnessApp, WitnessService
from roomkey.backends import Stores
from roomkey.errors import ConfigurationError, InvalidInput, explain
from roomkey.observability.logs import configure
from roomkey.observability.settings import LogSettings
from roomkey.ports import SystemClock
from roomkey.security import masterkey

PURPOSE: Final = "audit witness"
"""What the signing key is derived for from the key in the file."""

MAX_CONNECTIONS: Final = 200


class WitnessedLog(Struct, frozen=True, forbid_unknown_fields=True):
    """A log whose heads are signed: its name, and the keys that sign for it."""

    origin: str
    keys: tuple[str, ...]


class WitnessConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file that a witness is configured by."""

    name: str
    """Name of the witness: where it is reached, without scheme."""
    key_file: str
    """File with its key, which is made on first use."""
    storage: str
    """Where it remembers what it has signed: a URL as of storage.url."""
    host: str = "127.0.0.1"
    port: int = 3100
    logs: tuple[WitnessedLog, ...] = ()

    @property
    def keys(self) -> Mapping[str, tuple[VerifierKey, ...]]:
        """The keys of the logs, by their origins."""
        return {log.origin: tuple(verifier_key(key) for key in log.keys) for log in self.logs}


def load(file: Path) -> WitnessConfig:
    """
    The configuration in the file.

    Raises:
        ConfigurationError: If there is none that a witness can work with.
    """
    try:
        content = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), WitnessConfig)
        content.keys  # noqa: B018  # a key that is none is found before the server starts
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {explain(error)}") from None
    except (ValueError, msgspec.ValidationError, InvalidInput) as error:
        raise ConfigurationError(f"{file}: {error}") from None
    if content.storage.startswith("memory"):
        raise ConfigurationError(f"{file}: storage: a witness that forgets what it has signed is none")
    return content


def serve(config: WitnessConfig) -> None:
    """
    Answer submissions until SIGINT or SIGTERM.

    Raises:
        ConfigurationError: If it cannot start.
    """
    configure(LogSettings())
    secret = masterkey.load_or_create(Path(config.key_file).expanduser())
    try:
        signer = Signer(config.name, masterkey.derive(secret, PURPOSE), SignatureType.COSIGNATURE)
    except InvalidInput as error:
        raise ConfigurationError(f"name: {error}") from None
    try:
        listener = socket.create_server((config.host, config.port), backlog=MAX_CONNECTIONS)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {config.host}:{config.port}: {explain(error)}") from None
    with listener:
        asyncio.run(_serve(config, signer, listener))


async def _serve(config: WitnessConfig, signer: Signer, listener: socket.socket) -> None:
    async with Stores().objects(config.storage) as objects:
        app = WitnessApp(WitnessService(objects, config.keys, signer, SystemClock()))
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=MAX_CONNECTIONS,
            )
        )
        host, port, *_ = listener.getsockname()
        print(f"Witness {signer.key} listening on http://{host}:{port}", flush=True)  # noqa: T201  # the answer
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _nothing)  # uvicorn ends by its own, and then raises what it was sent again
        await server.serve(sockets=[listener])


def _nothing(_number: int, _frame: object) -> None:
    pass
