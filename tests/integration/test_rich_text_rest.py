"""Rich text over REST: in every form, at anchors, with what is refused and why; and the same without HTTP."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pycrdt import Doc, XmlFragment

import roomkey
from roomkey import AnchoredEdit, errors
from roomkey.client import Roomkey
from tests.support.rich_text import node, paragraph, text

PROSEMIRROR = "application/vnd.roomkey.prosemirror+json"
MARKDOWN = "text/markdown"
HTML = "text/html"
TEXT = "text/plain"
YJS = "application/x-yjs-update"
ANCHORED = "application/vnd.roomkey.anchored-edits+json"

PAGE = "/documents/pages%2Ftea"
TEA = "# Tea\n\nA cup of **green** tea.\n"


@asynccontextmanager
async def at_work() -> AsyncGenerator[tuple[roomkey.RoomkeyApp, httpx.AsyncClient]]:
    rooms = roomkey.asgi(storage={"url": "memory"}, server={"dev": True})
    transport = httpx.ASGITransport(rooms)
    async with rooms.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://rooms") as http:
        yield rooms, http


async def put(
    http: httpx.AsyncClient, body: Any, kind: str = MARKDOWN, path: str = PAGE, **query: str
) -> httpx.Response:
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    return await http.put(path, content=content, headers={"content-type": kind}, params=query)


async def get(http: httpx.AsyncClient, accept: str = MARKDOWN, path: str = PAGE, **query: str) -> httpx.Response:
    return await http.get(path, headers={"accept": accept}, params=query)


async def patch(http: httpx.AsyncClient, *edits: dict[str, Any], accept: str = "*/*", **more: Any) -> httpx.Response:
    headers = {"content-type": ANCHORED, "accept": accept}
    return await http.patch(PAGE, content=json.dumps({"edits": edits, **more}), headers=headers)


# --- forms --------------------------------------------------------------------------------------------


async def test_a_document_that_is_written_as_markdown_is_read_in_every_form() -> None:
    async with at_work() as (_, http):
        made = await put(http, TEA)

        assert made.status_code == 201
        assert (await get(http)).text == TEA
        assert (await get(http, HTML)).text == "<h1>Tea</h1>\n<p>A cup of <strong>green</strong> tea.</p>\n"
        assert (await get(http, TEXT)).text == "Tea\n\nA cup of green tea."
        assert (await get(http, PROSEMIRROR)).json() == {
            "type": "doc",
            "content": [
                node("heading", text("Tea"), level=1),
                paragraph("A cup of ", text("green", "bold"), " tea."),
            ],
        }
        assert (await get(http, "application/json")).json()["default"].startswith('<heading level="1">Tea</heading>')


async def test_html_is_answered_so_that_a_browser_runs_nothing_in_it() -> None:
    async with at_work() as (_, http):
        await put(http, '<p onclick="x()">a<script>alert(1)</script><a href="javascript:x()">b</a></p>', HTML)

        answer = await get(http, HTML)

        assert answer.text == "<p>ab</p>\n"
        assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
"""What browsers say that they accept, whatever they open."""


async def test_a_browser_gets_rich_text_as_a_page_and_everything_else_as_json() -> None:
    async with at_work() as (_, http):
        await put(http, TEA)
        await http.put("/documents/list", json={"content": "Apples"})
        await http.post("/documents/list/versions")

        page, listed = await get(http, BROWSER), await get(http, BROWSER, "/documents/list")
        version = await get(http, BROWSER, "/documents/list/versions/1")
        refused = [
            await get(http, HTML, "/documents/list"),
            await get(http, f"{HTML}, application/json;q=0", "/documents/list", root="content"),
            await get(http, BROWSER, "/documents/list", root="content"),
        ]

        assert page.text.startswith("<h1>Tea</h1>")
        assert [answer.headers["content-type"] for answer in (listed, version)] == ["application/json"] * 2
        assert (listed.json(), version.json()) == ({"content": "Apples"}, {"content": "Apples"})
        assert [answer.status_code for answer in refused] == [422] * 3


@pytest.mark.parametrize(
    ("schema", "root", "first"),
    [
        ("tiptap", "default", "bulletList"),
        ("prosemirror", "prosemirror", "bullet_list"),
        ("blocknote", "document-store", "blockGroup"),
    ],
)
async def test_an_empty_document_gets_the_names_and_the_root_of_the_editor_that_is_named(
    schema: str, root: str, first: str
) -> None:
    async with at_work() as (_, http):
        await put(http, "- one\n- two\n", schema=schema)

        assert (await get(http, PROSEMIRROR, root=root)).json()["content"][0]["type"] == first
        assert (await get(http)).text == "- one\n- two\n"
        assert (await put(http, "- one\n- two\n- three\n")).status_code == 200
        assert (await get(http, PROSEMIRROR)).json()["content"][0]["type"] == first


async def test_a_write_changes_only_what_differs_and_is_merged_with_what_others_type() -> None:
    async with at_work() as (_, http):
        await put(http, TEA)
        state = (await get(http, YJS)).content
        other: Doc[Any] = Doc()
        other.apply_update(state)
        paragraph_of_other = other.get("default", type=XmlFragment).children[1]
        paragraph_of_other.children[0].insert(0, "Now: ")

        await put(http, TEA.replace("cup", "pot"))
        await put(http, other.get_update(), YJS)

        assert (await get(http)).text == "# Tea\n\nNow: A pot of **green** tea.\n"
        before = int((await get(http)).headers["roomkey-sequence"])
        assert (await put(http, (await get(http)).text)).headers["roomkey-sequence"] == str(before)


async def test_what_a_form_cannot_say_survives_its_changes() -> None:
    comment = {"type": "comment", "attrs": {"id": "c1"}}
    tree = [
        paragraph(text("Hello "), text("dear", "bold", comment), node("mention", id="ada"), textAlign="right"),
        node("callout", paragraph("careful"), kind="warn"),
    ]
    async with at_work() as (_, http):
        await put(http, {"type": "doc", "content": tree}, PROSEMIRROR)

        said = (await get(http)).text
        await put(http, said.replace("Hello", "Hi").replace("careful", "take care"))

        first, second = (await get(http, PROSEMIRROR)).json()["content"]
        assert first["attrs"] == {"textAlign": "right"}
        assert [run.get("text", run["type"]) for run in first["content"]] == ["Hi ", "dear", "mention"]
        assert comment in first["content"][1]["marks"]
        assert second == node("callout", paragraph("take care"), kind="warn")


async def test_a_mark_that_markdown_cannot_say_stays_on_words_that_it_makes_bold() -> None:
    comment = {"type": "comment", "attrs": {"id": "c1"}}
    async with at_work() as (_, http):
        await put(http, [paragraph("say ", text("this one", comment))], PROSEMIRROR)

        await put(http, "say this **one**\n")

        runs = (await get(http, PROSEMIRROR)).json()["content"][0]["content"]
        assert runs == [text("say "), text("this ", comment), text("one", "bold", comment)]


async def test_plain_text_keeps_the_blocks_and_marks_that_it_does_not_touch() -> None:
    async with at_work() as (_, http):
        await put(http, "## Tea\n\n- **green** leaves\n- water\n")

        written = await put(http, "Tea\n\ngreen leaves, dry\n\nwater\n\nsugar", TEXT)

        assert written.status_code == 200
        assert (await get(http)).text == "## Tea\n\n- **green** leaves, dry\n- water\n- sugar\n"


async def test_it_is_said_which_rich_text_is_meant_and_what_is_none() -> None:
    async with at_work() as (_, http):
        await put(http, TEA, root="one")
        await put(http, TEA, root="two")
        await http.put("/documents/plain", json={"content": "text"})

        assert (await get(http)).status_code == 422
        assert "'one', 'two'" in (await get(http)).json()["detail"]
        assert (await get(http, root="two")).text == TEA
        assert (await get(http, path="/documents/plain")).status_code == 422
        assert (await put(http, TEA, path="/documents/plain", root="content")).status_code == 422
        assert (await get(http, TEXT, path="/documents/plain")).text == "text"


async def test_what_cannot_be_written_is_refused_with_its_place() -> None:
    wrong = {"type": "doc", "content": [paragraph("a"), {"type": "paragraph", "content": [{"type": "text"}]}]}
    async with at_work() as (_, http):
        refused = await put(http, wrong, PROSEMIRROR)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == "#/content/1/content/0"

        await put(http, "1. a\n", schema="prosemirror")
        tasks = await put(http, "- [x] done\n")
        assert tasks.status_code == 422
        assert "taskList" in tasks.json()["errors"][0]["detail"]
        assert (await get(http)).text == "1. a\n"

        lost = await put(http, "<!--roomkey:video:0123456789ab/-->\n")
        assert lost.status_code == 422
        assert "not in the document" in lost.json()["errors"][0]["detail"]


# --- anchors ------------------------------------------------------------------------------------------


async def test_edits_at_anchors_are_made_together_and_keep_marks() -> None:
    async with at_work() as (_, http):
        await put(http, TEA)

        edited = await patch(
            http,
            {"find": "green", "replace": "black"},
            {"find": "cup", "insert_before": "big "},
            {"find": "Tea", "insert_after": "- hot\n- cold", "format": "markdown"},
            {"at": "end", "insert_after": [paragraph("end")], "format": "prosemirror"},
            expected_revision=(await get(http)).headers["etag"],
        )

        assert edited.status_code == 200
        assert (await get(http)).text == "# Tea\n\n- hot\n- cold\n\nA big cup of **black** tea.\n\nend\n"


async def test_an_old_revision_is_refused_with_what_the_document_says_now() -> None:
    async with at_work() as (_, http):
        await put(http, TEA)
        old = (await get(http)).headers["etag"]
        await put(http, TEA.replace("green", "white"))

        refused = await patch(http, {"find": "green", "replace": "red"}, expected_revision=old, accept=MARKDOWN)

        problem = refused.json()
        assert (refused.status_code, problem["code"]) == (412, "revision_mismatch")
        assert problem["current"]["content"] == TEA.replace("green", "white")
        assert problem["current"]["format"] == MARKDOWN
        again = await patch(http, {"find": "white", "replace": "red"}, expected_revision=problem["current"]["revision"])
        assert again.status_code == 200
        assert "red" in (await get(http)).text


async def test_of_two_that_expect_the_same_revision_one_is_refused() -> None:
    async with at_work() as (_, http):
        await put(http, TEA)
        revision = int((await get(http)).headers["roomkey-sequence"])

        answers = await asyncio.gather(
            *(patch(http, {"at": "end", "insert_after": word}, expected_revision=revision) for word in ("x", "y"))
        )

        assert sorted(answer.status_code for answer in answers) == [200, 412]


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"find": "coffee", "replace": "x"}, "#/edits/1/find"),
        ({"find": "e", "replace": "x"}, "#/edits/1/find"),
        ({"find": "Tea\n\nA", "replace": "x"}, "#/edits/1/find"),
        ({"find": "Tea", "occurrence": 2, "replace": "x"}, "#/edits/1/find"),
        ({"find": "Tea"}, "#/edits/1"),
        ({"find": "Tea", "replace": "x", "insert_after": "y"}, "#/edits/1"),
        ({"at": "end", "replace": "x"}, "#/edits/1"),
        ({"find": "Tea", "replace": ["x"], "format": "text"}, None),
        ({"find": "Tea", "insert_after": [{"type": "text"}], "format": "prosemirror"}, "#/edits/1/content/0"),
    ],
)
async def test_an_edit_that_cannot_be_made_is_named_and_none_is_made(
    wrong: dict[str, Any], pointer: str | None
) -> None:
    async with at_work() as (_, http):
        await put(http, TEA)

        refused = await patch(http, {"find": "green", "replace": "black"}, wrong)

        assert refused.status_code == 422
        if pointer is not None:
            assert refused.json()["errors"][0]["pointer"] == pointer
        assert (await get(http)).text == TEA


async def test_plain_texts_are_edited_at_anchors_too() -> None:
    async with at_work() as (_, http):
        await http.put(PAGE, json={"content": "one two one"})

        assert (await patch(http, {"find": "one", "occurrence": 2, "replace": "three"})).status_code == 200
        assert (await http.get(PAGE)).json() == {"content": "one two three"}


# --- who wrote what -----------------------------------------------------------------------------------


async def test_who_wrote_what_is_told_by_place_in_the_text_and_by_node() -> None:
    async with at_work() as (rooms, http):
        await rooms.documents.write_rich("pages/tea", TEA, "markdown", actor="ada")
        await rooms.documents.edit_at("pages/tea", [{"find": "green", "insert_after": "ish"}], actor="bob")

        ranges = (await http.get(f"{PAGE}/blame")).json()["ranges"]

        plain = (await get(http, TEXT)).text
        assert [(plain[each["start"] : each["end"]], each["actor"], each["path"]) for each in ranges] == [
            ("Tea", "ada", "/content/0/content/0"),
            ("A cup of ", "ada", "/content/1/content/0"),
            ("green", "ada", "/content/1/content/1"),
            ("ish", "bob", "/content/1/content/1"),
            (" tea.", "ada", "/content/1/content/2"),
        ]


# --- other ways ---------------------------------------------------------------------------------------


async def test_the_application_and_the_client_do_the_same_without_and_with_http() -> None:
    async with at_work() as (rooms, http), Roomkey("http://rooms", http=http) as client:
        await rooms.documents.write_rich("pages/tea", TEA, "markdown")

        read = await client.documents.read_rich("pages/tea", "markdown")
        await client.documents.edit_at("pages/tea", [AnchoredEdit(find="green", replace="black")], expected=read.etag)
        with pytest.raises(errors.RevisionMismatch) as refused:
            await client.documents.edit_at("pages/tea", [AnchoredEdit(find="cup", replace="pot")], expected=read.etag)
        with pytest.raises(errors.RevisionMismatch):
            await rooms.documents.edit_at("pages/tea", [AnchoredEdit(find="cup", replace="pot")], if_version=1)
        await client.documents.write_rich("pages/tea", [paragraph("new")])

        assert refused.value.current.content == "Tea\n\nA cup of black tea."
        assert (await rooms.documents.read_rich("pages/tea")).content == {"type": "doc", "content": [paragraph("new")]}


# --- bounds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (MARKDOWN, ">" * 5_000 + " deep", 422),
        (MARKDOWN, "|a" * 1_500_000, 413),
        (HTML, "<div>" * 5_000 + "deep", 422),
        (HTML, "<p>a</p>" * 1_000_000, 413),
        (PROSEMIRROR, '{"type":"doc","content":[' + '{"type":"a","content":[' * 120 + "]}" * 120 + "]}", 422),
        (PROSEMIRROR, '{"type":"doc","content":' + "[" * 100_000, 400),
        (PROSEMIRROR, '[{"type":"a","attrs":{"b":' + "[" * 100 + "]" * 100 + "}}]", 422),
        (PROSEMIRROR, '[{"type":"a","attrs":{"b":1e400}}]', 400),
        (PROSEMIRROR, "[" + ",".join(['{"type":"a"}'] * 20_001) + "]", 422),
    ],
)
async def test_what_is_too_deep_or_too_much_is_refused_and_nothing_is_made(kind: str, body: str, status: int) -> None:
    async with at_work() as (_, http):
        refused = await put(http, body, kind)

        assert refused.status_code == status, refused.text[:500]
        assert (await get(http)).status_code == 404


async def test_markdown_that_is_made_to_take_long_is_given_up() -> None:
    async with at_work() as (_, http):
        refused = await put(http, "[" * 400_000 + "\n")

        assert refused.status_code == 422
        assert "too intricate" in refused.json()["detail"]
