"""From values in Redis to sessions and back, and the arguments that scripts get."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from roomkey.backends.damage import DamageNotes
from roomkey.backends.records import decode_event, decode_session, decode_session_only, encode_event, encode_session
from roomkey.backends.redis.connection import Argument
from roomkey.backends.redis.layout import NUMBER_OF, Header, id_key, micros, moment_of, state_of, user_prefix
from roomkey.backends.session_changes import Change, Held
from roomkey.domain.lifecycle import deadline
from roomkey.domain.session import AnyEvent, Session, SessionId, UserRevoked, partition_of
from roomkey.errors import InvalidInput, Serialization
from roomkey.ports import PLAIN_RECORDS, LoggedEvent, NewSession, RecordCodec, RecordKind, Secret

_LONGEST_AGE: Final = timedelta(days=3653) // timedelta(microseconds=1)


class Found(NamedTuple):
    """A session as it was read: ``record`` is what is stored behind its header, ``epoch`` that of its user."""

    held: Held
    record: bytes
    epoch: int

    def as_read(self) -> Session:
        """How it is shown."""
        return self.held.as_read(self.epoch)


class Translator:
    """What becomes of sessions and events on their way to Redis and back, through the codec."""

    def __init__(self, codec: RecordCodec) -> None:
        self._codec = codec
        self.damage = DamageNotes("sessions")

    # --- sessions -------------------------------------------------------------------------------------

    def found(self, id: SessionId, value: bytes, epoch: bytes | int | None) -> Found:
        """
        The session with this id.

        Raises:
            Serialization: If it is damaged.
        """
        header, record = Header.of(value)
        decoded = self._codec.decode(RecordKind.SESSION, id.encode(), header.version, record)
        session, secret = decode_session(decoded)
        return Found(Held(_checked(session, id, header), secret, header.epoch), record, int(epoch or 0))

    def session(self, id: SessionId, value: bytes, epoch: bytes | None) -> Session:
        """The session with this id as it is shown, which is all that most readers want."""
        header, record = Header.of(value)
        decoded = self._codec.decode(RecordKind.SESSION, id.encode(), header.version, record)
        session = _checked(decode_session_only(decoded), id, header)
        if epoch is None or header.epoch >= int(epoch):
            return session
        return Held(session, _NO_SECRET, header.epoch).as_read(int(epoch))

    def readable(self, id: SessionId, value: bytes, epoch: bytes | int | None) -> Found | None:
        """Like ``found`` where one damaged record must not stop what is done to others."""
        try:
            return self.found(id, value, epoch)
        except Serialization as error:
            self.damage.note(RecordKind.SESSION, id, error)
            return None

    def shown(self, id: SessionId, value: bytes | None, epoch: bytes | None) -> Session | None:
        """Like ``session`` where one damaged record must not stop what is done to others."""
        if value is None:
            return None
        try:
            return self.session(id, value, epoch)
        except Serialization as error:
            self.damage.note(RecordKind.SESSION, id, error)
            return None

    @property
    def has_checksums(self) -> bool:
        """Whether its records carry some."""
        return self._codec is not PLAIN_RECORDS

    def record(self, session: Session, secret: Secret) -> bytes:
        """What is stored of a session behind its header."""
        encoded = encode_session(session, secret)
        return self._codec.encode(RecordKind.SESSION, session.id.encode(), session.version, encoded)

    # --- what scripts get -----------------------------------------------------------------------------

    def newcomer(self, new: NewSession) -> list[Argument]:
        """A new session, as ``create`` takes it."""
        session = new.session
        id = id_key(session.id)
        if id is None:
            raise InvalidInput("a session id is two hex digits and 128 bits in base32")
        due = deadline(session) or session.expires_at
        key, event = self.event(new.event)
        return [id, micros(session.created_at), micros(due), self.record(session, new.secret), key, event]

    def change(self, change: Change) -> list[Argument]:
        """A change, as ``take_change`` takes it."""
        session, at = change.session, change.event.at
        id = id_key(session.id)
        assert id is not None  # noqa: S101  # it was found under this id
        due = deadline(session)
        return [
            id,
            session.version,
            NUMBER_OF[session.state],
            micros(session.last_seen_at),
            self.record(session, change.secret),
            b"" if due is None else micros(due),
            micros(at),
            # A clock that was set back makes ages negative; the sum must not be, nor beyond 64 bits.
            min(max(0, micros(at) - micros(session.created_at)), _LONGEST_AGE),
            *self.event(change.event),
        ]

    # --- events ---------------------------------------------------------------------------------------

    def event(self, event: AnyEvent) -> tuple[bytes, bytes]:
        """The key of an event, which no other has, and its record."""
        key = _event_key(event)
        return key, self._codec.encode(RecordKind.EVENT, key, 0, encode_event(event))

    def read_event(self, fields: Sequence[Any]) -> AnyEvent:
        """
        The event of an entry of the log.

        Raises:
            Serialization: If it is damaged.
        """
        try:
            _, _, _, key, _, record = fields
        except ValueError:
            raise Serialization("an event record is damaged") from None
        return decode_event(self._codec.decode(RecordKind.EVENT, key, 0, record))

    def events(self, partition: int, entries: Sequence[Sequence[Any]]) -> list[LoggedEvent]:
        """The events of a part of the log, up to one that cannot be read; such ones in front are left out."""
        found: list[LoggedEvent] = []
        for name, fields in entries:
            sequence = int(name.partition(b"-")[0])
            try:
                found.append(LoggedEvent(sequence, self.read_event(fields)))
            except Serialization as error:
                self.damage.note(RecordKind.EVENT, f"{partition:02x}, {sequence}", error)
                if found:
                    break
        return found


_NO_SECRET: Final = Secret(current=b"")


def _checked(session: Session, id: SessionId, header: Header) -> Session:
    """The session with what the header knows better; both must be about the same."""
    agrees = session.id == id and session.version == header.version and session.state is state_of(header.state)
    if not agrees:
        raise Serialization("a session record is damaged: it is not what its header says")
    seen = micros(session.last_seen_at)
    return replace(session, last_seen_at=moment_of(header.seen)) if header.seen > seen else session


def _event_key(event: AnyEvent) -> bytes:
    if isinstance(event, UserRevoked):
        return bytes([partition_of(event.user)]) + event.epoch.to_bytes(4) + (user_prefix(event.user) or b"")
    return bytes([partition_of(event.user)]) + event.version.to_bytes(4) + (id_key(event.session) or b"")
