"""Who is in an open document, as the document sees them: its clients here, those elsewhere, and other users."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Protocol

from roomkey.wire.lib0 import AwarenessEntry


class Audience(Protocol):
    """The clients in a document, as the document sees them. Nothing here waits, nothing here raises."""

    def changed(self, update: bytes, message: bytes | None, now: datetime) -> None:
        """
        Something in the document is new.

        ``message`` is the whole message that brought it, if one did: what is passed on need not be encoded again.
        """
        ...

    def shown(self, entries: Sequence[AwarenessEntry], now: datetime) -> None:
        """Awareness has changed."""
        ...

    def remind(self, clients: Iterable[int]) -> None:
        """Have these Yjs clients show themselves anew: somewhere they are taken for gone."""
        ...

    def deleted(self) -> None:
        """The document was deleted: the clients' copies must not come back."""
        ...

    def lost(self) -> None:
        """The document cannot be used on this node any more; clients may reconnect."""
        ...

    def storage_lost(self) -> None:
        """Storage has lost the document: clients keep their copies, and come back later."""
        ...


class Elsewhere(Protocol):
    """The other nodes on which a document may be open. Nothing here waits, nothing here raises."""

    def shown(self, name: str, entries: Sequence[AwarenessEntry]) -> None:
        """Clients on this node show something else of themselves, or have gone."""
        ...

    def remind(self, name: str, clients: Iterable[int]) -> None:
        """Have Yjs clients that are connected to other nodes show themselves anew."""
        ...


class Pin:
    """Keeps a document open until it is released, once."""

    __slots__ = ("_release",)

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let go. Repetitions do not matter."""
        release, self._release = self._release, None
        if release is not None:
            release()
