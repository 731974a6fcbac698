"""
Documents for the application that Roomkey runs in: the commands, rights and errors of REST, without HTTP.

Whoever gives a ``session`` acts as its holder, with its grants as they are at that moment; otherwise the application
itself acts, which may do everything.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, cast

import msgspec
from msgspec import Struct, to_builtins
from pycrdt import Doc

from roomkey.api.document_schemas import AnchoredEdit, TextEdit
from roomkey.api.representations import HTML, JSON, MARKDOWN, PROSEMIRROR, TEXT, render
from roomkey.api.rich_text import check_revision, edit_at_anchors, say_text, write_content
from roomkey.documents.interface import Condition, DocumentRevision, DocumentService, Written, existing, rich, roots
from roomkey.domain.lifecycle import check_usable
from roomkey.domain.session import IssuedSession, Session, SessionId
from roomkey.errors import InvalidInput, NotFound, VersionMismatch
from roomkey.ports import AccessDecisions, Page, VersionPage
from roomkey.realtime.attendance import Whom
from roomkey.realtime.roll_call import ConnectedPage, Disconnected, RollCall
from roomkey.security.authorization import Action, Caller, CallerKind, check, check_document, check_session
from roomkey.security.inspection import check_document_name, check_reason
from roomkey.sessions.arguments import check_text
from roomkey.sessions.manager import SessionManager

Holder = Session | IssuedSession


class DocumentContent(Struct, frozen=True, kw_only=True):
    """
    What a document says: its shared types by name, texts as ``str``, arrays as ``list``, maps as ``dict``.

    ``version`` counts the updates that are in it, for ``if_version``.
    """

    name: str
    version: int
    content: dict[str, Any]


class RichContent(Struct, frozen=True, kw_only=True):
    """
    What rich text says: ProseMirror JSON as a ``dict``, or Markdown, HTML or plain text.

    ``version`` counts the updates that are in the document, for ``if_version``.
    """

    name: str
    version: int
    content: Any


RichForm = Literal["prosemirror", "markdown", "html", "text"]

_MEDIA: Final = {"prosemirror": PROSEMIRROR, "markdown": MARKDOWN, "html": HTML, "text": TEXT}


class Callers:
    """Who acts: the holder of a session, with what it may do now, or the application."""

    def __init__(self, sessions: SessionManager, decisions: AccessDecisions) -> None:
        self._sessions = sessions
        self._decisions = decisions

    async def caller(self, action: Action, session: Holder | None, actor: str) -> Caller:
        """
        Whoever acts, who may do ``action`` as far as that depends on nothing else.

        Raises:
            NotFound, Expired, Invalidated, Suspended, SessionPending: If the session does not exist, or is not usable.
        """
        check_text("actor", actor)
        if session is None:
            return Caller(CallerKind.ADMIN, actor)
        if not isinstance(cast("object", session), Holder):
            raise InvalidInput(f"session must be a roomkey.Session or None, not {type(session).__name__}")
        # As it is now, and not as it was when somebody kept it: what was revoked meanwhile opens nothing.
        current = await self._sessions.get_session(session.id)
        if current is None:
            raise NotFound("there is no such session")
        check_usable(current, even_pending=True)
        caller = Caller.of_session(current)
        check(caller, action)
        return caller

    async def caller_in(self, document: str, action: Action, session: Holder | None, actor: str) -> Caller:
        """
        Whoever acts, who may do ``action`` to ``document``. Raises as ``caller``.

        Raises:
            InvalidInput, DocumentNotFound, Forbidden, AccessUnknown: As REST does.
        """
        check_text("name", document)
        check_document_name(document)  # before anybody is asked about it
        caller = await self.caller(action, session, actor)
        access = None if caller.session is None else await self._decisions.decide(caller.session, document)
        check_document(caller, action, document, access)
        return caller


class RoomDocuments:
    """
    Read, write and edit documents: everybody who has one open sees a change at once.

    A command that changes something returns when that is durable. Errors are those of REST, see ``roomkey.errors``.
    """

    def __init__(self, documents: DocumentService, callers: Callers) -> None:
        self._documents = documents
        self._callers = callers

    async def read(
        self, name: str, *, at: int | None = None, session: Holder | None = None, actor: str = "system"
    ) -> DocumentContent:
        """
        What the document says now; with ``at``, what it said in the kept version of that number.

        Raises:
            DocumentNotFound: If there is none, or none that the session may know of.
            Forbidden: If the session may not read it.
        """
        await self._callers.caller_in(name, Action.READ_DOCUMENT, session, actor)
        if at is None:
            reading = await self._documents.read(name)
            version, update = reading.revision.version, reading.update
        else:
            kept, update = await self._documents.version(name, at)
            version = kept.sequence
        content = msgspec.json.decode(await render(update, JSON, None), type=dict[str, Any])
        return DocumentContent(name=name, version=version, content=content)

    async def write(
        self,
        name: str,
        content: Mapping[str, Any] | str,
        *,
        root: str | None = None,
        if_version: int | None = None,
        session: Holder | None = None,
        actor: str = "system",
    ) -> Written:
        """
        Make the document say this, or make one that does; only what differs is changed.

        A mapping replaces the roots that it names, and leaves the others. Text replaces the text ``root``, by default
        the only one.

        Args:
            if_version: Write only if the document is at this version; 0: if there is none.

        Raises:
            VersionMismatch: If it is not at ``if_version``.
            InvalidInput: If a value is none that its root can have. Otherwise as ``read``.
            Conflict, DocumentTooLarge, WritesRefused: As they say.
        """
        caller = await self._callers.caller_in(name, Action.WRITE_DOCUMENT, session, actor)
        if not isinstance(cast("object", content), Mapping | str):
            raise InvalidInput(f"content must be a mapping or text, not {type(content).__name__}")

        def change(doc: Doc[Any]) -> None:
            if isinstance(content, str):
                say_text(doc, root=root, text=content)
            else:
                roots.replace(doc, dict(content))

        return await self._change(name, change, caller, _at(if_version))

    async def edit(
        self,
        name: str,
        edits: Sequence[TextEdit | Mapping[str, Any]],
        *,
        if_version: int | None = None,
        session: Holder | None = None,
        actor: str = "system",
    ) -> Written:
        """
        Change texts of a document that exists: all edits or none. Each sees what those before it did.

        Raises:
            InvalidInput: If an edit reaches beyond its text. Otherwise as ``write``.
        """
        caller = await self._callers.caller_in(name, Action.WRITE_DOCUMENT, session, actor)
        if isinstance(edits, str | bytes | Mapping) or not isinstance(cast("object", edits), Sequence):
            raise InvalidInput(f"edits must be a list of edits, not {type(edits).__name__}")
        steps = [dict(edit) if isinstance(edit, Mapping) else to_builtins(edit) for edit in edits]
        return await self._change(name, lambda doc: roots.edit_text(doc, steps), caller, existing(_at(if_version)))

    async def read_rich(
        self,
        name: str,
        form: RichForm = "prosemirror",
        *,
        root: str | None = None,
        session: Holder | None = None,
        actor: str = "system",
    ) -> RichContent:
        """
        What the rich text ``root`` says, or the only one of the document. Raises as ``read``.

        Raises:
            InvalidInput: If there is none, or it is not clear which one is meant.
        """
        await self._callers.caller_in(name, Action.READ_DOCUMENT, session, actor)
        media = _media(form)
        reading = await self._documents.read(name)
        rendered = await render(reading.update, media, root)
        content = msgspec.json.decode(rendered) if media == PROSEMIRROR else rendered.decode()
        return RichContent(name=name, version=reading.revision.version, content=content)

    async def write_rich(  # what is written, as what, where, if what, and by whom
        self,
        name: str,
        content: Any,
        form: RichForm = "prosemirror",
        *,
        root: str | None = None,
        schema: Literal["tiptap", "prosemirror", "blocknote"] = "tiptap",
        if_version: int | None = None,
        session: Holder | None = None,
        actor: str = "system",
    ) -> Written:
        """
        Make rich text say this, or make a document that does; only what differs is changed. Raises as ``write``.

        Args:
            form: What ``content`` is: ProseMirror JSON as a value, or text. What it cannot say is kept where it was.
            schema: Whose names it gets in a document in which nothing says it yet.

        Raises:
            InvalidInput: If that cannot be; ``flaws`` says where.
        """
        caller = await self._callers.caller_in(name, Action.WRITE_DOCUMENT, session, actor)
        if _media(form) != PROSEMIRROR and not isinstance(content, str):
            raise InvalidInput(f"content must be text, not {type(content).__name__}")
        given = (rich.Form(form), content)
        condition = _at(if_version)
        return await write_content(
            self._documents, name, caller.author, given, root=root, schema=schema, condition=condition
        )

    async def edit_at(
        self,
        name: str,
        edits: Sequence[AnchoredEdit | Mapping[str, Any]],
        *,
        root: str | None = None,
        if_version: int | None = None,
        session: Holder | None = None,
        actor: str = "system",
    ) -> Written:
        """
        Change rich text, or a text, of a document that exists where it says something: all edits or none.

        Raises:
            RevisionMismatch: If it is not at ``if_version``; it has what the document says now. InvalidInput: If the
            document does not say what is to be found, or says it several times. Otherwise as ``write``.
        """
        caller = await self._callers.caller_in(name, Action.WRITE_DOCUMENT, session, actor)
        if isinstance(edits, str | bytes | Mapping) or not isinstance(cast("object", edits), Sequence):
            raise InvalidInput(f"edits must be a list of edits, not {type(edits).__name__}")
        try:
            steps = [msgspec.convert(edit, AnchoredEdit) if isinstance(edit, Mapping) else edit for edit in edits]
        except msgspec.ValidationError as error:
            raise InvalidInput(f"that is no edit: {error}") from None
        condition = check_revision(if_version, existing(None))
        return await edit_at_anchors(
            self._documents, name, caller.author, steps, root=root, schema="tiptap", condition=condition
        )

    async def versions(
        self, name: str, page: Page | None = None, *, session: Holder | None = None, actor: str = "system"
    ) -> VersionPage:
        """A page of the kept versions, the newest first; ``read`` has what they say. Raises as ``read``."""
        await self._callers.caller_in(name, Action.LIST_VERSIONS, session, actor)
        return await self._documents.versions(name, page or Page())

    async def _change(
        self, name: str, change: Callable[[Doc[Any]], None], caller: Caller, condition: Condition | None
    ) -> Written:
        return await self._documents.edit(name, change, caller.author, condition=condition)


class Connected:
    """Who is connected to documents, and disconnecting them, for ``RoomkeyApp``."""

    def __init__(self, roll_call: Callable[[], RollCall], sessions: SessionManager, callers: Callers) -> None:
        self._roll_call = roll_call
        self._sessions = sessions
        self._callers = callers

    async def presence(self, document: str, page: Page | None, session: Holder | None) -> ConnectedPage:
        """As ``RoomkeyApp.presence``."""
        await self._callers.caller_in(document, Action.SEE_CONNECTED, session, "system")
        page = page or Page()
        if not 1 <= page.limit <= 500:
            raise InvalidInput("a page has 1 to 500 entries")
        return await self._roll_call().present(document, after=page.cursor or "", limit=page.limit)

    async def disconnect(
        self, id: SessionId | None, document: str | None, reason: str | None, session: Holder | None
    ) -> Disconnected:
        """As ``RoomkeyApp.disconnect``."""
        if id is None and document is None:
            raise InvalidInput("disconnect whom? Name a session, a document, or both")
        check_reason(reason)
        if document is not None:
            await self._callers.caller_in(document, Action.DISCONNECT_FROM_DOCUMENT, session, "system")
        else:
            caller = await self._callers.caller(Action.DISCONNECT_SESSION, session, "system")
            if caller.session is not None and id is not None:
                check_session(caller, Action.DISCONNECT_SESSION, await self._sessions.get_session(id))
        return await self._roll_call().disconnect(document, Whom(session=id), reason=reason)


def _media(form: str) -> str:
    if form not in _MEDIA:
        raise InvalidInput(f"form must be one of {', '.join(_MEDIA)}")
    return _MEDIA[form]


def _at(version: int | None) -> Condition | None:
    if version is None:
        return None

    def check(revision: DocumentRevision | None) -> None:
        current = 0 if revision is None else revision.version
        if current != version:
            raise VersionMismatch("there is no such document" if not current else f"the document is at {current}")

    return check
