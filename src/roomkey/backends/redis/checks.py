"""What is looked at before a Redis is used: its version, what it forgets, and what it keeps."""

from collections.abc import Mapping
from typing import Any, Final

import structlog

from roomkey.backends.redis.connection import Connection
from roomkey.backends.redis.failures import ReplyError
from roomkey.backends.redis.settings import OLDEST, RedisSettings
from roomkey.errors import ConfigurationError

_log = structlog.get_logger("roomkey.storage")

_SECTIONS: Final = (b"server", b"memory", b"persistence")


async def check(name: str, connection: Connection, settings: RedisSettings) -> None:
    """
    Refuse a server that would lose sessions, and warn of one that may.

    Raises:
        ConfigurationError: If it is too old, or evicts keys.
    """
    found: dict[str, str] = {}
    try:
        for section in _SECTIONS:
            found |= _fields(await connection.send((b"INFO", section)))
    except ReplyError as error:
        _log.warning("storage_cannot_be_checked", server=name, command="INFO", code=error.code)
        return
    _check_version(name, found)
    _check_eviction(name, found, settings)
    if found.get("aof_enabled") == "0" and await _has_no_snapshots(name, connection):
        _log.warning("storage_is_not_persistent", server=name, advice="set appendonly yes, or save")


def _fields(info: Any) -> Mapping[str, str]:
    text = info.decode(errors="replace") if isinstance(info, bytes) else str(info)
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: value for key, _, value in pairs if value}


def _check_version(name: str, found: Mapping[str, str]) -> None:
    version = found.get("redis_version", "")
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if parts and parts < OLDEST:
        raise ConfigurationError(f"{name} is version {version}; Roomkey needs 6.2 or later")


def _check_eviction(name: str, found: Mapping[str, str], settings: RedisSettings) -> None:
    policy = found.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return
    if policy.startswith("allkeys-") and not settings.allows_eviction:
        raise ConfigurationError(
            f"{name} has maxmemory-policy {policy}, by which it forgets sessions; set it to noeviction"
        )
    _log.warning("storage_evicts", server=name, policy=policy, advice="set maxmemory-policy noeviction")


async def _has_no_snapshots(name: str, connection: Connection) -> bool:
    try:
        found = await connection.send((b"CONFIG", b"GET", b"save"))
    except ReplyError as error:  # managed services forbid it, or have renamed it
        _log.warning("storage_cannot_be_checked", server=name, command="CONFIG", code=error.code)
        return False
    return not found.get(b"save")
