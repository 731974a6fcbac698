"""What sessions may do, and how the application is asked about it."""

from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

from msgspec import Struct

from roomkey.domain.access import Grant, check_grants
from roomkey.errors import InvalidInput, RoomkeyError
from roomkey.security.signatures import SigningSecret


class AccessSettings(Struct, frozen=True, kw_only=True):
    """What sessions may do."""

    default_grants: tuple[Grant, ...] = ()
    """Grants of sessions that were created without any. ``--dev`` makes everything writable, unless this is set."""
    url: str | None = None
    """Address of the application's hook, which is asked what sessions may do in documents. Off: grants alone say it."""
    secret: str | None = None
    """Secret that signs what the hook is asked (Standard Webhooks): ``whsec_`` and 24 to 64 bytes in base64."""
    timeout: timedelta = timedelta(seconds=2)
    """Time that the application has for an answer, all attempts of the hook together."""
    attempts: int = 2
    """Number of times that the hook is asked before it counts as away."""
    max_age: timedelta = timedelta(minutes=1)
    """Age from which the application's answer is asked for again: at the door, and for those who are inside."""
    stale_if_error: timedelta = timedelta(minutes=10)
    """Time for which an answer is used beyond its age while the application gives none. 0: everybody has to leave."""
    max_decisions: int = 100_000
    """Maximum number of answers that are remembered, one for each session and document."""

    def __repr__(self) -> str:
        return f"AccessSettings(default_grants={self.default_grants!r}, max_age={self.max_age!r})"


def problems(settings: AccessSettings) -> Iterator[str]:
    """Reasons why these settings cannot be used."""
    try:
        check_grants(settings.default_grants)
    except RoomkeyError as error:
        yield f"access.default_grants: {error}"
    if (settings.url is None) != (settings.secret is None):
        yield "access.url and access.secret belong together: what the hook is asked is signed"


def check_url(url: str) -> None:
    """
    Raise unless this can be the address of a hook. What is wrong is said without showing it: there may be a key in it.

    Raises:
        ValueError: If it cannot.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # reading it finds out whether it is one
    except ValueError:
        raise ValueError("is not a URL such as https://app.example.com/roomkey/access") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment or not url.isprintable():
        raise ValueError("is not a URL such as https://app.example.com/roomkey/access")
    if parts.username is not None:
        raise ValueError("has no user and password in it: access.secret signs what is asked")


def check_secret(secret: str) -> None:
    """
    Raise unless this can be a signing secret.

    Raises:
        ValueError: If it cannot.
    """
    try:
        SigningSecret(secret)
    except InvalidInput as error:
        raise ValueError(str(error)) from None
