"""The forms in which a document leaves: JSON, a text, rich text, or Yjs; read from an update that is all of it."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from pycrdt import Doc

from roomkey.documents.interface import MalformedUpdate, RootKind, read_update, rich, roots
from roomkey.errors import Serialization

JSON: Final = "application/json"
TEXT: Final = "text/plain"
YJS: Final = "application/x-yjs-update"

PROSEMIRROR: Final = "application/vnd.roomkey.prosemirror+json"
MARKDOWN: Final = "text/markdown"
HTML: Final = "text/html"

FORMS: Final = (JSON, TEXT, YJS, PROSEMIRROR, MARKDOWN, HTML)
"""The first is for who does not say."""

RICH_FORMS: Final[Mapping[str, rich.Form]] = {
    PROSEMIRROR: rich.Form.PROSEMIRROR,
    MARKDOWN: rich.Form.MARKDOWN,
    HTML: rich.Form.HTML,
}
"""Those of rich text; as plain text it is read and written, too."""

SMALL_BYTES: Final = 64 * 1024
"""An update up to this is read in less than a few milliseconds; a larger one is read beside the loop."""

_SMALL_WRITTEN_BYTES: Final = 4 * 1024
"""The same for Markdown and HTML, which take longer to write."""

_encoder = msgspec.json.Encoder()


async def render(update: bytes, form: str, root: str | None) -> bytes:
    """
    The document in one of the ``FORMS``; for a text and for rich text ``root`` says which.

    Raises:
        InvalidInput: If it is not clear which text is meant, or ``root`` is none; or it nests too deep.
        Serialization: If it cannot be read.
    """
    if form == YJS:
        return update
    if len(update) <= (_SMALL_WRITTEN_BYTES if form in (MARKDOWN, HTML) else SMALL_BYTES):
        return _rendered(update, form, root)
    return await asyncio.to_thread(_rendered, update, form, root)


def _rendered(update: bytes, form: str, root: str | None) -> bytes:
    doc: Doc[Any] = Doc()
    doc.apply_update(update)
    if form in RICH_FORMS or (form == TEXT and rich.is_rich_text(doc, root)):
        return rich.read(doc, rich.rich_root(doc, root), RICH_FORMS.get(form, rich.Form.TEXT))
    try:
        kinds = dict(sorted(roots.root_kinds(read_update(update)).items()))
    except MalformedUpdate as error:
        raise Serialization("a stored document cannot be read") from error
    if form == JSON:
        return _encoder.encode(roots.to_json(doc, kinds))
    name = roots.text_root(kinds, root)
    return str(roots.to_json(doc, {name: RootKind.TEXT})[name]).encode()
