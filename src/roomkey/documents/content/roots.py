"""
The content of a document, and changes to it: from JSON, from patches, and back to an older state.

Every change consists of ordinary edits of what differs, like those of a user at a keyboard. So concurrent edits
survive, cursors stay in place, and undo works.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, cast

from pycrdt import Array, Doc, Map, Text, XmlFragment

from roomkey.documents.content import text_edits
from roomkey.documents.content.json_patch import is_same, merged, operations_between, patched, pointer
from roomkey.documents.content.reconcile import reconcile
from roomkey.documents.content.values import SharedType, plain
from roomkey.documents.crdt.updates import MAX_VALUE_DEPTH, BlockKind, Places, SharedKind, Structs, read_update
from roomkey.errors import InvalidInput
from roomkey.security.inspection import is_deeper
from roomkey.wire.lib0 import MAX_NUMBER

MAX_EDITS: Final = 1_000
"""Maximum number of text edits in one change."""


class Kind(StrEnum):
    """What a root of a document is. ``EMPTY``: everything in it was deleted, and its kind is not known any more."""

    TEXT = "text"
    ARRAY = "array"
    MAP = "map"
    XML = "xml"
    EMPTY = "empty"


Kinds = Mapping[str, Kind]
Document = Doc[Any]

_TYPES: Final[Mapping[Kind, type[Any]]] = {Kind.TEXT: Text, Kind.ARRAY: Array, Kind.MAP: Map, Kind.XML: XmlFragment}
_EMPTY_VALUES: Final[Mapping[Kind, Any]] = {Kind.TEXT: "", Kind.ARRAY: [], Kind.MAP: {}}
_KINDS: Final[Mapping[type[Any], Kind]] = {type: kind for kind, type in _TYPES.items()}
_JSON_KINDS: Final[Mapping[type[Any], Kind]] = {str: Kind.TEXT, list: Kind.ARRAY, dict: Kind.MAP}


# --- what is there ------------------------------------------------------------------------------------


def root_kinds(structs: Structs) -> dict[str, Kind]:
    """
    The roots of a document and what they are, as far as it shows.

    A document does not say it: only what was put into a root tells.
    """
    places = Places(structs.blocks)
    kinds: dict[str, Kind] = {}
    for block in structs.blocks:
        place = places.of(block)
        if place is None or not isinstance(place.parent, str):
            continue
        if place.key is not None:
            kinds.setdefault(place.parent, Kind.MAP)  # texts and elements have keys, too: attributes
        elif (kind := _evidence(block.kind, block.shared)) is not None:
            kinds[place.parent] = max(kind, kinds.get(place.parent, kind), key=_WEIGHTS.__getitem__)
    for block in structs.blocks:
        if isinstance(block.parent, str):
            kinds.setdefault(block.parent, Kind.EMPTY)
    return kinds


_WEIGHTS: Final = {Kind.MAP: 0, Kind.ARRAY: 1, Kind.XML: 2, Kind.TEXT: 3}
"""Which evidence is the stronger: texts have types in them, but nothing else has strings of text."""

_XML_NODES: Final = frozenset({SharedKind.XML_ELEMENT, SharedKind.XML_TEXT})
_TEXT_BLOCKS: Final = frozenset({BlockKind.STRING, BlockKind.FORMAT, BlockKind.EMBED})


def _evidence(kind: BlockKind, shared: SharedKind | None) -> Kind | None:
    if kind in _TEXT_BLOCKS:
        return Kind.TEXT
    if kind is BlockKind.DELETED:
        return None
    return Kind.XML if shared in _XML_NODES else Kind.ARRAY


def kinds_of(doc: Document) -> dict[str, Kind]:
    """The roots of ``doc`` and what they are; of empty ones, what they were used as lately. Reads all of it."""
    kinds = root_kinds(read_update(doc.get_update()))
    used = dict(cast("Iterable[tuple[str, object]]", cast("Any", doc).items()))
    for name, kind in kinds.items():
        if kind is Kind.EMPTY:
            kinds[name] = _KINDS.get(type(used.get(name)), Kind.EMPTY)
    return kinds


def text_root(kinds: Kinds, name: str | None) -> str:
    """
    The text of this name, or the only one if it is not said which. What is empty may be a text.

    Raises:
        InvalidInput: If it is not clear which one is meant, or it is no text.
    """
    if name is not None:
        kind = kinds.get(name, Kind.EMPTY)
        if kind not in (Kind.TEXT, Kind.EMPTY):
            raise InvalidInput(f"the root {name!r} is no text but of the kind {kind}; this can be said of texts only")
        return name
    for wanted in (Kind.TEXT, Kind.EMPTY):
        match [name for name, kind in kinds.items() if kind is wanted]:
            case [only]:
                return only
            case [_, *_]:
                break
            case _:
                pass
    there = ", ".join(f"{name!r} ({kind})" for name, kind in kinds.items()) or "none"
    raise InvalidInput(f"say with root which text is meant; the roots of the document: {there}")


def rich_root(kinds: Kinds, name: str | None) -> str | None:
    """The rich text that is meant where a text is asked for: of this name, or the only one that is rich or a text."""
    if name is not None:
        return name if kinds.get(name) is Kind.XML else None
    found = [each for each, kind in kinds.items() if kind is Kind.XML]
    return found[0] if len(found) == 1 and Kind.TEXT not in kinds.values() else None


def root(doc: Document, name: str, kind: Kind) -> SharedType:
    """The root of this name, which is made if there is none."""
    return cast("SharedType", doc.get(name, type=_TYPES[kind]))


def to_json(doc: Document, kinds: Kinds) -> dict[str, Any]:
    """
    What the document says: a text is a string, XML its source, bytes are in base64, and ``null`` is what is empty.

    Raises:
        InvalidInput: If it nests too deep for that.
    """
    with doc.transaction():
        return {name: _said(doc, name, kind) for name, kind in kinds.items()}


def _said(doc: Document, name: str, kind: Kind) -> Any:
    return None if kind is Kind.EMPTY else plain(root(doc, name, kind))


# --- changes from JSON --------------------------------------------------------------------------------


def replace(doc: Document, roots: Mapping[str, Any], kinds: Kinds | None = None) -> None:
    """
    Make each of ``roots`` say its value, or nothing if that is ``None``; the others stay as they are.

    ``kinds`` are those of ``doc``, if they are known.

    Raises:
        InvalidInput: If a value is none that this root can have.
    """
    known = kinds_of(doc) if kinds is None else kinds
    for name, value in roots.items():
        _check_value(name, value, known.get(name, Kind.EMPTY))
    with doc.transaction():
        for name, value in roots.items():
            _assign(doc, name, value, known.get(name, Kind.EMPTY))


def merge_patch(doc: Document, patch: Any, kinds: Kinds | None = None) -> None:
    """
    Merge ``patch`` into the roots (RFC 7396). A root cannot be removed: ``null`` makes it empty.

    Raises:
        InvalidInput: If it is no such patch, or leads to a value that its root cannot have.
    """
    if not isinstance(patch, dict):
        raise InvalidInput("a merge patch of a document is an object")
    _check_depth(patch)
    changes = cast("dict[str, Any]", patch)
    known = kinds_of(doc) if kinds is None else kinds
    before = to_json(doc, {name: kind for name, kind in known.items() if name in changes})
    _adopt(doc, before, merged(before, changes), known)


def json_patch(doc: Document, operations: Any, kinds: Kinds | None = None) -> None:
    """
    Carry out all ``operations`` of a JSON patch (RFC 6902), or none.

    Raises:
        InvalidInput: If it is none, names a place that is not there, or leads to a value that its root cannot have.
        Conflict: If a ``test`` fails.
    """
    known = kinds_of(doc) if kinds is None else kinds
    named = _named_roots(operations)
    before = to_json(doc, {name: kind for name, kind in known.items() if named is None or name in named})
    after = patched(before, operations)
    if not isinstance(after, dict):
        raise InvalidInput("a document is an object")
    _adopt(doc, before, cast("dict[str, Any]", after), known)


def _named_roots(operations: Any) -> set[str] | None:
    """The roots that a JSON patch has to do with; ``None`` for all."""
    named: set[str] = set()
    for operation in cast("list[Any]", operations) if isinstance(operations, list) else ():
        if isinstance(operation, dict):
            for key in {"path", "from"} & cast("dict[str, Any]", operation).keys():
                path = pointer(operation[key])
                if not path:
                    return None
                named.add(path[0])
    return named


def _adopt(doc: Document, before: Mapping[str, Any], after: Mapping[str, Any], kinds: Kinds) -> None:
    roots = {name: value for name, value in after.items() if name not in before or not is_same(before[name], value)}
    replace(doc, roots | dict.fromkeys(before.keys() - after.keys()), kinds)


def _assign(doc: Document, name: str, value: Any, kind: Kind) -> None:
    if value is not None:
        reconcile(root(doc, name, _JSON_KINDS[type(value)]), value)
    elif kind is Kind.XML:
        del cast("XmlFragment", root(doc, name, kind)).children[:]
    elif kind is not Kind.EMPTY:
        reconcile(root(doc, name, kind), _EMPTY_VALUES[kind])


def _check_value(name: str, value: Any, kind: Kind) -> None:
    _check_text(name)
    if value is None:
        return
    if kind is Kind.XML:
        raise InvalidInput(f"the root {name!r} is XML, which JSON cannot change")
    wanted = _JSON_KINDS.get(cast("type[Any]", type(value)))
    if wanted is None:
        raise InvalidInput(f"the root {name!r} must be a string, a list or an object")
    if kind not in (wanted, Kind.EMPTY):
        raise InvalidInput(f"the root {name!r} is of the kind {kind}, the value is not")
    _check_depth(value)
    _check_scalars(value)


def _check_depth(value: Any) -> None:
    if is_deeper(value, MAX_VALUE_DEPTH):
        raise InvalidInput(f"a value nests deeper than {MAX_VALUE_DEPTH}")


def _check_scalars(value: Any) -> None:
    """The native library gives up over what no number or text of JavaScript can be."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            _check_text(one)
        elif isinstance(one, int) and abs(one) > MAX_NUMBER:
            raise InvalidInput("a whole number is beyond 2^53 - 1")
        elif isinstance(one, list):
            waiting += cast("list[Any]", one)
        elif isinstance(one, dict):
            entries = cast("dict[str, Any]", one)
            waiting += [*entries.keys(), *entries.values()]


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput("a text is not valid Unicode") from None


