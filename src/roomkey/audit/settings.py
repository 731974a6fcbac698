"""Settings of the audit log, with their defaults."""

from datetime import timedelta
from pathlib import Path
from typing import Literal

from msgspec import Struct


class WitnessSettings(Struct, frozen=True, kw_only=True):
    """A witness of the log: where it is asked, and the key that it answers with."""

    key: str
    """Verifier key of the witness (`name+id+key`), whose type is 04: it signs with the time."""
    url: str
    """Prefix of the witness: `add-checkpoint` is below it."""


class AuditSettings(Struct, frozen=True, kw_only=True):
    """What is recorded in the audit log, where it is, and how it is named, published and witnessed."""

    record: Literal["auto", "on", "off"] = "auto"
    """Whether anything is recorded; ``auto``: if sessions are stored durably."""
    url: str = "same"
    """Storage of the log: ``same`` (as sessions), or what ``storage.url`` may be."""
    queue_records: int = 10_000
    """Number of records that may wait to be written; beyond it nothing is done that has to be recorded."""
    patience: timedelta = timedelta(seconds=30)
    """Time that a record may wait to be written; after it nothing is done that has to be recorded."""
    flush_timeout: timedelta = timedelta(seconds=5)
    """Maximum time that waiting records have to be written when the server stops."""
    receipt_timeout: timedelta = timedelta(seconds=5)
    """Maximum time that an answer waits for the receipt that it was asked for."""
    service_views: bool = False
    """Whether it is recorded what keys with the role `service` read, as it is of all other keys."""
    end_sessions_when_behind: bool = False
    """Whether operators may suspend, expire, revoke and delete sessions while the log cannot be written."""
    origin: str | None = None
    """Name of the log in its checkpoints: where it is reached, without scheme, such as `rooms.example.com/audit/log`.
    A log keeps its name for ever. Off: one that is made of its first key."""
    keys: tuple[int, ...] = (1,)
    """Numbers of the keys that sign checkpoints, all of them; each is derived from the master key. To change the key,
    put another number in front, tell outsiders, and take the old one away when they know."""
    public_tree: bool = False
    """Whether anybody may read the checkpoint and the hashes of the log; its entries are for auditors in any case."""
    publish_interval: timedelta = timedelta(seconds=1)
    """Maximum time until what was recorded is published, if storage and witnesses answer at once."""
    witnesses: tuple[WitnessSettings, ...] = ()
    """Witnesses that are asked to sign each checkpoint."""
    quorum: int = 0
    """Number of witnesses without whose signatures no checkpoint is published."""
    witness_timeout: timedelta = timedelta(seconds=5)
    """Maximum time that a witness has for its answer."""
    remembered_head: Path | None = None
    """File that remembers the head that was signed last: best on another disk than the storage, so that a backup
    that is restored does not bring back an older one. Off: `audit.head` beside an embedded storage."""
    retention: timedelta | None = None
    """Age from which entries are not given to anybody any more; their hashes stay. Off: never."""

    def __post_init__(self) -> None:
        if not self.keys or min(self.keys) < 1 or len(set(self.keys)) < len(self.keys):
            raise ValueError("keys must be different numbers from 1 on, at least one")
        if not 0 <= self.quorum <= len(self.witnesses):
            raise ValueError(f"quorum must be between 0 and the number of witnesses, {len(self.witnesses)}")
