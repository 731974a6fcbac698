"""The settings of the REST interface, apart from what it does: whoever reads a configuration need not load that."""

from datetime import timedelta

from msgspec import Struct


class ApiSettings(Struct, frozen=True, kw_only=True):
    """
    The limits of the REST interface.

    ``public_url`` is where clients reach it, such as ``https://rooms.example.com``; without it they are told
    the host that they asked for. If it has no path, not even ``/``, the place where the interface is mounted is
    added. Sockets are opened at ``websocket_path`` below. Pages of ``allowed_origins`` may use it from a browser. A
    body has ``max_body_bytes`` at most, one that is put into a document ``max_document_bytes``. Under another server
    than Roomkey's own, which has ``http.body_timeout``, it has ``body_timeout`` to arrive. Answers to requests with
    an Idempotency-Key are kept for ``idempotency_window``, at most ``idempotency_max_bytes`` of them, in memory only.
    """

    public_url: str | None = None
    websocket_path: str = "/ws"
    allowed_origins: tuple[str, ...] = ()
    max_body_bytes: int = 64 * 1024
    max_document_bytes: int = 16 * 1024 * 1024
    body_timeout: timedelta = timedelta(seconds=20)
    idempotency_window: timedelta = timedelta(hours=24)
    idempotency_max_bytes: int = 8 * 1024 * 1024