# --- changes of texts ---------------------------------------------------------------------------------


def edit_text(doc: Document, edits: Any, kinds: Kinds | None = None) -> None:
    """
    Carry out edits of texts: objects with ``root``, ``index``, ``delete`` (0) and ``insert`` (""), in code points.

    Each sees what those before it did. All are carried out, or none.

    Raises:
        InvalidInput: If one is none, reaches beyond its text, or its root is no text.
    """
    if not isinstance(edits, list) or len(cast("list[Any]", edits)) > MAX_EDITS:
        raise InvalidInput(f"edits are a list of at most {MAX_EDITS}")
    known = kinds_of(doc) if kinds is None else kinds
    steps = [_read_edit(edit) for edit in cast("list[Any]", edits)]
    lengths: dict[str, int] = {}
    with doc.transaction():
        for name, index, delete, insert in steps:
            if known.get(name, Kind.TEXT) not in (Kind.TEXT, Kind.EMPTY):
                raise InvalidInput(f"the root {name!r} is no text")
            length = lengths.get(name)
            if length is None:
                length = len(str(root(doc, name, Kind.TEXT))) if name in known else 0
            if index + delete > length:
                raise InvalidInput(f"the text {name!r} has {length} code points, the edit reaches {index + delete}")
            lengths[name] = length - delete + len(insert)
        for name, index, delete, insert in steps:
            text_edits.edit_text(cast("Text", root(doc, name, Kind.TEXT)), index, delete, insert)


