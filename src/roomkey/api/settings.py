"""The settings of the REST interface, apart from what it does: whoever reads a configuration need not load that."""

from datetime import timedelta

from msgspec import Struct


class ApiSettings(Struct, frozen=True, kw_only=True):
    """The limits of the REST interface, and where it is found."""

    public_url: str | None = None
    """Where clients reach it, such as ``https://rooms.example.com``. If it has no path, not even ``/``, the place where
    the interface is mounted is added. Off: clients are told the host that they asked for."""
    websocket_path: str = "/ws"
    """Path below that where sockets are opened."""
    allowed_origins: tuple[str, ...] = ()
    """Origins whose pages may use it from a browser."""
    max_body_bytes: int = 64 * 1024
    """Maximum size of the body of a request, except for what becomes part of a document."""
    max_document_bytes: int = 16 * 1024 * 1024
    """Maximum size of a body that becomes part of a document."""
    body_timeout: timedelta = timedelta(seconds=20)
    """Time for a body to arrive, under another server than Roomkey's own, which has ``http.body_timeout``."""
    idempotency_window: timedelta = timedelta(hours=24)
    """Time for which the answer to a request with an ``Idempotency-Key`` is kept. 0: it is not kept."""
    idempotency_max_bytes: int = 8 * 1024 * 1024
    """Maximum size of all answers that are kept for it, in memory only."""
