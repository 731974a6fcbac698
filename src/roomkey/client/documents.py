"""Documents of a server, as its REST interface has them: read and written without being open here."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct

from roomkey.api.document_schemas import (
    AnchoredEdit,
    AnchoredEdits,
    BlameBody,
    DocumentBody,
    DocumentPageBody,
    RangeBody,
    TextEdit,
    TextEdits,
    VersionBody,
    VersionPageBody,
)
from roomkey.client.calls import Calls, segment

EDITS = "application/vnd.roomkey.text-edits+json"
ANCHORED_EDITS = "application/vnd.roomkey.anchored-edits+json"
UPDATE = "application/x-yjs-update"

RichForm = Literal["prosemirror", "markdown", "html", "text"]
"""How rich text is written down: as ProseMirror JSON everything is in it, a value; the others are text."""

_MEDIA = {
    "prosemirror": "application/vnd.roomkey.prosemirror+json",
    "markdown": "text/markdown",
    "html": "text/html",
    "text": "text/plain",
}


class Read(Struct, frozen=True):
    """What was read, and the ``etag`` of that moment: given to a write, it makes sure that nothing is overwritten."""

    content: Any
    etag: str


class Documents:
    """
    Commands on documents. A write is answered when it is durable, and changes only what differs.

    All raise the errors of the interface, such as ``NotFound``, ``Forbidden``, and ``VersionMismatch`` if an
    ``etag`` is given and the document has changed; ``Storage`` without an answer.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def read(self, name: str) -> Read:
        """All roots as JSON: texts are strings, lists arrays, maps objects."""
        answer = await self._calls.send("GET", _path(name), headers={"accept": "application/json"})
        return Read(answer.json(), answer.headers["etag"])

    async def read_text(self, name: str, root: str | None = None) -> str:
        """The text under ``root``, or the only one there is."""
        answer = await self._calls.send("GET", _path(name), query={"root": root}, headers={"accept": "text/plain"})
        return answer.text

    async def read_rich(self, name: str, form: RichForm = "prosemirror", *, root: str | None = None) -> Read:
        """The rich text under ``root``, or the only one there is."""
        answer = await self._calls.send("GET", _path(name), query={"root": root}, headers={"accept": _MEDIA[form]})
        return Read(answer.json() if form == "prosemirror" else answer.text, answer.headers["etag"])

    async def write_rich(  # what is written, as what, where, and if what
        self,
        name: str,
        content: Any,
        form: RichForm = "prosemirror",
        *,
        root: str | None = None,
        schema: Literal["tiptap", "prosemirror", "blocknote"] = "tiptap",
        etag: str | None = None,
    ) -> DocumentBody:
        """
        Make rich text say ``content``; only what differs is changed. A document that does not exist is created.

        ``schema`` says whose names it gets where nothing says so yet.
        """
        headers = {"content-type": _MEDIA[form], **({} if etag is None else {"if-match": etag})}
        body = msgspec.json.encode(content) if form == "prosemirror" else str(content).encode()
        query = {"root": root, "schema": schema}
        answer = await self._calls.send("PUT", _path(name), query=query, content=body, headers=headers)
        return msgspec.json.decode(answer.content, type=DocumentBody)

    async def edit_at(
        self, name: str, edits: Sequence[AnchoredEdit], *, root: str | None = None, expected: str | None = None
    ) -> DocumentBody:
        """
        Make edits of rich text, or of a text, where it says something, all or none.

        Raises:
            RevisionMismatch: If the ``etag`` that is ``expected`` is not that of the document; it has what it says now.
        """
        body = AnchoredEdits(
            edits=[*edits],
            root=UNSET if root is None else root,
            expected_revision=UNSET if expected is None else expected,
        )
        headers = {"content-type": ANCHORED_EDITS}
        return await self._calls.ask(DocumentBody, "PATCH", _path(name), body=body, headers=headers)

    async def read_update(self, name: str) -> bytes:
        """The whole document as a Yjs update (V1)."""
        return (await self._calls.send("GET", _path(name), headers={"accept": UPDATE})).content

    async def write(self, name: str, roots: Mapping[str, Any], *, etag: str | None = None) -> DocumentBody:
        """Replace the roots that are named; a document that does not exist is created."""
        headers = {} if etag is None else {"if-match": etag}
        return await self._calls.ask(DocumentBody, "PUT", _path(name), body=roots, headers=headers)

    async def edit(
        self, name: str, root: str, index: int, *, delete: int = 0, insert: str = "", etag: str | None = None
    ) -> DocumentBody:
        """Replace ``delete`` code points of a text at ``index``."""
        return await self.edit_all(name, [TextEdit(root=root, index=index, delete=delete, insert=insert)], etag=etag)

    async def edit_all(self, name: str, edits: Sequence[TextEdit], *, etag: str | None = None) -> DocumentBody:
        """Make several edits in order, all or none."""
        headers = {"content-type": EDITS, **({} if etag is None else {"if-match": etag})}
        return await self._calls.ask(DocumentBody, "PATCH", _path(name), body=TextEdits([*edits]), headers=headers)

    async def merge(self, name: str, update: bytes) -> None:
        """Merge a Yjs update (V1) into the document."""
        await self._calls.send("PUT", _path(name), content=update, headers={"content-type": UPDATE})

    async def delete(self, name: str) -> None:
        """Delete the document; whoever has it open is told."""
        await self._calls.send("DELETE", _path(name))

    async def list(self, prefix: str = "") -> AsyncIterator[DocumentBody]:
        """All documents whose names begin with ``prefix``, by name, page after page."""
        cursor: str | None = None
        while True:
            query = {"prefix": prefix or None, "cursor": cursor}
            page = await self._calls.ask(DocumentPageBody, "GET", "/documents", query=query)
            for document in page.documents:
                yield document
            if (cursor := page.next_cursor) is None:
                return

    async def versions(self, name: str) -> AsyncIterator[VersionBody]:
        """All versions, the newest first."""
        cursor: str | None = None
        while True:
            path = f"{_path(name)}/versions"
            page = await self._calls.ask(VersionPageBody, "GET", path, query={"cursor": cursor})
            for version in page.versions:
                yield version
            if (cursor := page.next_cursor) is None:
                return

    async def keep_version(self, name: str, label: str) -> VersionBody:
        """Keep the content of this moment under a label."""
        return await self._calls.ask(VersionBody, "POST", f"{_path(name)}/versions", body={"label": label})

    async def restore(self, name: str, number: int) -> DocumentBody:
        """Make a version the current content."""
        return await self._calls.ask(DocumentBody, "POST", f"{_path(name)}/versions/{number}/restore")

    async def blame(self, name: str, root: str | None = None) -> Sequence[RangeBody]:
        """Who wrote which part of a text or of rich text, from its beginning to its end."""
        found = await self._calls.ask(BlameBody, "GET", f"{_path(name)}/blame", query={"root": root})
        return found.ranges


def _path(name: str) -> str:
    return f"/documents/{segment(name)}"
