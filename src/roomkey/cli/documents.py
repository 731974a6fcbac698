"""``roomkey documents …``: what an operator does with documents."""

import secrets
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec
from cyclopts import App

from roomkey.cli.outcome import EXIT_CODES, Advance, Exit, Failed, print_bytes, print_json, print_table, progress
from roomkey.cli.target import Target, Where, show_disconnected, tell_silent
from roomkey.errors import explain

BUNDLE: Final = "application/vnd.roomkey.document"

PATIENCE_SECONDS: Final = 120.0
"""For a server to put a large document together, or to take it in."""

PART_BYTES: Final = 64 * 1024

Form = Literal["markdown", "html", "text", "prosemirror"]

_MEDIA: Final = {
    "markdown": "text/markdown",
    "html": "text/html",
    "text": "text/plain",
    "prosemirror": "application/vnd.roomkey.prosemirror+json",
}

SHOWN_CHARS: Final = 200
"""Of each root in a table; ``--root`` and ``--json`` show all."""

app = App(
    "documents",
    help="Look at documents and who is in them; take them elsewhere.",
    help_epilogue=EXIT_CODES,
    version_flags=(),
)


@app.command(name="list")
def list_documents(*, prefix: str = "", limit: int = 50, cursor: str | None = None, where: Where = None) -> None:
    """
    Show documents, a page at a time.

    Args:
        prefix: Only those whose names begin with it.
        limit: How many at most, 1 to 500.
        cursor: Where the page before this one ended.
    """
    target = where or Target()
    page = _page(target, "/documents", prefix=prefix, limit=limit, cursor=cursor)
    columns = ("name", "sequence", "bytes", "created_at", "updated_at")
    _show_page(target, page, page["documents"], columns)


@app.command
def show(name: str, *, root: str | None = None, form: Form | None = None, where: Where = None) -> None:
    """
    Show what is known of a document and what it says.

    Args:
        name: Which document.
        root: Print this text of it and nothing else.
        form: Print rich text in this form and nothing else.
    """
    target = where or Target()
    if root is not None or form is not None:
        params = {} if root is None else {"root": root}
        print_bytes(target.fetch("GET", _path(name), params=params, headers={"accept": _MEDIA[form or "text"]}))
        return
    content: dict[str, Any] = target.request("GET", _path(name))
    # A name stands before all others that begin with it.
    page = target.request("GET", "/documents", params={"prefix": name, "limit": 1})
    known: dict[str, Any] = {}
    for document in page["documents"]:
        known = document if document["name"] == name else known
    if target.json:
        print_json({"document": known, "content": content})
        return
    rows = [[field, str(value)] for field, value in known.items()]
    print_table(("field", "value"), rows + [[f"root {name}", _shortened(value)] for name, value in content.items()])


@app.command
def write(
    name: str,
    file: Path | None = None,
    *,
    form: Form = "markdown",
    root: str | None = None,
    schema: Literal["tiptap", "prosemirror", "blocknote"] = "tiptap",
    where: Where = None,
) -> None:
    """
    Make a document say what is in a file. Only what differs is changed; whoever has it open sees it at once.

    Args:
        name: Which document; one that does not exist is made.
        file: What it is to say; left out, standard input.
        form: What is in the file.
        root: Which rich text of it; left out, the only one.
        schema: Whose names it gets where nothing says so yet.
    """
    try:
        content = sys.stdin.buffer.read() if file is None else file.read_bytes()
    except OSError as error:
        raise Failed(f"{file} cannot be read: {explain(error)}", Exit.USAGE) from None
    target = where or Target()
    params = {"schema": schema, **({} if root is None else {"root": root})}
    headers = {"content-type": _MEDIA[form]}
    target.show(
        target.request("PUT", _path(name), params=params, content=content, headers=headers, timeout=PATIENCE_SECONDS)
    )


@app.command
def export(name: str, *, output: Path | None = None, where: Where = None) -> None:
    """
    Write everything about a document into a file: what it says, who wrote it, and its versions.

    Args:
        name: Which document.
        output: The file; left out, standard output.
    """
    if output is None and sys.stdout.isatty():
        raise Failed("it is not text: name a file with --output, or send it into a pipe", Exit.USAGE)
    target = where or Target()
    with progress(f"Exporting {name}") as advance:
        exported = target.fetch("GET", _path(name, "export"), advance=advance, timeout=PATIENCE_SECONDS)
    if output is None:
        print_bytes(exported)
        return
    try:
        _write(output, exported)
    except OSError as error:
        raise Failed(f"--output: {output}: {explain(error)}", Exit.USAGE) from None
    target.show({"exported": name, "file": str(output), "bytes": len(exported)})