def _read_edit(edit: Any) -> tuple[str, int, int, str]:
    if not isinstance(edit, dict):
        raise InvalidInput("an edit is an object")
    fields = cast("dict[str, Any]", edit)
    match fields.get("root"), fields.get("index"), fields.get("delete", 0), fields.get("insert", ""):
        case (str() as name, int() as index, int() as delete, str() as insert) if index >= 0 and delete >= 0:
            _check_text(name)
            _check_text(insert)
            return name, index, delete, insert
        case _:
            raise InvalidInput("an edit has a root and an index, and may have delete and insert")


# --- other states -------------------------------------------------------------------------------------


def restore(doc: Document, content: bytes, kinds: Kinds | None = None) -> None:
    """
    Make ``doc`` say what it said in the state ``content``; what came later is edited away, not forgotten.

    Raises:
        MalformedUpdate: If ``content`` is no update.
        InvalidInput: If it nests too deep for that.
    """
    old, old_kinds = _opened(content)
    known = kinds_of(doc) if kinds is None else kinds
    with doc.transaction(), old.transaction():
        for name in known.keys() | old_kinds.keys():
            kind = _either(old_kinds, known, name)
            if kind is not Kind.EMPTY:
                reconcile(root(doc, name, kind), root(old, name, kind))


def difference(old: bytes, new: bytes) -> dict[str, list[dict[str, Any]]]:
    """
    What changed between two states, by root; those without changes are left out.

    For texts and XML: runs that are ``equal``, ``delete`` or ``insert``. For others: a JSON patch.

    Raises:
        MalformedUpdate: If one of them is no update.
        InvalidInput: If one nests too deep for that.
    """
    (before, old_kinds), (after, new_kinds) = _opened(old), _opened(new)
    found: dict[str, list[dict[str, Any]]] = {}
    for name in sorted(old_kinds.keys() | new_kinds.keys()):
        kind = _either(new_kinds, old_kinds, name)
        then, now = (_said(doc, name, kind) for doc in (before, after))
        if then != now:
            is_text = isinstance(then, str) and isinstance(now, str)
            found[name] = list(text_edits.runs_between(then, now) if is_text else operations_between(then, now))
    return found


def _either(first: Kinds, second: Kinds, name: str) -> Kind:
    """What a root is in the first, or if it is nothing there, in the second."""
    kind = first.get(name, Kind.EMPTY)
    return second.get(name, Kind.EMPTY) if kind is Kind.EMPTY else kind


def _opened(content: bytes) -> tuple[Document, dict[str, Kind]]:
    doc: Document = Doc()
    kinds = root_kinds(read_update(content))
    doc.apply_update(content)
    return doc, kinds
