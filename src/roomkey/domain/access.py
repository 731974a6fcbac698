"""Who may do what with which document: grants, and the one function that reads them."""

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache

from msgspec import Struct

from roomkey.errors import InvalidInput

MAX_PATTERN_BYTES = 1024
"""As long as a document's name may be."""

MAX_GRANTS = 64


class Access(StrEnum):
    """What a grant allows. Each level includes the ones before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


_LEVEL = {Access.READ: 1, Access.WRITE: 2, Access.ADMIN: 3}


class Grant(Struct, frozen=True, gc=False):
    """
    One line of a session's rights: ``access`` to the documents that match ``documents``.

    In the pattern ``*`` matches within one segment (no ``/``), ``**`` matches anything. Every other
    character stands for itself; case counts.
    """

    documents: str
    access: Access


Grants = tuple[Grant, ...]

EVERYTHING_WRITABLE: Grants = (Grant("**", Access.WRITE),)
"""What a session may do in ``--dev`` when its creator did not say."""


class Role(StrEnum):
    """What an API key is for. ``admin`` may do everything, ``service`` what an application's backend needs."""

    ADMIN = "admin"
    SERVICE = "service"


def access_to(document: str, grants: Sequence[Grant]) -> Access | None:
    """The access that the first matching grant gives, or ``None``: what no grant mentions is closed."""
    for grant in grants:
        if _pattern(grant.documents).fullmatch(document):
            return grant.access
    return None


def allows(grants: Sequence[Grant], document: str, wanted: Access) -> bool:
    """Whether the first grant that matches ``document`` reaches the level ``wanted``."""
    given = access_to(document, grants)
    return given is not None and _LEVEL[given] >= _LEVEL[wanted]


def check_grants(grants: Sequence[Grant]) -> Grants:
    """
    Return ``grants`` as they are stored.

    Raises:
        InvalidInput: If there are too many, or a pattern is empty, too long or has control characters.
    """
    if len(grants) > MAX_GRANTS:
        raise InvalidInput(f"a session has at most {MAX_GRANTS} grants")
    for grant in grants:
        pattern = grant.documents
        if not pattern or len(pattern.encode("utf-8", "surrogatepass")) > MAX_PATTERN_BYTES:
            raise InvalidInput(f"a grant's pattern has 1 to {MAX_PATTERN_BYTES} bytes")
        if not pattern.isprintable():
            raise InvalidInput("a grant's pattern must not contain control characters")
    return tuple(grants)


@lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    # Runs of three or more stars would only make the expression slow, so they count as two.
    parts = re.split(r"(\*+)", text)
    expression = "".join(
        re.escape(part) if not part.startswith("*") else ("[^/]*" if part == "*" else ".*") for part in parts
    )
    return re.compile(expression, re.DOTALL)
