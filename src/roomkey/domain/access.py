"""Who may do what with which document: grants, and the one function that reads them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import cast

from msgspec import Struct
from msgspec.structs import replace

from roomkey.errors import InvalidInput

MAX_PATTERN_BYTES = 1024
"""Maximum length of a document's name."""

MAX_GRANTS = 256
"""Grants of one session. Every backend keeps so many of the longest patterns: `roomkey.testing.storage` tries it."""


class Access(StrEnum):
    """What a grant allows. Each level includes the ones before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


GROUP_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$"
"""What groups may be called: it stands in paths, logs and grants."""

MAX_GROUPS_OF_A_SESSION = 16
"""Groups that the grants of one session name: with 256 grants each, what a frame may cost has an end."""

_PIECE = re.compile(r"\*+|.", re.DOTALL)

_LEVEL = {access: level for level, access in enumerate(Access)}


class Grant(Struct, frozen=True, gc=False, omit_defaults=True):
    """
    One line of a session's rights: ``access`` to the documents that match ``documents``.

    In the pattern ``*`` matches within one segment (no ``/``), ``**`` matches anything. Every other
    character stands for itself; case counts.

    Or a ``group``: in the place of this line stand the grants that the group has whenever somebody asks. Whoever does
    not know of groups finds that it matches no document.
    """

    documents: str = ""
    access: Access | None = None
    group: str | None = None


Grants = tuple[Grant, ...]

GrantsOfGroup = Callable[[str], Grants]
"""The grants of the group of this name now: none if there is no such group. They name no groups themselves."""

GrantLike = Grant | Mapping[str, str]
"""A grant, or its fields under their names, as in JSON."""

EVERYTHING_WRITABLE: Grants = (Grant("**", Access.WRITE),)
"""What a session may do in ``--dev`` when its creator did not say."""


class Role(StrEnum):
    """
    What an API key is for.

    ``admin`` may do everything, ``service`` what an application's backend needs. ``auditor`` looks at everything but
    the contents of documents, and changes nothing. ``support`` looks at sessions, stops them and ends them.
    """

    ADMIN = "admin"
    SERVICE = "service"
    AUDITOR = "auditor"
    SUPPORT = "support"


def no_groups(name: str) -> Grants:  # noqa: ARG001
    """Where there are no groups."""
    return ()


def access_to(document: str, grants: Sequence[Grant], groups: GrantsOfGroup = no_groups) -> Access | None:
    """The access that the first matching grant gives; ``None`` if no grant matches."""
    for grant in grants:
        if grant.group is not None:
            access = access_to(document, groups(grant.group))
            if access is not None:
                return access
        elif _matches(grant.documents, document):
            return grant.access
    return None


def deciding_grant(document: str, grants: Sequence[Grant], groups: GrantsOfGroup = no_groups) -> Grant | None:
    """The first grant that matches, which gives the access; if it is of a group, it says of which."""
    for grant in grants:
        if grant.group is not None:
            found = deciding_grant(document, groups(grant.group))
            if found is not None:
                return replace(found, group=grant.group)
        elif _matches(grant.documents, document):
            return grant
    return None


def patterns_of(grants: Sequence[Grant], groups: GrantsOfGroup = no_groups) -> list[str]:
    """The patterns of everything that the grants are about."""
    own = [grant.documents for grant in grants if grant.group is None]
    return own + [each.documents for grant in grants if grant.group is not None for each in groups(grant.group)]


def groups_of(grants: Sequence[Grant]) -> set[str]:
    """The groups that the grants name."""
    return {grant.group for grant in grants if grant.group is not None}


def reaches(given: Access | None, wanted: Access) -> bool:
    """Whether ``given`` includes ``wanted``; ``None`` includes nothing."""
    return given is not None and _LEVEL[given] >= _LEVEL[wanted]


def narrower(one: Access | None, other: Access | None) -> Access | None:
    """What both of them allow."""
    if one is None or other is None:
        return None
    return one if _LEVEL[one] <= _LEVEL[other] else other


def widest(accesses: Iterable[Access | None]) -> Access | None:
    """The most that one of them allows."""
    return max((access for access in accesses if access is not None), key=_LEVEL.__getitem__, default=None)


def allows(grants: Sequence[Grant], document: str, wanted: Access) -> bool:
    """Whether the first grant that matches ``document`` reaches the level ``wanted``."""
    return reaches(access_to(document, grants), wanted)


def check_grants(grants: Sequence[GrantLike]) -> Grants:
    """
    Return ``grants`` as they are stored.

    Raises:
        InvalidInput: If one is no grant, if there are too many, or a pattern is empty, too long or has control
            characters.
    """
    if isinstance(grants, str | bytes) or not isinstance(cast("object", grants), Sequence):
        raise InvalidInput(f"grants must be a list of grants, not {type(grants).__name__}")
    if len(grants) > MAX_GRANTS:
        raise InvalidInput(f"a session has at most {MAX_GRANTS} grants")
    granted = tuple([_grant(index, grant) for index, grant in enumerate(grants)])
    for grant in granted:
        if grant.group is None:
            _check_pattern(grant.documents)
    if len(groups_of(granted)) > MAX_GROUPS_OF_A_SESSION:
        raise InvalidInput(f"the grants of a session name at most {MAX_GROUPS_OF_A_SESSION} groups")
    return granted


def check_group_grants(grants: Sequence[GrantLike]) -> Grants:
    """Return ``grants`` as those of a group are stored. Raises as ``check_grants``, and if one names a group."""
    granted = check_grants(grants)
    if groups_of(granted):
        raise InvalidInput("the grants of a group must not name a group")
    return granted


def check_group(name: str) -> str:
    """
    Return ``name`` if a group may have it.

    Raises:
        InvalidInput: If not.
    """
    if not re.fullmatch(GROUP_PATTERN, name):
        raise InvalidInput("the name of a group has 1 to 128 letters, digits and . _ : @ -")
    return name


def _check_pattern(pattern: str) -> None:
    if not pattern or len(pattern.encode("utf-8", "surrogatepass")) > MAX_PATTERN_BYTES:
        raise InvalidInput(f"a grant's pattern has 1 to {MAX_PATTERN_BYTES} bytes")
    if not pattern.isprintable():
        raise InvalidInput("a grant's pattern must not contain control characters")


def _grant(index: int, grant: object) -> Grant:
    """The grant that ``grant`` says, whoever wrote it."""
    if isinstance(grant, Mapping):
        fields = dict(cast("Mapping[object, object]", grant))
        if fields.keys() == {"group"}:
            return Grant(group=_group(index, fields["group"]))
        if fields.keys() != {"documents", "access"}:
            raise InvalidInput(f"grants[{index}] must have documents and access, or a group, and nothing else")
        documents, access = fields["documents"], fields["access"]
    elif isinstance(grant, Grant):
        documents, access = grant.documents, grant.access
        if grant.group is not None:
            if documents or access is not None:
                raise InvalidInput(f"grants[{index}] must have documents and access, or a group, not both")
            return Grant(group=_group(index, grant.group))
    else:
        raise InvalidInput(f"grants[{index}] must be a Grant or a mapping, not {type(grant).__name__}")
    if not isinstance(documents, str):
        raise InvalidInput(f"grants[{index}].documents must be text, not {type(documents).__name__}")
    if isinstance(grant, Grant) and isinstance(access, Access):
        return grant
    if not isinstance(access, str) or access not in _LEVEL:
        raise InvalidInput(f"grants[{index}].access must be one of {', '.join(Access)}")
    return Grant(documents, Access(access))


def _group(index: int, name: object) -> str:
    if not isinstance(name, str):
        raise InvalidInput(f"grants[{index}].group must be text, not {type(name).__name__}")
    return check_group(name)


def covers(pattern: str, other: str) -> bool:
    """Whether everything that matches the pattern ``other`` matches ``pattern``, too."""
    # Characters that no name may have stand for what the stars of `other` may be, so only stars can match them.
    return _matches(pattern, _PIECE.sub(_anything_of, other))


_SEGMENT, _ANYTHING = "\1", "\0"


def _anything_of(piece: re.Match[str]) -> str:
    stars = piece[0]
    return _SEGMENT if stars == "*" else _ANYTHING if stars.startswith("*") else stars


def literal_start(pattern: str) -> str:
    """What every document that matches ``pattern`` begins with."""
    return pattern.partition("*")[0]


def matches(pattern: str, document: str) -> bool:
    """Whether ``pattern`` matches the whole name."""
    return _matches(pattern, document)


@lru_cache(maxsize=4096)
def _matches(pattern: str, document: str) -> bool:
    """
    Whether ``pattern`` matches all of ``document``, in time proportional to the document's length.

    Every position in the pattern is one bit of a number, and a character moves all of them at once. A regular
    expression would do for honest patterns, but one with a dozen stars takes it years.
    """
    literals, any_segment, anything, end = _compiled(pattern)
    stars = any_segment | anything
    here = 1
    here |= (here & stars) << 1
    for character in document:
        staying = here & (anything if character in "/\0" else stars)
        here = (here & literals.get(character, 0)) << 1 | staying
        here |= (here & stars) << 1
        if not here:
            return False
    return bool(here & end)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> tuple[dict[str, int], int, int, int]:
    """For each literal, for ``*`` and for ``**``, the bits of its positions; and the bit of the end."""
    literals: dict[str, int] = {}
    any_segment = anything = 0
    pieces = _PIECE.findall(pattern)
    for position, piece in enumerate(pieces):
        bit = 1 << position
        if piece == "*":
            any_segment |= bit
        elif piece.startswith("*"):  # a longer run of stars says no more than two
            anything |= bit
        else:
            literals[piece] = literals.get(piece, 0) | bit
    return literals, any_segment, anything, 1 << len(pieces)
