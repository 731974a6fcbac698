"""The content of a document as it comes with an event: read when the event is told, and bounded."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import msgspec
from msgspec.structs import replace
from pycrdt import Doc

from roomkey.documents.interface import DocumentService, MalformedUpdate, RootKind, read_update, rich, roots
from roomkey.errors import DocumentNotFound, InvalidInput, Serialization
from roomkey.hooks.events import WITH_CONTENT, AnyHookEvent, ContentForm, DocumentEvent, Omission, VersionKept

SMALL_BYTES: Final = 64 * 1024
"""An update up to this is read in less than a few milliseconds; a larger one is read beside the loop."""

LONGEST_HISTORY: Final = 16
"""How many times larger than its content the update of a document may be: beyond that it is not even read."""

T = TypeVar("T")

_json: Final = msgspec.json.Encoder().encode


class Contents(Protocol):
    """Reads contents."""

    async def attach(self, event: AnyHookEvent, form: ContentForm, most: int) -> AnyHookEvent:
        """
        The event with the content of its document, and the version that this has; or with the reason why it has none.

        Raises:
            Storage: If the document cannot be read now.
        """
        ...


class DocumentContents:
    """Reads the contents of the documents of this node."""

    def __init__(self, documents: Callable[[], DocumentService]) -> None:
        """``documents`` returns the commands on documents, which are open later than this is made."""
        self._documents = documents

    async def attach(self, event: AnyHookEvent, form: ContentForm, most: int) -> AnyHookEvent:
        """See ``Contents``."""
        if not isinstance(event, DocumentEvent) or event.type not in WITH_CONTENT:
            return event
        try:
            version, update = await self._read(event)
            content = await _said(update, form, most)
        except (DocumentNotFound, Serialization):
            return replace(event, content_omitted="gone")
        except _Omitted as omitted:
            return replace(event, content_omitted=omitted.reason)
        return replace(event, content=content, version=version)

    async def _read(self, event: DocumentEvent) -> tuple[int, bytes]:
        if isinstance(event, VersionKept):
            version, update = await self._documents().version(event.document, event.number)
            return version.sequence, update
        reading = await self._documents().read(event.document)
        if reading.revision.lineage != event.lineage:
            raise DocumentNotFound("it is another document by now")
        return reading.revision.version, reading.update


class _Omitted(Exception):
    def __init__(self, reason: Omission) -> None:
        super().__init__(reason)
        self.reason: Omission = reason


async def _said(update: bytes, form: ContentForm, most: int) -> "str | bytes | dict[str, Any]":
    if form == "yjs":
        if len(update) > most:
            raise _Omitted("too_large")
        return update
    if len(update) > LONGEST_HISTORY * most:
        raise _Omitted("too_large")
    if len(update) <= SMALL_BYTES:
        return _rendered(update, form, most)
    return await asyncio.to_thread(_rendered, update, form, most)


def _rendered(update: bytes, form: ContentForm, most: int) -> "str | dict[str, Any]":
    doc: Doc[Any] = Doc()
    try:
        kinds = dict(sorted(roots.root_kinds(read_update(update)).items()))
    except MalformedUpdate as error:
        raise Serialization("a stored document cannot be read") from error
    doc.apply_update(update)
    try:
        if form == "text" and rich.is_rich_text(doc, None):
            said = rich.read(doc, rich.rich_root(doc, None), rich.Form.TEXT)
            return _bounded(said.decode(), len(said), most)
        if form == "text":
            kinds = {roots.text_root(kinds, None): RootKind.TEXT} if kinds else {}
        content = roots.to_json(doc, kinds)
    except InvalidInput:
        raise _Omitted("ambiguous") from None
    said = "".join(map(str, content.values())) if form == "text" else content
    return _bounded(said, len(said.encode() if isinstance(said, str) else _json(said)), most)


def _bounded(said: T, size: int, most: int) -> T:
    if size > most:
        raise _Omitted("too_large")
    return said