@app.command(name="import")
def import_document(name: str, file: Path, *, where: Where = None) -> None:
    """
    Make a document of what was exported.

    Args:
        name: What it is called here.
        file: What was exported.
    """
    try:
        exported = file.read_bytes()
    except OSError as error:
        raise Failed(f"{file} cannot be read: {explain(error)}", Exit.USAGE) from None
    target = where or Target()
    with progress(f"Importing {name}") as advance:
        made = target.request(
            "POST",
            _path(name, "import"),
            content=_in_parts(exported, advance),
            headers={"content-type": BUNDLE},
            timeout=PATIENCE_SECONDS,
        )
    target.show(made)


@app.command
def versions(name: str, *, limit: int = 50, cursor: str | None = None, where: Where = None) -> None:
    """
    Show the versions of a document, the newest first.

    Args:
        name: Which document.
        limit: How many at most, 1 to 500.
        cursor: Where the page before this one ended.
    """
    target = where or Target()
    page = _page(target, _path(name, "versions"), limit=limit, cursor=cursor)
    rows = [{**version, "author": version["author"]["actor"]} for version in page["versions"]]
    _show_page(target, page, rows, ("number", "at", "label", "author", "sequence", "bytes"))


@app.command
def restore(name: str, number: int, *, where: Where = None) -> None:
    """Make a document what it was in a version; what it is now is kept as another one."""
    target = where or Target()
    target.show(target.request("POST", _path(name, "versions", str(number), "restore"), timeout=PATIENCE_SECONDS))


@app.command(name="sessions")
def list_connected(name: str, *, limit: int = 50, cursor: str | None = None, where: Where = None) -> None:
    """
    Show who has a document open now: since when, by which protocol, and with which access.

    Args:
        name: Which document.
        limit: How many at most, 1 to 500.
        cursor: Where the page before this one ended.
    """
    target = _of_a_server(where)
    page = _page(target, _path(name, "sessions"), limit=limit, cursor=cursor)
    rows = [
        {**session, "connections": ", ".join(each["protocol"] for each in session["connections"])}
        for session in page["sessions"]
    ]
    _show_page(target, page, rows, ("id", "user_id", "access", "since", "connections"))
    tell_silent(page)


@app.command
def disconnect(name: str, id: str | None = None, *, reason: str | None = None, where: Where = None) -> None:
    """
    Kick a session out of a document, or everybody; they may come back.

    Args:
        name: Which document.
        id: Which session; left out, all that have the document open.
        reason: What they are told.
    """
    target = _of_a_server(where)
    path = _path(name, "sessions") if id is None else _path(name, "sessions", quote(id, safe=""))
    show_disconnected(target, path, reason)


@app.command
def delete(name: str, *, where: Where = None) -> None:
    """Remove a document with its versions; whoever has it open has to leave."""
    target = where or Target()
    target.request("DELETE", _path(name))
    target.show({"deleted": name})


def _of_a_server(where: Target | None) -> Target:
    target = where or Target()
    target.check_server("who is connected")
    return target


def _write(output: Path, content: bytes) -> None:
    """Write a file completely or leave it as it was; what is not a file, such as a pipe, is written as it comes."""
    if output.exists() and not output.is_file():
        output.write_bytes(content)
        return
    draft = output.with_name(f".{output.name[:200]}.{secrets.token_hex(4)}")
    try:
        draft.write_bytes(content)
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)


def _path(name: str, *rest: str) -> str:
    return "/".join(("/documents", quote(name, safe=""), *rest))


def _page(target: Target, path: str, **wanted: Any) -> dict[str, Any]:
    return target.request("GET", path, params={name: value for name, value in wanted.items() if value})


def _show_page(target: Target, page: dict[str, Any], rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    shown = [["" if row[column] is None else str(row[column]) for column in columns] for row in rows]
    target.show_page(page, columns, shown, numeric=("number", "sequence", "bytes"))


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"


async def _in_parts(content: bytes, advance: Advance) -> AsyncGenerator[bytes]:
    for start in range(0, len(content), PART_BYTES):
        yield content[start : start + PART_BYTES]
        advance(min(start + PART_BYTES, len(content)), len(content))
