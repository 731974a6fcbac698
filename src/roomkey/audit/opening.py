"""Wiring the log of a node: from its settings, its keys, and what the node has."""

from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from typing import Final

from roomkey.audit.log import Alarm, AuditLog
from roomkey.audit.notes import Signer
from roomkey.audit.publisher import Publisher
from roomkey.audit.remembered import RememberedHead
from roomkey.audit.settings import AuditSettings
from roomkey.audit.stored import StoredLog
from roomkey.audit.witnessing import HttpTransport, Transport, Witnesses
from roomkey.leasing import Chore
from roomkey.ports import Clock, Leases, ObjectStore

LEASE: Final = "audit log"
LIFETIME: Final = timedelta(seconds=5)
"""How long others wait for a node that died while it integrated and published."""


def open_log(
    objects: ObjectStore,
    leases: Leases,
    *,
    key_of: Callable[[int], bytes],
    node: str,
    clock: Clock,
    settings: AuditSettings,
    transport: Transport | None = None,
    alarm: Alarm = lambda _code, _details: None,
) -> AuditLog:
    """
    The log in ``objects``.

    Args:
        key_of: The private keys by their numbers, which are in ``audit.keys``: 32 secret bytes each.
        transport: What carries requests to witnesses, if not HTTP.
        alarm: Is told if the log contradicts what was signed.

    Raises:
        ConfigurationError: If a witness has no proper key.
    """
    stored = StoredLog(objects)
    origin = settings.origin or name_by_key(key_of(1))
    publisher = Publisher(
        stored,
        origin=origin,
        signers=[Signer(origin, key_of(number)) for number in settings.keys],
        remembered=RememberedHead(settings.remembered_head, origin),
        witnesses=Witnesses(settings.witnesses, stored.proof, transport or HttpTransport(settings.witness_timeout)),
        quorum=settings.quorum,
    )
    chore = Chore(leases, LEASE, node, lifetime=LIFETIME, keeps=True)
    return AuditLog(stored, publisher, chore, clock=clock, settings=settings, alarm=alarm)


def name_by_key(seed: bytes) -> str:
    """The name of a log that was given none, under a domain that never exists (RFC 6761, 6.4)."""
    key = Signer("roomkey.invalid", seed).key
    return f"roomkey.invalid/audit/{sha256(key.public).hexdigest()[:16]}"
