"""Who wrote what of rich text: what is known of its characters, told by the places that they have in it."""

from collections.abc import Iterator, Sequence

from roomkey.documents.content.rich import plain
from roomkey.documents.content.rich.tree import TEXT, Node, children_of
from roomkey.documents.content.rich.vocabulary import document_of
from roomkey.documents.crdt.authorship import BlameRange
from roomkey.errors import InvalidInput


def placed(tree: Node, known: Sequence[BlameRange]) -> list[BlameRange]:
    """
    Ranges of the text that ``tree`` is as plain text, and of nodes: each is within one, whose place in the tree is
    its ``path``. What parts blocks, and what is no text, has no range. ``known`` are those of all that was typed in
    the tree.

    Raises:
        InvalidInput: If these are not of this tree.
    """
    starts = plain.starts(document_of(tree).content)
    ranges: list[BlameRange] = []
    waiting = list(reversed(known))
    at = 0
    for node, path in _texts(tree, ""):
        end = at + len(node["text"])
        start = starts.get(id(node))
        for part in _cut(waiting, at, end):
            if start is not None:
                begin = start + part.start - at
                ranges.append(BlameRange(begin, begin + part.end - part.start, part.author, part.at, path))
        at = end
    if waiting:
        raise InvalidInput("it cannot be said who wrote what: the document has texts in a form that is not known")
    return ranges


def _texts(node: Node, path: str) -> Iterator[tuple[Node, str]]:
    for index, child in enumerate(children_of(node)):
        place = f"{path}/content/{index}"
        if child["type"] == TEXT:
            yield child, place
        else:
            yield from _texts(child, place)


def _cut(waiting: list[BlameRange], start: int, end: int) -> Iterator[BlameRange]:
    """What is known from ``start`` to ``end``; it is taken from ``waiting``, where the first is the last."""
    while waiting and waiting[-1].start < end:
        part = waiting.pop()
        if part.end > end:
            waiting.append(BlameRange(end, part.end, part.author, part.at))
        yield BlameRange(max(part.start, start), min(part.end, end), part.author, part.at)
