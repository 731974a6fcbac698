"""
Looking for SQL and for active HTML in what comes from outside, with libinjection.

Roomkey itself binds every value and escapes every page, so none of it does harm here. It is looked for because of what
lies behind: names and metadata end in other people's databases and pages, and whoever tries this is worth knowing of.

libinjection is in C, comes as source and under the GPL, so it is an extra. Without it nothing is looked for, and
the server says so when it starts: a few patterns of our own would refuse honest people and stop nobody.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from importlib import import_module
from typing import Any, Final, cast

from msgspec import Struct

from roomkey.errors import SuspiciousInput

EXTRA: Final = "inspection"

MAX_TEXT_BYTES: Final = 16 * 1024
"""How much of free text is looked at, from its beginning: libinjection takes up to 0.2 µs a byte."""

REPORT_EVERY: Final = timedelta(minutes=1)
MAX_REPORTED: Final = 10_000
"""Sessions of which it is remembered that they were reported: the latest ones."""


class Reaction(StrEnum):
    """What is done about text that looks like an attack."""

    OFF = "off"
    """Nothing: it is not looked at."""
    FLAG = "flag"
    """It passes, and a security event says so: once per session and minute."""
    REJECT = "reject"
    """It is refused, and a security event says so."""


class InspectionSettings(Struct, frozen=True, kw_only=True):
    """What is done about SQL and active HTML in what comes from outside. Needs ``pip install roomkey[inspection]``."""

    identities: Reaction = Reaction.REJECT
    """In user ids, device names, keys and texts of metadata, and labels of versions."""
    free_text: Reaction = Reaction.FLAG
    """In messages of ``/ws``, and in what is written into documents over REST as JSON or text. People do write about
    ``<script>``, so by default it is only reported. What Yjs editors type is not looked at."""


class Suspicion(StrEnum):
    """What text looks like."""

    SQL = "sql_injection"
    HTML = "active_html"


Detector = Callable[[str], Suspicion | None]


def load_detector() -> Detector | None:
    """What looks at one text; ``None`` if libinjection is not installed."""
    try:
        library: Any = import_module("libinjection")
    except ImportError:
        return None
    is_sql, is_html = library.is_sql_injection, library.is_xss

    def look(text: str) -> Suspicion | None:
        # Active is a tag, a comment or the value of an attribute: without one of these there is none.
        if ("<" in text or "=" in text) and is_html(text)["is_xss"]:
            return Suspicion.HTML
        return Suspicion.SQL if is_sql(text)["is_sqli"] else None

    return look


class Inspector:
    """Looks at what comes from outside. One for a node."""

    def __init__(self, settings: InspectionSettings, detector: Detector | None) -> None:
        self.settings = settings
        self._detector = detector
        self._reported: dict[str, datetime] = {}

    @property
    def is_missing(self) -> bool:
        """Whether something should be looked at, and nothing is there that could."""
        wanted = {self.settings.identities, self.settings.free_text} != {Reaction.OFF}
        return wanted and self._detector is None

    @property
    def reads_text(self) -> bool:
        """Whether free text is looked at."""
        return self._detector is not None and self.settings.free_text is not Reaction.OFF

    @property
    def rejects_text(self) -> bool:
        """Whether free text that looks like an attack is refused."""
        return self.settings.free_text is Reaction.REJECT

    def look_at_identity(self, fields: Iterable[tuple[str, str | None]]) -> Suspicion | None:
        """
        What these fields, by name, look like: to be reported.

        Raises:
            SuspiciousInput: If that is to be refused.
        """
        if self._detector is None or self.settings.identities is Reaction.OFF:
            return None
        for field, text in fields:
            found = None if text is None or text.isalnum() else self._detector(text)
            if found is not None and self.settings.identities is Reaction.REJECT:
                raise SuspiciousInput(f"{field} looks like {_IN_WORDS[found]}")
            if found is not None:
                return found
        return None

    def look_at_message(self, encoded: bytes, payload: Any) -> Suspicion | None:
        """What the texts in ``payload``, of which ``encoded`` is the JSON, look like."""
        if len(encoded.translate(None, _MARKS)) == len(encoded):
            return None
        return self.look_at_text(payload)

    def look_at_text(self, value: Any) -> Suspicion | None:
        """What the texts in a JSON value look like, as far as it is looked at: ``MAX_TEXT_BYTES``."""
        if self._detector is None:
            return None
        room = MAX_TEXT_BYTES
        for text in texts_in(value):
            if _is_marked(text):
                found = self._detector(text[:room])
                if found is not None:
                    return found
            room -= len(text)
            if room <= 0:
                break
        return None

    def is_news(self, who: str, now: datetime) -> bool:
        """Whether it is to be reported that ``who`` sent something: not again within a minute."""
        before = self._reported.get(who)
        if before is not None and now - before < REPORT_EVERY:
            return False
        self._reported.pop(who, None)
        self._reported[who] = now
        if len(self._reported) > MAX_REPORTED:
            del self._reported[next(iter(self._reported))]
        return True


_IN_WORDS: Final[Mapping[Suspicion, str]] = {Suspicion.SQL: "SQL", Suspicion.HTML: "active HTML"}

# An injection needs to get out of where it is put: it begins a tag, an attribute or a comment, ends a text or a
# statement, or compares. Text that has none of these characters is taken as it is, which is most of it. In JSON a
# quotation mark or an escaped one of these has a backslash.
_MARKS: Final = b"'<=;#`\\"
_MARKS_OF_TEXT: Final = "'\"<=;#`"


def _is_marked(text: str) -> bool:
    for mark in _MARKS_OF_TEXT:  # noqa: SIM110  # any() takes three times as long
        if mark in text:
            return True
    return False


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys included. Not recursive: how deep it nests is somebody else's matter."""
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            for key, inner in cast("dict[str, Any]", one).items():
                yield key
                waiting.append(inner)
        elif isinstance(one, list):
            waiting.extend(cast("list[Any]", one))
