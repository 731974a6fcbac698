"""Documents over REST: what goes in by each media type comes out by each, and nothing that others type is lost."""

import asyncio
import json
from base64 import urlsafe_b64encode
from typing import Any

import msgspec
import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText
from structlog.testing import capture_logs

from roomkey.api.operations import ApiSettings
from roomkey.domain.access import Access, Grant
from roomkey.errors import Storage
from roomkey.wire.lib0 import sized
from tests.support.documents import STEP2, UPDATE, FailingStore, a_site, content_of, edit, faulty, y_client
from tests.support.documents import document_of as opened
from tests.support.rest import Answer, Rest, documents_at_work

JSON = "application/json"
TEXT = "text/plain"
YJS = "application/x-yjs-update"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
TEXT_EDITS = "application/vnd.roomkey.text-edits+json"
ANCHORED_EDITS = "application/vnd.roomkey.anchored-edits+json"
RICH_FORMS = "application/vnd.roomkey.prosemirror+json, text/markdown, text/html"
BUNDLE = "application/vnd.roomkey.document"

NOTES = "/documents/notes%2Ftoday"


async def read(rest: Rest, path: str = NOTES, accept: str = JSON, **headers: str) -> Answer:
    return await rest.call("GET", path, token=rest.admin, headers={"accept": accept, **headers})


async def put(rest: Rest, body: Any, path: str = NOTES, kind: str = JSON, **headers: str) -> Answer:
    return await send(rest, "PUT", body, path, kind, **headers)


async def patch(rest: Rest, body: Any, kind: str, path: str = NOTES, **headers: str) -> Answer:
    return await send(rest, "PATCH", body, path, kind, **headers)


