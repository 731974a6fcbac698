"""``roomkey documents …`` on a storage itself, as an operator uses it without a server."""

import asyncio
import json
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import httpx
import pytest

from roomkey.cli import main
from roomkey.cli.outcome import Exit
from roomkey.config import load
from roomkey.documents.content import roots
from roomkey.documents.service import DocumentService
from roomkey.node import Node
from roomkey.ports import Author
from roomkey.settings import SourcedValue
from tests.support.rest import Rest, a_library, served

Capture = pytest.CaptureFixture[str]
Run = Callable[..., int]

AUTHOR = Author("key:test")


@pytest.fixture(autouse=True)
def _a_place_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SESSION_TTL", "SESSION_STORAGE", "ROOMKEY_KEY", "ROOMKEY_URL", "ROOMKEY_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``roomkey documents`` on a storage that has ``notes/today`` in it, with two versions, and ``other``."""
    storage = f"lmdb://{tmp_path / 'store'}"
    asyncio.run(_furnish(storage))
    return lambda *arguments: main(("documents", *arguments, "--storage", storage))


async def _furnish(storage: str, apart: str = "same") -> None:
    given = {"storage.url": SourcedValue(storage, "test"), "storage.documents": SourcedValue(apart, "test")}
    node = Node(load(None, given, environment={}))
    documents = DocumentService(node.documents)
    async with node.at_work():
        for words in ("one", "one two"):
            await _say(documents, "notes/today", words)
            await documents.keep_version("notes/today", f"after {words}", AUTHOR)
        await _say(documents, "other", "something else")


async def _say(documents: DocumentService, name: str, words: str) -> None:
    await documents.edit(name, lambda doc: roots.replace(doc, {"content": words}), AUTHOR)


def printed(capsys: Capture) -> Any:
    return json.loads(capsys.readouterr().out)


def test_documents_are_listed_for_people_and_for_programs(run: Run, capsys: Capture) -> None:
    for_people = run("list")
    table = capsys.readouterr().out
    run("list", "--prefix", "notes/", "--json")

    assert for_people == Exit.DONE
    assert "notes/today" in table
    assert "other" in table
    assert [each["name"] for each in printed(capsys)["documents"]] == ["notes/today"]


def test_a_long_list_says_how_it_goes_on(run: Run, capsys: Capture) -> None:
    run("list", "--limit", "1")
    first = capsys.readouterr().out

    run("list", "--cursor", first.rpartition("--cursor ")[2].strip(), "--json")

    assert "other" not in first
    assert [each["name"] for each in printed(capsys)["documents"]] == ["other"]


def test_a_document_is_shown_with_what_it_says(run: Run, capsys: Capture) -> None:
    code = run("show", "notes/today")
    table = capsys.readouterr().out
    run("show", "notes/today", "--json")
    everything = printed(capsys)
    run("show", "notes/today", "--root", "content")
    text = capsys.readouterr().out

    assert code == Exit.DONE
    assert "one two" in table
    assert everything["document"]["name"] == "notes/today"
    assert everything["content"] == {"content": "one two"}
    assert text == "one two"


def test_rich_text_is_written_from_a_file_or_a_pipe_and_shown_in_a_form(
    run: Run, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Tea\n\n- green\n")

    codes = [run("write", "pages/tea", str(page), "--json")]
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"<p>mint</p>")))
    codes.append(run("write", "pages/mint", "--form", "html", "--schema", "prosemirror", "--json"))
    capsys.readouterr()
    run("show", "pages/tea", "--form", "text")
    run("show", "pages/mint", "--root", "prosemirror", "--form", "markdown")

    assert codes == [Exit.DONE, Exit.DONE]
    assert capsys.readouterr().out == "Tea\n\ngreenmint\n"
    assert run("write", "pages/tea", "nowhere.md") == Exit.USAGE


def test_versions_are_listed_and_restored(run: Run, capsys: Capture) -> None:
    run("versions", "notes/today")
    table = capsys.readouterr().out
    code = run("restore", "notes/today", "1")
    capsys.readouterr()
    run("show", "notes/today", "--root", "content")
    text = capsys.readouterr().out
    run("versions", "notes/today", "--json")

    assert "after one two" in table
    assert "key:test" in table
    assert (code, text) == (Exit.DONE, "one")
    assert [each["number"] for each in printed(capsys)["versions"]] == [3, 2, 1]


def test_a_document_goes_into_a_file_and_comes_back_under_another_name(
    run: Run, capsys: Capture, tmp_path: Path
) -> None:
    file = tmp_path / "today.roomkey"

    exported = run("export", "notes/today", "--output", str(file), "--json")
    said = printed(capsys)
    imported = run("import", "notes/copy", str(file), "--json")
    made = printed(capsys)
    again = run("import", "notes/copy", str(file))
    refusal = capsys.readouterr().err
    run("versions", "notes/copy", "--json")

    assert (exported, imported, again) == (Exit.DONE, Exit.DONE, Exit.FAILED)
    assert said == {"exported": "notes/today", "file": str(file), "bytes": file.stat().st_size}
    assert made["name"] == "notes/copy"
    assert "conflict" in refusal
    assert [each["label"] for each in printed(capsys)["versions"]] == ["after one two", "after one"]


def test_an_export_goes_into_a_pipe_byte_for_byte(
    run: Run, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("export", "notes/today", "--output", str(tmp_path / "file"))
    capsys.readouterr()
    pipe = TextIOWrapper(BytesIO())
    monkeypatch.setattr(sys, "stdout", pipe)

    code = run("export", "notes/today")

    assert code == Exit.DONE
    assert pipe.buffer.read() == b""  # written through, nothing held back
    pipe.buffer.seek(0)
    assert pipe.buffer.read() == (tmp_path / "file").read_bytes()


def test_a_deleted_document_is_gone(run: Run, capsys: Capture) -> None:
    deleted = run("delete", "notes/today", "--json")
    said = printed(capsys)
    again = run("delete", "notes/today")

    assert (deleted, said) == (Exit.DONE, {"deleted": "notes/today"})
    assert again == Exit.FAILED
    assert "document_not_found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("show", "nothing"), Exit.FAILED),
        (("show", "notes/today", "--root", "absent-kind-of-map/"), Exit.DONE),
        (("versions", "nothing"), Exit.FAILED),
        (("restore", "notes/today", "9"), Exit.FAILED),
        (("restore", "notes/today", "9" * 30), Exit.FAILED),
        (("restore", "notes/today", "first"), Exit.USAGE),
        (("show", "a/../b"), Exit.FAILED),
        (("export", "nothing", "--output", "file"), Exit.FAILED),
        (("export", "notes/today", "--output", "no/such/folder/file"), Exit.USAGE),
        (("import", "x", "no-such-file"), Exit.USAGE),
        (("list", "--limit", "9999"), Exit.FAILED),
        (("list", "--cursor", "nonsense"), Exit.FAILED),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    run: Run, arguments: tuple[str, ...], code: Exit, capsys: Capture
) -> None:
    outcome = run(*arguments)

    said = capsys.readouterr()
    assert outcome == code
    assert "Traceback" not in said.out + said.err
    assert "internal" not in said.err
    assert bool(said.err.strip()) == (code != Exit.DONE)


def test_what_is_no_export_is_refused(run: Run, capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")

    code = run("import", "notes/copy", str(tmp_path / "picture.png"))

    assert code == Exit.FAILED
    assert "no exported document" in capsys.readouterr().err


def test_names_are_shown_as_they_are(run: Run, capsys: Capture, tmp_path: Path) -> None:
    file = str(tmp_path / "file")
    run("export", "other", "--output", file)

    run("import", "[red]日本[/red] %2F?#", file)
    run("delete", "other")
    capsys.readouterr()
    run("list")

    assert "[red]日本[/red] %2F?#" in capsys.readouterr().out


def test_a_server_is_asked_with_the_key(capsys: Capture, tmp_path: Path) -> None:
    open_documents = a_library()
    rest = Rest(open_documents=open_documents)
    file = str(tmp_path / "file")

    with served(rest.app, open_documents) as url:
        where = ("--url", url, "--key", rest.admin)
        httpx.put(
            f"{url}/documents/notes%2Ftoday", json={"content": "one"}, headers={"authorization": f"Bearer {rest.admin}"}
        )
        exported = main(("documents", "export", "notes/today", "--output", file, *where))
        imported = main(("documents", "import", "notes/copy", file, *where))
        capsys.readouterr()
        main(("documents", "list", "--json", *where))
        listed = capsys.readouterr().out
        denied = main(("documents", "list", "--url", url, "--key", "rkey_wrong"))

    assert (exported, imported, denied) == (Exit.DONE, Exit.DONE, Exit.DENIED)
    assert '"notes/copy"' in listed


def test_a_server_that_is_away_is_exit_code_3(capsys: Capture) -> None:
    code = main(("documents", "list", "--url", "http://127.0.0.1:1"))

    assert code == Exit.AWAY
    assert "no answer from http://127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["flag", "variable", "file"])
def test_documents_that_are_stored_apart_from_sessions_are_found_there(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    sessions, notes = f"lmdb://{tmp_path / 'sessions'}", f"lmdb://{tmp_path / 'notes'}"
    asyncio.run(_furnish(sessions, notes))
    if way == "variable":
        monkeypatch.setenv("ROOMKEY_STORAGE_DOCUMENTS", notes)
    (tmp_path / "apart.toml").write_text(f'[storage]\ndocuments = "{notes}"')
    more = {"flag": ("--documents", notes), "variable": (), "file": ("--config", str(tmp_path / "apart.toml"))}[way]

    code = main(("documents", "list", "--json", "--storage", sessions, *more))
    apart = printed(capsys)["documents"]
    monkeypatch.delenv("ROOMKEY_STORAGE_DOCUMENTS", raising=False)
    main(("documents", "list", "--json", "--storage", sessions))
    together = printed(capsys)["documents"]

    assert code == Exit.DONE
    assert [document["name"] for document in apart] == ["notes/today", "other"]
    assert together == []
    assert not (tmp_path / "notes" / "data.mdb").exists()  # sessions are not there
