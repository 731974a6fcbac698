"""Opening the key ring that the settings name."""

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from roomkey.encryption.key_rings import CommandKeyRing, KeyRings, LocalKeyRing
from roomkey.encryption.settings import COMMAND, MASTER, EncryptionSettings
from roomkey.errors import ConfigurationError
from roomkey.ports import KeyRing
from roomkey.security import masterkey


def open_key_ring(settings: EncryptionSettings, master: bytes | None) -> KeyRing:
    """
    The key ring that the settings name.

    Raises:
        ConfigurationError: If it cannot be had.
    """
    present = _ring(settings.key, settings, master)
    if settings.previous_key is None:
        return present
    return KeyRings(present, _ring(settings.previous_key, settings, master))


def _ring(key: str, settings: EncryptionSettings, master: bytes | None) -> KeyRing:
    if key == MASTER:
        if master is None:
            raise ConfigurationError("encryption.key: there is no master key; set security.master_key")
        return LocalKeyRing(MASTER, masterkey.derive(master, "key encryption"))
    if key == COMMAND:
        return CommandKeyRing(settings.command, id=settings.command_key, timeout=settings.timeout)
    kind, _, rest = key.partition(":")
    if kind == "file":
        return LocalKeyRing(kind, masterkey.load(Path(rest)))
    if kind == "env":
        return LocalKeyRing(kind, masterkey.check(_variable(rest, os.environ)))
    return _plugin(rest)


def _variable(name: str, environment: Mapping[str, str]) -> str:
    if name not in environment:
        raise ConfigurationError(f"encryption.key: the variable {name} is not set")
    return environment[name]


def _plugin(name: str) -> KeyRing:
    module, _, function = name.partition(":")
    try:
        ring: Any = getattr(import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"encryption.key: {name} cannot be loaded: {error}") from None
    if not all(hasattr(ring, part) for part in ("id", "wrap", "unwrap")):
        raise ConfigurationError(f"encryption.key: {name} does not return a key ring")
    return ring
