"""Trees in ProseMirror JSON from outside: whether they are any, and bounded."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple, cast

from roomkey.documents.content.rich.tree import INLINE_TYPES, TEXT, YJS_TEXT, Node
from roomkey.documents.content.values import MAX_DEPTH
from roomkey.errors import Flaw, InvalidInput, SchemaViolation
from roomkey.security.inspection import is_deeper
from roomkey.wire.lib0 import MAX_NUMBER

MAX_NODES: Final = 200_000
"""Maximum number of nodes of a tree."""

MAX_CHILDREN: Final = 20_000
"""Maximum number of nodes in one: the native library walks from the first for each that it puts there."""

MAX_ATTRS_DEPTH: Final = 32

_KEYS: Final = frozenset({"type", "attrs", "content", "text", "marks"})


class _Place(NamedTuple):
    node: Any
    path: str
    depth: int


def checked_document(value: Any) -> list[Node]:
    """
    The content of a document in ProseMirror JSON: the object that ``toJSON`` returns, or its list of nodes.

    Raises:
        InvalidInput: If it is none, or too large; ``flaws`` says where.
    """
    if isinstance(value, dict) and cast("dict[str, Any]", value).get("type") == "doc":
        return checked_nodes(cast("dict[str, Any]", value).get("content") or [], "#/content")
    if isinstance(value, list):
        return checked_nodes(cast("list[Any]", value), "#")
    raise flaw("#", "a document in ProseMirror JSON is an object of the type doc, or a list of nodes")


def checked_nodes(nodes: Any, path: str) -> list[Node]:
    """Nodes beside one another. What stands in elements has no marks, for Yjs has no place for them."""
    if not isinstance(nodes, list):
        raise flaw(path, "content is a list of nodes")
    count = 0
    waiting = list(_below(cast("list[Any]", nodes), path, 1))
    while waiting:
        place = waiting.pop()
        count += 1
        if count > MAX_NODES:
            raise InvalidInput(f"a document has at most {MAX_NODES} nodes")
        waiting += _check(place)
    return [_without_marks(node) for node in cast("list[Node]", nodes)]


def _check(place: _Place) -> Iterator[_Place]:
    node, path, depth = place
    if depth > MAX_DEPTH - 1:
        raise flaw(path, f"a document nests at most {MAX_DEPTH - 1} deep")
    if not isinstance(node, dict):
        raise flaw(path, "a node is an object")
    said = cast("dict[str, Any]", node)
    if unknown := sorted(said.keys() - _KEYS):
        raise flaw(path, f"a node has type, attrs, content, text and marks, but not {unknown[0]!r}")
    if not isinstance(said.get("type"), str) or not said["type"]:
        raise flaw(f"{path}/type", "a node has a type")
    _check_text(f"{path}/type", said["type"])
    if (said["type"] == TEXT) != ("text" in said):
        raise flaw(path, "a node of the type text has a text, and no other has")
    if "text" in said:
        if not isinstance(said["text"], str) or said.get("content"):
            raise flaw(f"{path}/text", "a text is a string, and has no content")
        _check_text(f"{path}/text", said["text"])
    _check_attrs(said.get("attrs"), f"{path}/attrs")
    _check_marks(said.get("marks"), f"{path}/marks")
    content = said.get("content")
    if content is None:
        return iter(())
    if not isinstance(content, list):
        raise flaw(f"{path}/content", "content is a list of nodes")
    return _below(cast("list[Any]", content), f"{path}/content", depth + 1)


def _below(nodes: list[Any], path: str, depth: int) -> Iterator[_Place]:
    if len(nodes) > MAX_CHILDREN:
        raise flaw(path, f"a node has at most {MAX_CHILDREN} nodes in it")
    return (_Place(node, f"{path}/{index}", depth) for index, node in enumerate(nodes))


def _check_marks(marks: Any, path: str) -> None:
    if marks is None:
        return
    if not isinstance(marks, list):
        raise flaw(path, "marks are a list")
    for index, mark in enumerate(cast("list[Any]", marks)):
        if not isinstance(mark, dict):
            raise flaw(f"{path}/{index}", "a mark is an object")
        said = cast("dict[str, Any]", mark)
        if not isinstance(said.get("type"), str) or not said["type"] or said.keys() - {"type", "attrs"}:
            raise flaw(f"{path}/{index}", "a mark has a type and may have attrs")
        _check_text(f"{path}/{index}/type", said["type"])
        _check_attrs(said.get("attrs"), f"{path}/{index}/attrs")


def _check_attrs(attrs: Any, path: str) -> None:
    if attrs is None:
        return
    if not isinstance(attrs, dict):
        raise flaw(path, "attrs are an object")
    if is_deeper(attrs, MAX_ATTRS_DEPTH):
        raise flaw(path, f"attrs nest at most {MAX_ATTRS_DEPTH} deep")
    waiting: list[Any] = [attrs]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            _check_text(path, one)
        elif isinstance(one, int) and abs(one) > MAX_NUMBER:
            raise flaw(path, "a whole number is beyond 2^53 - 1")
        elif isinstance(one, list):
            waiting += cast("list[Any]", one)
        elif isinstance(one, dict):
            entries = cast("dict[str, Any]", one)
            waiting += [*entries.keys(), *entries.values()]


def _check_text(path: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise flaw(path, "a text is not valid Unicode") from None


def _without_marks(node: Node) -> Node:
    if node["type"] == YJS_TEXT:
        return {key: value for key, value in node.items() if key != "marks"}
    said = node if node["type"] in INLINE_TYPES else {key: value for key, value in node.items() if key != "marks"}
    if said.get("content"):
        said = {**said, "content": [_without_marks(child) for child in said["content"]]}
    return said


def flaw(path: str, detail: str) -> InvalidInput:
    """What is wrong, and where."""
    return SchemaViolation(Flaw(detail=detail, pointer=path))
