"""Settings of logging in with a browser, and the cookies that it is given."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Literal

from msgspec import Struct

from roomkey.security import credentials, csrf


class LoginSettings(Struct, frozen=True, kw_only=True):
    """Cookies of browsers, and proofs of possession."""

    same_site: Literal["lax", "strict"] = "lax"
    """``SameSite`` of the cookies. ``strict``: not even a link on a foreign page brings them along."""
    clear_site_data: tuple[Literal["cache", "cookies", "storage"], ...] = ()
    """What browsers forget at a log-out (``Clear-Site-Data``); ``cookies`` are those of the whole domain."""
    reauthentication_age: timedelta | None = None
    """Time after which users must prove again who they are before they end all their sessions or delete a document.
    Off: never."""
    proof_age: timedelta = timedelta(seconds=60)
    """Time for which a DPoP proof is good, and by which the clock of its maker may be wrong."""
    proof_nonces: bool = False
    """Demand in DPoP proofs a nonce that this server has made."""

    def cookies(self, token: str, csrf_token: str, lifetime: timedelta) -> Sequence[str]:
        """The ``Set-Cookie`` headers of a log-in: the token, which no script sees, and what scripts send back."""
        age = max(0, int(lifetime.total_seconds()))
        shared = f"Path=/; Secure; SameSite={self.same_site.capitalize()}; Max-Age={age}"
        return (
            f"{credentials.COOKIE}={token}; HttpOnly; {shared}",
            f"{csrf.COOKIE}={csrf_token}; {shared}",
        )

    @property
    def site_data(self) -> str | None:
        """The ``Clear-Site-Data`` header of a log-out, if there is one."""
        return ", ".join(f'"{each}"' for each in self.clear_site_data) or None


DROPPED_COOKIES: Final = (
    credentials.DROPPED_COOKIE,
    f"{csrf.COOKIE}=; Max-Age=0; Path=/; Secure; SameSite=Lax",
)
"""``Set-Cookie`` headers after which a browser has none of them."""
