"""What ``take_in`` decides, whatever the technology: which of two records is the newer one, and what contradicts."""

from msgspec.structs import replace

from roomkey.domain.session import AnyEvent
from roomkey.errors import Conflict
from roomkey.ports import DocumentItem, DocumentVersion, LoggedEvent, SessionItem


def succeeds(item: SessionItem, held: SessionItem | None) -> bool:
    """
    Whether ``item`` takes the place of what is ``held``; ``False`` if that is the same.

    Raises:
        Conflict: If what is held is newer, or is another session.
    """
    if held is None:
        return True
    if item == held:
        return False
    older, newer = held.session.version, item.session.version
    if newer < older or item.epoch < held.epoch:
        raise Conflict(f"the session {item.session.id} is there already, and newer")
    if newer == older and _facts(item) != _facts(held):
        raise Conflict(f"another session {item.session.id} is there already")
    return True


def _facts(item: SessionItem) -> object:
    """What only events change; activity, uses of tokens and epochs change without."""
    session, secret = item.session, item.secret
    return (
        replace(session, last_seen_at=session.created_at),
        replace(secret, uses=()),
    )


def raised(epoch: int, held: int) -> int:
    """
    The epoch of a user who is at ``held``.

    Raises:
        Conflict: If that is higher.
    """
    if epoch < held:
        raise Conflict("a user was revoked more often already")
    return epoch


def follows(sequence: int, event: AnyEvent, head: int, held: LoggedEvent | None) -> bool:
    """
    Whether an event is to be appended to a log that ends at ``head``; ``False`` if it is there, or was and is gone.

    ``held`` is the event of its number, if the log has one.

    Raises:
        Conflict: If another event is there, or one is missing before it.
    """
    if sequence == head + 1:
        return True
    if sequence > head:
        raise Conflict(f"a log ends at {head}, and cannot go on with {sequence}")
    if held is not None and held.sequence == sequence and held.event != event:
        raise Conflict(f"another event has the number {sequence} already")
    return False


def check_document(item: DocumentItem, lineage: str, sequence: int, last_version: int) -> None:
    """
    Return if ``item`` may take the place of what is there.

    Raises:
        Conflict: If that is another document, or further.
    """
    record = item.stored.record
    if record.lineage != lineage:
        raise Conflict("another document of this name is there already")
    if record.sequence < sequence or item.last_version < last_version:
        raise Conflict("the document is there already, and has changed since")


def check_version(version: DocumentVersion, content: bytes, held: tuple[DocumentVersion, bytes] | None) -> bool:
    """
    Whether a version is to be stored; ``False`` if it is there.

    Raises:
        Conflict: If another one has its number.
    """
    if held is None:
        return True
    if held != (version, content):
        raise Conflict(f"another version has the number {version.number} already")
    return False
