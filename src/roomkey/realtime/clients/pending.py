"""What a Hocuspocus client sends before its document is open: clients send everything at once."""

from roomkey.documents.settings import DocumentSettings
from roomkey.realtime.protocol import yjs_messages as yjs


class PendingMessages:
    """Messages that wait until a document is open, in the order in which they came, all within one bound."""

    __slots__ = ("_bytes", "_frames", "_settings")

    def __init__(self, settings: DocumentSettings) -> None:
        self._settings = settings
        self._frames: list[tuple[str, bytes]] = []
        self._bytes = 0

    def put(self, address: str, frame: bytes) -> bool:
        """Keep a message; ``False`` if there is no room for it."""
        settings = self._settings
        self._bytes += len(frame)
        self._frames.append((address, frame))
        return (
            self._bytes <= settings.max_unauthenticated_bytes
            and len(self._frames) <= settings.max_unauthenticated_messages
            and len({address for address, _ in self._frames}) <= settings.max_documents_per_socket
        )

    def take(self, address: str) -> list[bytes]:
        """Remove and return the messages for ``address``."""
        taken = [frame for waiting, frame in self._frames if waiting == address]
        self._frames = [(waiting, frame) for waiting, frame in self._frames if waiting != address]
        self._bytes -= sum(map(len, taken))
        return taken

    def drop(self, address: str) -> None:
        """Forget the messages for ``address`` that were sent with a token that is not good, up to the next one."""
        frames = self.take(address)
        is_token = [isinstance(yjs.decode_addressed(frame).message, yjs.Token) for frame in frames]
        for frame in frames[is_token.index(True) :] if any(is_token) else ():
            self.put(address, frame)

    def take_all(self) -> list[bytes]:
        """Remove and return all messages."""
        frames, self._frames, self._bytes = self._frames, [], 0
        return [frame for _, frame in frames]
