"""When events are told, and to which endpoints."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from roomkey.domain.access import matches
from roomkey.errors import InvalidInput
from roomkey.hooks.events import EVERY_TYPE, AnyHookEvent, ContentForm, DocumentEvent, EventType
from roomkey.security.signatures import SigningKey, signing_key

MAX_ENDPOINTS: Final = 32
MAX_SECRETS: Final = 4
MAX_PATTERNS: Final = 64

_NAME: Final = re.compile("[a-z0-9][a-z0-9-]{0,39}")


class WebhookEndpoint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Where webhooks are sent. ``events`` and ``documents`` say which: types, and patterns of documents as in grants.

    Every one of ``secrets`` signs each message, so that a receiver accepts messages while a secret is being replaced.
    """

    name: str
    """What it is called, in the interface and in logs: lower-case letters, digits and hyphens."""
    url: str
    """Address that messages are posted to: ``https://``, or with ``allow_private`` also ``http://``."""
    secrets: tuple[str, ...]
    """What signs messages: ``whsec_`` and 24 to 64 bytes in base64 (HMAC), or ``whsk_`` and an Ed25519 key."""
    events: tuple[EventType, ...] = EVERY_TYPE
    documents: tuple[str, ...] = ("**",)
    content: ContentForm | None = None
    """Form in which the content of a document comes with its events. Off: without."""
    allow_private: bool = False
    """Whether it may have an address that is not public, such as 127.0.0.1 or 10.0.0.7."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError("the name of a webhook has 1 to 40 lower-case letters, digits and hyphens")
        _check_url(self.url, is_private=self.allow_private)
        if not 1 <= len(self.secrets) <= MAX_SECRETS:
            raise ValueError(f"a webhook has 1 to {MAX_SECRETS} secrets")
        if not self.events or not 1 <= len(self.documents) <= MAX_PATTERNS or not all(self.documents):
            raise ValueError(f"a webhook has at least one type of events, and 1 to {MAX_PATTERNS} patterns")
        try:
            self.keys()
        except InvalidInput as error:
            raise ValueError(str(error)) from None

    def keys(self) -> Sequence[SigningKey]:
        """What signs messages, the newest first."""
        return [signing_key(secret) for secret in self.secrets]

    def wants(self, event: AnyHookEvent) -> bool:
        """Whether the event is told to it. Sessions are in no document, so patterns say nothing of them."""
        return event.type in self.events and (not isinstance(event, DocumentEvent) or self.covers(event.document))

    def covers(self, document: str) -> bool:
        """Whether one of its patterns matches the document."""
        return any(matches(pattern, document) for pattern in self.documents)

    @property
    def shown_url(self) -> str:
        """The address without its query, in which there may be a key."""
        return urlsplit(self.url)._replace(query="").geturl()

    def __repr__(self) -> str:
        return f"WebhookEndpoint({self.name!r}, {self.shown_url!r})"

    def __str__(self) -> str:
        return f"{self.name}:{self.shown_url}"


class HookSettings(Struct, frozen=True, kw_only=True):
    """When events of documents are told, and how long functions of the application have for them."""

    debounce: timedelta = timedelta(seconds=2)
    """Time without a change after which a document counts as changed."""
    max_wait: timedelta = timedelta(seconds=10)
    """Maximum time from the first change until the document counts as changed, even if it goes on changing."""
    timeout: timedelta = timedelta(seconds=10)
    """Time that a function of the application has for an event; then it is cancelled."""
    max_waiting: int = 10_000
    """Maximum number of events that wait for functions of the application; beyond it the oldest are dropped."""


class WebhookSettings(Struct, frozen=True, kw_only=True):
    """Where webhooks are sent, and what is kept of them."""

    endpoints: tuple[WebhookEndpoint, ...] = ()
    """Where webhooks are sent: name, address, secrets, types of events, patterns of documents."""
    timeout: timedelta = timedelta(seconds=10)
    """Time that an endpoint has for its answer, connecting included."""
    max_in_flight: int = 32
    """Maximum number of messages on their way to one endpoint at a time."""
    retry_for: timedelta = timedelta(days=3)
    """Time for which a message is tried again; then it counts as failed."""
    max_waiting: int = 100_000
    """Maximum number of messages that wait for one endpoint; beyond it the oldest are dropped and counted."""
    max_content_bytes: int = 256 * 1024
    """Maximum size of the content of a document in an event; of a larger one the event says that it was left out."""
    keep_deliveries: int = 1_000
    """Number of deliveries per endpoint that are kept to be looked at and replayed."""
    keep_for: timedelta = timedelta(days=7)
    """Time for which they are kept."""

    def __repr__(self) -> str:
        return f"WebhookSettings({len(self.endpoints)} endpoints)"


def problems(hooks: HookSettings, webhooks: WebhookSettings) -> Iterator[str]:
    """Reasons why these settings cannot be used."""
    if hooks.max_wait < hooks.debounce:
        yield "hooks.max_wait: must be at least hooks.debounce"
    names = Counter(endpoint.name for endpoint in webhooks.endpoints)
    yield from (f"webhooks.endpoints: {name} is there twice" for name, count in names.items() if count > 1)
    if len(webhooks.endpoints) > MAX_ENDPOINTS:
        yield f"webhooks.endpoints: there are at most {MAX_ENDPOINTS}"


def _check_url(url: str, *, is_private: bool) -> None:
    example = "is not a URL such as https://app.example.com/roomkey/events"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # reading it finds out whether it is one
    except ValueError:
        raise ValueError(f"url {example}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment or not url.isascii():
        raise ValueError(f"url {example}")
    if not url.isprintable() or " " in url:
        raise ValueError(f"url {example}")
    if parts.username is not None:
        raise ValueError("url has no user and password in it: messages are signed")
    if parts.scheme == "http" and not is_private:
        raise ValueError("url is https://, unless allow_private is set: documents are not sent in the clear")