async def send(rest: Rest, method: str, body: Any, path: str, kind: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await rest.call(method, path, token=rest.service, body=raw, headers={"content-type": kind, **named})


def everything() -> bytes:
    """A document with something of each kind in it."""
    doc: Doc[Any] = Doc()
    doc["title"] = Text("Grüße 👋")
    doc["list"] = Array([1, True, None, "two", [3.5]])
    doc["map"] = Map({"deep": {"er": [1]}, "bytes": b"\x00\xff"})
    doc["page"] = XmlFragment([XmlElement("p", {"class": "big"})])
    return doc.get_update()


# --- in and out ---------------------------------------------------------------------------------------


async def test_json_makes_a_document_that_says_it() -> None:
    async with documents_at_work() as rest:
        said: Any = {"content": "hello", "items": [1, {"a": None}], "settings": {"title": "Ünï", "deep": {"er": []}}}

        made = await put(rest, said)
        shown = await read(rest)

        assert (made.status, made.header("location")) == (201, NOTES)
        assert set(made.json) == {"name", "lineage", "sequence", "created_at", "updated_at", "bytes"}
        assert (made.json["name"], made.json["sequence"]) == ("notes/today", 1)
        assert (shown.status, shown.header("content-type"), shown.json) == (200, JSON, said)


async def test_every_kind_of_content_is_shown_in_json() -> None:
    async with documents_at_work() as rest:
        await put(rest, everything(), kind=YJS)

        shown = await read(rest)

        assert shown.json == {
            "title": "Grüße 👋",
            "list": [1, True, None, "two", [3.5]],
            "map": {"deep": {"er": [1]}, "bytes": "AP8="},
            "page": '<p class="big"></p>',
        }


async def test_one_text_goes_in_and_out_as_text() -> None:
    async with documents_at_work() as rest:
        made = await put(rest, "Grüße 👋".encode(), NOTES + "?root=body", kind=f"{TEXT}; charset=UTF-8")
        changed = await put(rest, b"Hello", kind=TEXT)

        named = await read(rest, NOTES + "?root=body", TEXT)
        only = await read(rest, accept=TEXT)

        assert (made.status, changed.status) == (201, 200)
        assert only.header("content-type") == "text/plain; charset=utf-8"
        assert only.body == named.body == b"Hello"


async def test_an_update_is_merged_and_the_whole_comes_back() -> None:
    async with documents_at_work() as rest:
        await put(rest, everything(), kind=YJS)
        again = await put(rest, everything(), kind=YJS)

        whole = await read(rest, accept=YJS)

        assert whole.header("content-type") == YJS
        assert str(opened(whole.body).get("title", type=Text)).count("Grüße 👋") == 2  # another client's, merged
        assert again.status == 200


async def test_the_same_update_again_changes_nothing() -> None:
    async with documents_at_work() as rest:
        update = everything()
        first = await put(rest, update, kind=YJS)

        second = await put(rest, update, kind=YJS)

        assert (first.status, second.status) == (201, 200)
        assert first.header("etag") == second.header("etag")


async def test_who_says_what_it_has_is_given_what_it_lacks() -> None:
    async with documents_at_work() as rest:
        await put(rest, {"content": "one"})
        mine = opened((await read(rest, accept=YJS)).body)
        state = urlsafe_b64encode(mine.get_state()).decode()
        await put(rest, {"content": "one two"})

        bare = await read(rest, f"{NOTES}?since={state.rstrip('=')}", YJS)
        padded = await read(rest, f"{NOTES}?since={state.replace('=', '%3D')}", YJS)

        whole = await read(rest, accept=YJS)
        assert bare.body == padded.body
        assert len(bare.body) < len(whole.body)
        mine.apply_update(bare.body)
        assert str(mine.get("content", type=Text)) == "one two"


async def test_replacing_in_json_leaves_the_roots_that_it_does_not_name() -> None:
    async with documents_at_work() as rest:
        await put(rest, {"content": "a", "settings": {"x": 1, "y": {"z": 2}}})

        await put(rest, {"settings": {"y": {"z": 3}}})

        assert (await read(rest)).json == {"content": "a", "settings": {"y": {"z": 3}}}


async def test_which_text_is_meant_must_be_clear() -> None:
    async with documents_at_work() as rest:
        await put(rest, {"one": "1", "two": "2", "list": []})
        await put(rest, {"list": [1]})

        unclear = [await read(rest, accept=TEXT), await put(rest, b"x", kind=TEXT)]
        wrong = [await read(rest, NOTES + "?root=list", TEXT), await put(rest, b"x", NOTES + "?root=list", kind=TEXT)]

        assert [answer.status for answer in [*unclear, *wrong]] == [422] * 4
        assert all("'one' (text)" in answer.json["detail"] for answer in unclear)
        assert all("array" in answer.json["detail"] for answer in wrong)


@pytest.mark.parametrize(
    ("accept", "status", "kind"),
    [
        ("*/*", 200, JSON),
        ("text/*, application/json;q=0.5", 200, "text/plain; charset=utf-8"),
        ("text/plain;q=0.2, application/x-yjs-update;q=0.9", 200, YJS),
        ("application/json;q=0, */*;q=0.1", 200, "text/plain; charset=utf-8"),
        ("image/png", 406, "application/problem+json"),
    ],
)
async def test_the_caller_chooses_the_form(accept: str, status: int, kind: str) -> None:
    async with documents_at_work() as rest:
        await put(rest, {"content": "a"})

        shown = await read(rest, accept=accept)

        assert (shown.status, shown.header("content-type")) == (status, kind)
        assert shown.header("vary") == ("accept" if status == 200 else "")


async def test_a_large_document_is_shown_like_a_small_one() -> None:
    async with documents_at_work() as rest:
        words = "all work and no play " * 20_000
        await put(rest, words.encode(), NOTES + "?root=content", kind=TEXT)

        assert (await read(rest, accept=TEXT)).body == words.encode()
        assert (await read(rest)).json == {"content": words}


# --- patches ------------------------------------------------------------------------------------------


async def test_a_merge_patch_changes_what_it_names() -> None:
    async with documents_at_work() as rest:
        await put(rest, {"content": "a", "settings": {"x": 1, "y": {"z": 2}}})

        answer = await patch(rest, {"settings": {"x": None, "y": {"w": 3}}}, MERGE_PATCH)

        assert answer.status == 200
        assert (await read(rest)).json == {"content": "a", "settings": {"y": {"z": 2, "w": 3}}}


async def test_a_json_patch_is_done_altogether_or_not_at_all() -> None:
    async with documents_at_work() as rest:
        await put(rest, {"items": [1, 2, 3], "settings": {"x": 1}})
        good = [
            {"op": "test", "path": "/settings/x", "value": 1},
            {"op": "add", "path": "/items/1", "value": None},
            {"op": "move", "from": "/settings/x", "path": "/settings/y"},
        ]

        done = await patch(rest, good, JSON_PATCH)
        failed = await patch(rest, [{"op": "remove", "path": "/items/0"}, good[0]], JSON_PATCH)
        refused = await patch(rest, [*good[1:2], {"op": "test", "path": "/settings/y", "value": 2}], JSON_PATCH)

        assert (done.status, failed.status, refused.status) == (200, 422, 409)
        assert refused.code == "conflict"
        assert (await read(rest)).json == {"items": [1, None, 2, 3], "settings": {"y": 1}}


async def test_texts_are_edited_in_code_points() -> None:
    async with documents_at_work() as rest:
        await put(rest, {"content": "Grüße 👋!"})
        edits = [
            {"root": "content", "index": 7, "insert": "🌍"},
            {"root": "content", "index": 0, "delete": 5, "insert": "Hi"},
        ]

        done = await patch(rest, {"edits": edits}, TEXT_EDITS)
        beyond = await patch(rest, {"edits": [{"root": "content", "index": 99, "insert": "x"}]}, TEXT_EDITS)

        assert (done.status, beyond.status) == (200, 422)
        assert (await read(rest)).json == {"content": "Hi 👋🌍!"}


async def test_a_patch_makes_no_document() -> None:
    async with documents_at_work() as rest:
        answers = [
            await patch(rest, {"content": "a"}, MERGE_PATCH),
            await patch(rest, [{"op": "add", "path": "/content", "value": "a"}], JSON_PATCH),
            await patch(rest, {"edits": [{"root": "content", "index": 0, "insert": "a"}]}, TEXT_EDITS),
        ]

        assert [(answer.status, answer.code) for answer in answers] == [(404, "document_not_found")] * 3
        assert (await rest.call("GET", "/documents", token=rest.admin)).json["documents"] == []


# --- what cannot be -----------------------------------------------------------------------------------

DEEP = b'{"a":' + b"[" * 64 + b"]" * 64 + b"}"


@pytest.mark.parametrize(
    ("method", "kind", "body", "status"),
    [
        ("PUT", JSON, b"", 400),
        ("PUT", JSON, b"{", 400),
        ("PUT", JSON, b"[]", 422),
        ("PUT", JSON, b'{"a":1}', 422),
        ("PUT", JSON, b'{"a":null}', 422),
        ("PUT", JSON, b'{"a":[9007199254740993]}', 422),
        ("PUT", JSON, b'{"a":{"b":"\\ud800"}}', 400),
        ("PUT", JSON, DEEP, 422),
        ("PUT", JSON, b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        ("PUT", TEXT, b"\xff\xfe", 400),
        ("PUT", f"{TEXT}; charset=latin-1", b"x", 415),
        ("PUT", YJS, b"", 422),
        ("PUT", YJS, b"nonsense", 422),
        ("PUT", "application/octet-stream", b"x", 415),
        ("PUT", "", b"x", 415),
        ("PUT", MERGE_PATCH, b"{}", 415),
        ("PATCH", JSON, b"{}", 415),
        ("PATCH", MERGE_PATCH, b"[]", 422),
        ("PATCH", JSON_PATCH, b"{}", 422),
        ("PATCH", JSON_PATCH, b'[{"op":"fly","path":""}]', 422),
        ("PATCH", JSON_PATCH, b'[{"op":"add","path":"/a"}]', 422),
        ("PATCH", TEXT_EDITS, b'{"edits":[{"root":"a","index":-1}]}', 422),
        ("PATCH", TEXT_EDITS, b'{"edits":[{"root":"a"}]}', 422),
    ],
)
async def test_what_cannot_be_changes_nothing_and_makes_nothing(
    method: str, kind: str, body: bytes, status: int
) -> None:
    async with documents_at_work() as rest:
        path = "/documents/new?root=a" if kind.startswith(TEXT) else "/documents/new"
        if method == "PATCH":
            await put(rest, {}, path)
        before = (await rest.call("GET", "/documents", token=rest.admin)).body

        answer = await send(rest, method, body, path, kind)

        assert answer.status == status
        assert answer.code in {"malformed_request", "invalid_input", "unsupported_media_type"}
        assert (status == 415) == bool(answer.header("accept"))
        assert (await rest.call("GET", "/documents", token=rest.admin)).body == before


async def test_what_is_not_understood_is_answered_with_what_is() -> None:
    async with documents_at_work() as rest:
        put_one = await put(rest, b"x", kind="image/png")
        patch_one = await patch(rest, b"x", "image/png")

        assert put_one.header("accept") == f"{JSON}, {TEXT}, {YJS}, {RICH_FORMS}"
        assert patch_one.header("accept") == f"{MERGE_PATCH}, {JSON_PATCH}, {TEXT_EDITS}, {ANCHORED_EDITS}"


async def test_a_body_is_as_large_as_it_may_be() -> None:
    async with documents_at_work(settings=ApiSettings(max_document_bytes=100_000)) as rest:
        path = NOTES + "?root=content"

        fits = await put(rest, b"x" * 100_000, path, TEXT)
        announced = await put(rest, b"x" * 100_001, path, TEXT)
        in_parts = await rest.call(
            "PUT", path, token=rest.admin, body=[b"x" * 60_000] * 2, headers={"content-type": TEXT}
        )

        assert fits.status == 201
        assert [(answer.status, answer.code) for answer in (announced, in_parts)] == [(413, "too_large")] * 2


async def test_a_version_label_has_the_small_limit() -> None:
    async with documents_at_work() as rest:
        await put(rest, {})

        answer = await send(rest, "POST", b'{"label":"' + b"x" * 70_000 + b'"}', NOTES + "/versions", JSON)

        assert (answer.status, answer.code) == (413, "too_large")


# --- conditions ---------------------------------------------------------------------------------------


async def test_the_etag_is_lineage_and_version_and_moves_with_every_change() -> None:
    async with documents_at_work() as rest:
        made = await put(rest, {"content": "a"})
        same = await put(rest, {"content": "a"})
        changed = await put(rest, {"content": "b"})

        lineage = made.json["lineage"]
        assert made.header("etag") == same.header("etag") == f'"{lineage}.1"'
        assert changed.header("etag") == f'"{lineage}.2"'
        assert (changed.header("roomkey-lineage"), changed.header("roomkey-sequence")) == (lineage, "2")
        assert (await read(rest)).header("etag") == changed.header("etag")


async def test_who_has_it_already_is_told_so() -> None:
    async with documents_at_work() as rest:
        tag = (await put(rest, {"content": "a"})).header("etag")

        unchanged = await rest.call("GET", NOTES, token=rest.admin, headers={"if-none-match": f'W/{tag}, "x"'})
        await put(rest, {"content": "b"})
        changed = await rest.call("GET", NOTES, token=rest.admin, headers={"if-none-match": tag})

        assert (unchanged.status, unchanged.body, unchanged.header("etag")) == (304, b"", tag)
        assert changed.status == 200


async def test_a_change_can_depend_on_the_version() -> None:
    async with documents_at_work() as rest:
        old = (await put(rest, {"content": "a"})).header("etag")
        new = (await put(rest, {"content": "b"}, if_match=old)).header("etag")

        late = [
            await put(rest, {"content": "c"}, if_match=old),
            await put(rest, everything(), kind=YJS, if_match=f"W/{new}"),
            await patch(rest, {"content": "c"}, MERGE_PATCH, if_match='"3", "x.1"'),
            await rest.call("DELETE", NOTES, token=rest.admin, headers={"if-match": old}),
        ]
        right = await patch(rest, {"content": "c"}, MERGE_PATCH, if_match=f'"x", {new}')
        malformed = await put(rest, {"content": "d"}, if_match="3")

        assert [(answer.status, answer.code) for answer in late] == [(412, "version_mismatch")] * 4
        assert (right.status, malformed.status) == (200, 400)
        assert (await read(rest)).json == {"content": "c"}


async def test_a_document_is_made_only_if_there_is_none_or_changed_only_if_there_is_one() -> None:
    async with documents_at_work() as rest:
        missing = await put(rest, {"content": "0"}, if_match="*")
        made = await put(rest, {"content": "a"}, if_none_match="*")
        second = await put(rest, {"content": "b"}, if_none_match="*")
        changed = await put(rest, {"content": "c"}, if_match="*")

        assert [each.status for each in (missing, made, second, changed)] == [412, 201, 412, 200]
        assert (await read(rest)).json == {"content": "c"}


async def test_of_a_hundred_who_make_the_same_document_one_does() -> None:
    async with documents_at_work() as rest:
        answers = await asyncio.gather(
            *(put(rest, {"content": str(number)}, if_none_match="*") for number in range(100))
        )

        assert sorted(answer.status for answer in answers) == [201] + [412] * 99


async def test_head_is_get_without_a_body() -> None:
    async with documents_at_work() as rest:
        await put(rest, {"content": "a"})

        head = await rest.call("HEAD", NOTES, token=rest.admin)

        shown = await read(rest)
        assert (head.status, head.body) == (200, b"")
        assert head.header("content-length") == str(len(shown.body))
        assert head.header("etag") == shown.header("etag")


# --- the list, and the end ----------------------------------------------------------------------------


async def test_documents_are_listed_by_prefix_and_page() -> None:
    async with documents_at_work() as rest:
        for name in ("notes%2Fb", "notes%2Fa", "other", "notes%2Fc"):
            await put(rest, {}, f"/documents/{name}")

        first = (await rest.call("GET", "/documents?prefix=notes/&limit=2", token=rest.admin)).json
        second = (
            await rest.call("GET", f"/documents?prefix=notes/&cursor={first['next_cursor']}", token=rest.admin)
        ).json
        lost = await rest.call("GET", "/documents?cursor=nonsense", token=rest.admin)

        names = [each["name"] for each in first["documents"] + second["documents"]]
        assert names == ["notes/a", "notes/b", "notes/c"]
        assert second["next_cursor"] is None
        assert (lost.status, lost.code) == (404, "unknown_cursor")


async def test_a_deleted_document_is_gone_and_comes_back_as_another_one() -> None:
    async with documents_at_work() as rest:
        first = await put(rest, {"content": "a"})
        await rest.call("POST", NOTES + "/versions", token=rest.admin)

        gone = await rest.call("DELETE", NOTES, token=rest.admin)
        after = [await read(rest), await rest.call("DELETE", NOTES, token=rest.admin)]
        anew = await put(rest, {"content": "b"})

        assert (gone.status, gone.body) == (204, b"")
        assert [(answer.status, answer.code) for answer in after] == [(404, "document_not_found")] * 2
        assert anew.status == 201
        assert anew.json["lineage"] != first.json["lineage"]
        assert (await rest.call("GET", NOTES + "/versions", token=rest.admin)).json["versions"] == []


# --- versions and authors -----------------------------------------------------------------------------


async def test_versions_are_kept_shown_compared_and_restored() -> None:
    async with documents_at_work() as rest:
        await put(rest, {"content": "one", "items": [1]})
        kept = await send(rest, "POST", {"label": "first"}, NOTES + "/versions", JSON)
        await put(rest, {"content": "one two", "items": [1, 2]})
        await send(rest, "POST", b"", NOTES + "/versions", JSON)

        old = await read(rest, NOTES + "/versions/1")
        as_text = await read(rest, NOTES + "/versions/1?root=content", TEXT)
        to_now = await read(rest, NOTES + "/versions/1/diff")
        back = await read(rest, NOTES + "/versions/2/diff?against=1")
        restored = await rest.call("POST", NOTES + "/versions/1/restore", token=rest.admin)
        listed = (await read(rest, NOTES + "/versions")).json["versions"]

        assert (kept.status, kept.header("location")) == (201, NOTES + "/versions/1")
        assert (kept.json["number"], kept.json["label"], kept.json["sequence"]) == (1, "first", 1)
        assert kept.json["author"] == {"actor": "key:backend", "session_id": None, "user_id": None}
        assert (old.json, as_text.body) == ({"content": "one", "items": [1]}, b"one")
        assert to_now.json["roots"]["content"] == [{"equal": "one"}, {"insert": " two"}]
        assert back.json["roots"]["content"] == [{"equal": "one"}, {"delete": " two"}]
        assert restored.status == 200
        assert (await read(rest)).json == old.json
        assert [(each["number"], each["label"]) for each in listed] == [(3, None), (2, None), (1, "first")]


async def test_a_restored_version_is_named_with_who_restored_it() -> None:
    async with documents_at_work() as rest:
        alice = await rest.session("alice", Grant("**", Access.WRITE))
        await put(rest, {"content": "one"})
        await send(rest, "POST", b"", NOTES + "/versions", JSON)
        await put(rest, {"content": "one two"})

        await rest.call("POST", NOTES + "/versions/1/restore", token=alice.token)
        before, first = (await read(rest, NOTES + "/versions")).json["versions"]

        assert (before["restored"], before["author"]["user_id"]) == (1, "alice")
        assert (await read(rest, NOTES + "/versions/2")).json == {"content": "one two"}
        assert first["restored"] is None


async def test_an_editor_is_given_the_changes_that_restore_a_version_to_make_them_itself() -> None:
    async with documents_at_work() as rest:
        await put(rest, everything(), kind=YJS)
        await send(rest, "POST", b"", NOTES + "/versions", JSON)
        old = (await read(rest)).json
        await put(rest, {"title": "Moin", "list": [1, "two"], "map": {}})
        now = await read(rest, accept=YJS)

        restoring = await rest.call("POST", NOTES + "/versions/1/restore?by=caller", token=rest.admin)
        after = await read(rest, accept=YJS)
        await put(rest, restoring.body, kind=YJS)

        assert (restoring.status, restoring.header("content-type")) == (200, YJS)
        assert (restoring.header("etag"), after.body) == (now.header("etag"), now.body)
        assert (await read(rest)).json == old
        assert (await read(rest, NOTES + "/versions")).json["versions"][0]["restored"] == 1


async def test_there_is_nothing_to_do_to_restore_what_is_there() -> None:
    async with documents_at_work() as rest:
        await put(rest, {"content": "one"})
        await send(rest, "POST", b"", NOTES + "/versions", JSON)

        restoring = await rest.call("POST", NOTES + "/versions/1/restore?by=caller", token=rest.admin)

        assert (restoring.status, restoring.body) == (200, b"\0\0")


@pytest.mark.parametrize("number", ["0", "2", "-1", "1.0", "x", "01x", "9" * 5_000, "%C2%B2", "%EF%BC%91"])
@pytest.mark.parametrize(("method", "rest_of_path"), [("GET", ""), ("GET", "/diff"), ("POST", "/restore")])
async def test_a_version_that_is_not_there_is_not_found(number: str, method: str, rest_of_path: str) -> None:
    async with documents_at_work() as rest:
        await put(rest, {"content": "one"})
        await rest.call("POST", NOTES + "/versions", token=rest.admin)

        answer = await rest.call(method, f"{NOTES}/versions/{number}{rest_of_path}", token=rest.admin)

        assert (answer.status, answer.code) == (404, "document_not_found")


async def test_a_version_is_kept_once_however_often_the_request_is_repeated() -> None:
    async with documents_at_work() as rest:
        for path in (NOTES, "/documents/other"):
            await put(rest, {"content": "one"}, path)
        key = {"idempotency-key": "k1"}

        first, again = [await rest.call("POST", NOTES + "/versions", token=rest.admin, headers=key) for _ in range(2)]
        elsewhere = await rest.call("POST", "/documents/other/versions", token=rest.admin, headers=key)

        assert first.body == again.body
        assert again.header("idempotent-replayed") == "true"
        assert (elsewhere.status, elsewhere.code) == (422, "idempotency_key_reused")


async def test_everyone_is_named_for_what_they_wrote() -> None:
    async with documents_at_work() as rest:
        alice = await rest.session("alice", Grant("**", Access.WRITE))
        await put(rest, {"content": "👋 "})
        await rest.call("PUT", NOTES, token=alice.token, body=b"\xf0\x9f\x91\x8b hello", headers={"content-type": TEXT})

        for path in (NOTES + "/blame", NOTES + "/blame?root=content"):
            ranges = (await read(rest, path)).json["ranges"]
            assert [(each["start"], each["end"], each["actor"]) for each in ranges] == [
                (0, 2, "key:backend"),
                (2, 7, "user:alice"),
            ]
            assert (ranges[1]["session_id"], ranges[1]["user_id"]) == (alice.id, "alice")


@pytest.mark.parametrize("root", ["list", "map"])
async def test_who_wrote_what_is_refused_of_anything_but_texts(root: str) -> None:
    async with documents_at_work() as rest:
        await put(rest, everything(), kind=YJS)

        refused = await read(rest, f"{NOTES}/blame?root={root}")

        assert (refused.status, refused.code) == (422, "invalid_input")
        assert "texts only" in refused.json["detail"]


RICH = "/documents/rich"


async def test_rich_text_is_shown_as_its_source_compared_and_restored() -> None:
    async with documents_at_work() as rest:
        await put(rest, rich_text("one"), RICH, YJS)
        await send(rest, "POST", b"", RICH + "/versions", JSON)
        await patch(rest, {"page": None}, MERGE_PATCH, RICH)

        old = await read(rest, RICH + "/versions/1")
        changes = await read(rest, RICH + "/versions/1/diff")
        restored = await rest.call("POST", RICH + "/versions/1/restore", token=rest.admin)

        source = '<p class="big">one</p>'
        assert old.json == {"page": source}
        assert changes.json["roots"]["page"] == [{"delete": source}]
        assert restored.status == 200
        assert (await read(rest, RICH)).json == {"page": source}


@pytest.mark.parametrize(
    ("method", "path", "kind", "body"),
    [
        ("PUT", "", JSON, b'{"page": "two"}'),
        ("PATCH", "", MERGE_PATCH, b'{"page": "two"}'),
        ("PATCH", "", JSON_PATCH, b'[{"op": "replace", "path": "/page", "value": "two"}]'),
        ("PATCH", "", JSON_PATCH, b'[{"op": "add", "path": "/page/0", "value": "two"}]'),
        ("PATCH", "", TEXT_EDITS, b'{"edits": [{"root": "page", "index": 0, "insert": "two"}]}'),
    ],
)
async def test_what_cannot_be_said_of_rich_text_is_refused_with_a_reason(
    method: str, path: str, kind: str, body: bytes
) -> None:
    async with documents_at_work() as rest:
        await put(rest, rich_text("one"), RICH, YJS)
        await send(rest, "POST", b"", RICH + "/versions", JSON)

        headers = {"content-type": kind} if body else {"accept": kind or JSON}
        refused = await rest.call(method, RICH + path, token=rest.admin, body=body, headers=headers)

        assert (refused.status, refused.code) == (422, "invalid_input")
        assert refused.json["detail"] != refused.json["title"]
        assert (await read(rest, RICH)).json == {"page": '<p class="big">one</p>'}


def rich_text(words: str) -> bytes:
    """What an editor of rich text makes."""
    doc: Doc[Any] = Doc()
    doc["page"] = XmlFragment([XmlElement("p", {"class": "big"}, [XmlText(words)])])
    return doc.get_update()


@pytest.mark.parametrize("query", ["", "?root=content"])
async def test_a_text_of_which_everything_was_deleted_is_an_empty_text(query: str) -> None:
    async with documents_at_work() as rest:
        await put(rest, {"content": "gone"})
        await put(rest, {"content": ""})

        shown = await read(rest, NOTES + query, TEXT)
        authors = await read(rest, f"{NOTES}/blame{query}")

        assert (shown.status, shown.body) == (200, b"")
        assert (authors.status, authors.json) == (200, {"ranges": []})


async def test_an_exported_document_can_be_imported_under_another_name_with_its_past() -> None:
    async with documents_at_work() as rest:
        made = await put(rest, everything(), kind=YJS)
        await send(rest, "POST", {"label": "first"}, NOTES + "/versions", JSON)
        await put(rest, {"title": "changed"})

        exported = await read(rest, NOTES + "/export")
        imported = await send_as_admin(rest, "/documents/copy/import", exported.body)
        twice = await send_as_admin(rest, "/documents/copy/import", exported.body)

        assert exported.header("content-type") == BUNDLE
        assert exported.header("content-disposition") == "attachment; filename*=UTF-8''today.roomkey"
        assert (imported.status, imported.header("location")) == (201, "/documents/copy")
        assert imported.json["lineage"] == made.json["lineage"]
        assert (twice.status, twice.code) == (409, "conflict")
        assert (await read(rest, "/documents/copy")).json == (await read(rest)).json
        assert (await read(rest, "/documents/copy/versions/1?root=title", TEXT)).body == "Grüße 👋".encode()
        assert (await read(rest, "/documents/copy/blame?root=title")).json["ranges"][0]["actor"] == "key:backend"


async def test_an_imported_document_still_says_which_of_its_versions_were_restored() -> None:
    async with documents_at_work() as rest:
        made = await put(rest, {"content": "one"})
        for label in ("first", "second"):
            await send(rest, "POST", {"label": label}, NOTES + "/versions", JSON)
        await rest.call("POST", NOTES + "/versions/2/restore", token=rest.admin)
        assert rest.document_store is not None
        await rest.document_store.forget_versions("notes/today", made.json["lineage"], [1])

        await send_as_admin(rest, "/documents/copy/import", (await read(rest, NOTES + "/export")).body)

        listed = (await read(rest, "/documents/copy/versions")).json["versions"]
        assert [(each["number"], each["restored"]) for each in listed] == [(2, 1), (1, None)]


@pytest.mark.parametrize("exported", [b"", b"nonsense", msgspec.msgpack.encode({"roomkey": 1})])
async def test_what_is_no_export_is_not_imported(exported: bytes) -> None:
    async with documents_at_work() as rest:
        answer = await send_as_admin(rest, NOTES + "/import", exported)

        assert (answer.status, answer.code) == (422, "invalid_input")
        assert (await read(rest)).status == 404


async def send_as_admin(rest: Rest, path: str, body: bytes) -> Answer:
    return await rest.call("POST", path, token=rest.admin, body=body, headers={"content-type": BUNDLE})


# --- who did it ---------------------------------------------------------------------------------------


async def test_what_was_done_is_logged_with_who_did_it_and_without_what_was_said() -> None:
    async with documents_at_work() as rest:
        alice = await rest.session("alice", Grant("**", Access.ADMIN))

        with capture_logs() as logs:
            json_body = {"content-type": JSON}
            await rest.call("PUT", NOTES, token=alice.token, body=b'{"content":"private"}', headers=json_body)
            await rest.call("PUT", NOTES, token=alice.token, body=b'{"content":"private"}', headers=json_body)
            await rest.call("POST", NOTES + "/versions", token=rest.admin)
            await rest.call("DELETE", NOTES, token=alice.token)

        done = [(line["event"], line["document"], line["actor"], line["session"]) for line in logs]
        assert done == [
            ("document_written", "notes/today", "user:alice", alice.id),
            ("document_version_kept", "notes/today", "key:operator", None),
            ("document_deleted", "notes/today", "user:alice", alice.id),
        ]
        assert "private" not in str(logs)
        assert alice.token not in str(logs)


async def test_pages_of_an_allowed_origin_may_patch_and_read_the_lineage() -> None:
    origin = "https://editor.example.com"
    async with documents_at_work(settings=ApiSettings(allowed_origins=(origin,))) as rest:
        await put(rest, {})
        preflight = {"origin": origin, "access-control-request-method": "PATCH"}

        asked = await rest.call("OPTIONS", NOTES, headers=preflight)
        shown = await rest.call("GET", NOTES, token=rest.admin, headers={"origin": origin})

        assert "PATCH" in asked.header("access-control-allow-methods")
        exposed = shown.header("access-control-expose-headers").split(", ")
        assert {"etag", "roomkey-lineage", "roomkey-sequence", "content-disposition"} <= set(exposed)


# --- together with editors ----------------------------------------------------------------------------


async def test_editors_see_a_change_at_once_and_rest_sees_theirs() -> None:
    async with a_site() as site, y_client(site, await site.token(), "plan") as editor:
        await editor.send(edit("typed "))
        await editor.next(UPDATE)

        changed = await site.caller.http.patch(
            "/documents/plan",
            content=b'{"edits":[{"root":"content","index":6,"insert":"said"}]}',
            headers={"content-type": TEXT_EDITS},
        )
        heard = content_of(await editor.next(UPDATE))

        assert changed.status_code == 200
        assert (await site.caller.http.get("/documents/plan")).json() == {"content": "typed said"}
        assert str(opened(await editor.missing()).get("content", type=Text)) == "typed said"
        assert b"said" in heard


async def test_nothing_is_lost_when_programs_and_people_write_at_the_same_time() -> None:
    async with a_site() as site, y_client(site, await site.token(), "plan") as editor:
        http = site.caller.http
        mine: Doc[Any] = Doc()
        text = mine.get("content", type=Text)

        async def type_words() -> None:
            for number in range(50):
                before = mine.get_state()
                text.insert(0, f"t{number} ")
                await editor.send(UPDATE + sized(mine.get_update(before)))
                await asyncio.sleep(0)

        async def say(number: int) -> None:
            body = json.dumps({"edits": [{"root": "content", "index": 0, "insert": f"r{number} "}]}).encode()
            answer = await http.patch("/documents/plan", content=body, headers={"content-type": TEXT_EDITS})
            assert answer.status_code == 200, answer.text

        async def replace(number: int) -> None:
            answer = await http.put("/documents/plan", json={"map": {f"key{number}": number}, f"root{number}": [1]})
            assert answer.status_code in (200, 201), answer.text

        await http.put("/documents/plan", json={})
        async with asyncio.TaskGroup() as crowd:
            crowd.create_task(type_words())
            for number in range(25):
                crowd.create_task(say(number))
                crowd.create_task(replace(number))
        await editor.heard()

        said = (await http.get("/documents/plan")).json()
        words = said["content"].split()
        assert sorted(words) == sorted(
            [*(f"t{number}" for number in range(50)), *(f"r{number}" for number in range(25))]
        )
        assert all(said[f"root{number}"] == [1] for number in range(25))
        assert str(opened(await editor.missing()).get("content", type=Text)) == said["content"]


async def test_replacing_a_text_keeps_what_is_typed_meanwhile() -> None:
    async with a_site() as site, y_client(site, await site.token(), "plan") as editor:
        http = site.caller.http
        await http.put("/documents/plan?root=content", content="one two three", headers={"content-type": TEXT})
        mine = opened(await editor.missing())
        before = mine.get_state()
        mine.get("content", type=Text).insert(7, "!")

        await http.put(
            "/documents/plan?root=content", content="zero one two three four", headers={"content-type": TEXT}
        )
        await editor.send(UPDATE + sized(mine.get_update(before)))
        await editor.heard()

        shown = await http.get("/documents/plan", headers={"accept": TEXT})
        assert shown.text == "zero one two! three four"


async def test_whoever_has_it_open_has_to_leave_when_it_is_deleted() -> None:
    async with a_site() as site, y_client(site, await site.token(), "plan") as editor:
        await editor.send(edit("typed"))
        await editor.next(UPDATE)

        answer = await site.caller.http.delete("/documents/plan")

        assert answer.status_code == 204
        assert (await editor.end())[0] == 4410


async def test_what_was_answered_is_stored_and_what_cannot_be_stored_is_not_answered() -> None:
    async with a_site(store=FailingStore, documents={"load_timeout": "2s"}) as site:
        http = site.caller.http
        await http.put("/documents/plan", json={"content": "a"})
        stored = len(faulty(site).appended)
        faulty(site).appends = False

        answer = await http.put("/documents/plan", json={"content": "b"})

        assert stored == 1
        assert (answer.status_code, answer.json()["code"]) == (503, Storage.code)
        assert answer.headers["retry-after"]
        faulty(site).appends = True


async def test_a_document_that_cannot_be_loaded_is_not_taken_for_missing() -> None:
    async with a_site(store=FailingStore) as site:
        faulty(site).loads = False

        answers = [
            await site.caller.http.get("/documents/plan"),
            await site.caller.http.put("/documents/plan", json={}),
        ]

        assert [answer.status_code for answer in answers] == [503, 503]


async def test_the_answer_to_a_step_1_has_what_rest_wrote() -> None:
    async with a_site() as site:
        await site.caller.http.put("/documents/plan", json={"content": "written"})

        async with y_client(site, await site.token(), "plan") as editor:
            await editor.send(b"\x00\x00\x01\x00")
            update = content_of(await editor.next(STEP2))

        assert str(opened(update).get("content", type=Text)) == "written"
