"""Damaged records: each is named in the log once, and health says how many there are."""

from collections.abc import Mapping
from typing import Final

import structlog

from roomkey.errors import Serialization
from roomkey.ports import RecordKind

MAX_NAMED: Final = 10_000
"""Number of damaged records that are named in the log; beyond that only their number is known to be larger."""

_log = structlog.get_logger("roomkey.storage")


class NewerSchema(Serialization):
    """A newer Roomkey wrote the record: it cannot be read here, but nothing is wrong with it."""


class DamageNotes:
    """
    What a store has found damaged since it was opened. ``content`` is what it keeps, such as "sessions".

    Keys are shown to operators as they are. It may be told of damage on several threads at once: then a record is
    named twice at worst.
    """

    def __init__(self, content: str) -> None:
        self._content = content
        self._noted: set[tuple[RecordKind, str]] = set()

    def note(self, kind: RecordKind, key: bytes | str, error: Serialization) -> None:
        """A record turned out to be damaged; only the first time is a word lost about it."""
        key = key if isinstance(key, str) else shown(key)
        if not self._is_new(kind, key):
            return
        _log.error("storage_record_damaged", store=self._content, kind=kind.value, key=key, reason=str(error))

    def note_torn(self, document: str, first: int, lost: int) -> None:
        """Updates of a document's log are lost, ``first`` being the number of the first one."""
        if self._is_new(RecordKind.UPDATES, f"{document}, {first}"):
            _log.error("storage_log_torn", document=document, first=first, lost=lost)

    def forget(self) -> None:
        """The damage was put right; what is found from now on is new."""
        self._noted.clear()

    def degradations(self) -> Mapping[str, str]:
        """What health says; empty while nothing was found."""
        if not self._noted:
            return {}
        number = len(self._noted) if len(self._noted) < MAX_NAMED else f"{MAX_NAMED} or more"
        return {f"damaged {self._content}": f"{number} records cannot be read: `roomkey doctor` names them"}

    def _is_new(self, kind: RecordKind, key: str) -> bool:
        place = kind, key
        if place in self._noted or len(self._noted) >= MAX_NAMED:
            return False
        self._noted.add(place)
        return True


def shown(key: bytes) -> str:
    """A key as people can read it: text if it is some, otherwise its bytes in hexadecimal."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return key.hex()
    return text if text.isprintable() else key.hex()
