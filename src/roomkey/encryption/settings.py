"""Settings of encryption at rest."""

from collections.abc import Iterator
from datetime import timedelta
from enum import StrEnum
from typing import Final

from msgspec import Struct

MASTER: Final = "master"
COMMAND: Final = "command"


class Mode(StrEnum):
    """When records are encrypted."""

    AUTO = "auto"
    """If sessions and documents are kept on this machine, where a master key is made beside them; not in ``--dev``."""
    ON = "on"
    OFF = "off"


class Unsealed(StrEnum):
    """What is done with records that are not encrypted."""

    AUTO = "auto"
    """They are read until everything is encrypted: from the start in a new storage, otherwise after a rotation."""
    REFUSE = "refuse"


class EncryptionSettings(Struct, frozen=True, kw_only=True):
    """Encryption of what is stored."""

    mode: Mode = Mode.OFF
    """Whether records are encrypted: ``on``, ``off``, or ``auto``: if sessions and documents are kept on this machine,
    and not in ``--dev``. Nodes on one storage must agree: turn it on while all of them are stopped. Without the master
    key nothing can be read any more, and no Roomkey that is older reads what is encrypted: hence off, until somebody
    keeps that key in another place than the data."""
    key: str = MASTER
    """What wraps the data keys: ``master`` (the master key), ``file:PATH``, ``env:NAME``, ``command``, or
    ``plugin:MODULE:FUNCTION``, a function without arguments that returns a key ring."""
    previous_key: str | None = None
    """What wrapped them before, in the same form, until ``roomkey encryption rewrap`` has run."""
    command: tuple[str, ...] = ()
    """Program and arguments for ``command``; it is run without a shell."""
    command_key: str = "command"
    """Name of the key that the command uses. Change it with the key."""
    timeout: timedelta = timedelta(seconds=10)
    """Maximum time for the command."""
    announcement: timedelta = timedelta(seconds=60)
    """Time between the making of a data key and its first use, within which every node reads it. A node that cannot
    read the keys for so long writes nothing until it can. The same on all nodes."""
    unsealed: Unsealed = Unsealed.AUTO
    """What is done with records that are not encrypted: ``refuse``, or ``auto``: they are read until
    ``roomkey encryption rotate`` has encrypted everything. A new storage refuses them from the start."""


def problems(settings: EncryptionSettings) -> Iterator[str]:
    """What is wrong with settings, as far as that can be told without opening anything."""
    for name, key in (("key", settings.key), ("previous_key", settings.previous_key)):
        if key is None or key == MASTER:
            continue
        kind, separator, rest = key.partition(":")
        if key == COMMAND:
            if not settings.command:
                yield f"encryption.{name}: command needs encryption.command"
        elif kind not in _KINDS or not separator or not rest:
            yield f"encryption.{name}: there are master, file:PATH, env:NAME, command and plugin:MODULE:FUNCTION"


_KINDS: Final = frozenset({"file", "env", "plugin"})
