"""Names of documents: allowed or refused, and never taken for another one, over REST and over sockets."""

import json
from urllib.parse import quote

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.exceptions import InvalidStatus

from roomkey.domain.access import Access, Grant
from tests.support.documents import UPDATE, Site, a_site, edit, text_of, y_client
from tests.support.rest import Answer, Rest, call, documents_at_work

GOOD = (
    "a",
    "A",
    "a/versions",
    "a/versions/1",
    "a/blame",
    "a//b",
    "/a",
    "a/",
    "a%2Fversions",
    "a%252Fversions",
    "a b",
    "a+b",
    "a?b=c",
    "a#b",
    "a;b",
    "a:b@c",
    ".a",
    "a.",
    "...",
    "a/...",
    "%",
    "%00",
    "\u00e9",  # composed
    "e\u0301",  # decomposed
    "日本語/ノート",
    "👋",
    "'; drop table documents; --",
    "<script>alert(1)</script>",
    "x" * 1024,
    "é" * 512,
)
"""Each of them is a document of its own."""

BAD = (
    "%00",
    "a%00b",
    "a%0Ab",
    "a%0D%0Ab",
    "%7F",
    "a%E2%80%AEb",  # turns the direction of writing around
    "%2E",
    "%2E%2E",
    "a%2F..%2Fb",
    "a%2F%2E%2E",
    "..%2Fsessions",
    "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd",
    "%FF",
    "%C0%AF",  # a slash, in more bytes than it has
    "%ED%A0%80",  # half of a character of UTF-16
    "x" * 1025,
    "%C3%A9" * 513,
)
"""As they are sent."""


def encoded(name: str) -> str:
    return quote(name, safe="")


async def write(rest: Rest, path: str, said: str) -> Answer:
    body = json.dumps({"content": said}).encode()
    return await rest.call("PUT", path, token=rest.admin, body=body, headers={"content-type": "application/json"})


async def test_every_good_name_is_a_document_of_its_own() -> None:
    async with documents_at_work() as rest:
        made = [await write(rest, f"/documents/{encoded(name)}", name) for name in GOOD]

        shown = [await rest.call("GET", f"/documents/{encoded(name)}", token=rest.admin) for name in GOOD]
        listed = (await rest.call("GET", "/documents?limit=500", token=rest.admin)).json["documents"]

        assert [answer.status for answer in made] == [201] * len(GOOD)
        assert [answer.json["name"] for answer in made] == list(GOOD)
        assert [answer.json["content"] for answer in shown] == list(GOOD)
        assert [each["name"] for each in listed] == sorted(GOOD, key=str.encode)


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_no_document_has_a_bad_name(method: str, name: str) -> None:
    async with documents_at_work() as rest:
        headers = {"content-type": "application/json"} if method == "PUT" else {}

        answer = await rest.call(method, f"/documents/{name}", token=rest.admin, body=b"{}", headers=headers)

        assert (answer.status, answer.code) == (422, "invalid_input")
        assert (await rest.call("GET", "/documents", token=rest.admin)).json["documents"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/documents/",
        "/documents//versions",
        "/documents/a/",
        "/documents/a/versions/",
        "/documents/a/b",
        "/documents/../keys",
        "/documents/a/../../sessions",
        "/documents/a/VERSIONS",
        "/Documents/a",
        "/documents/a/versions/1/diff/",
        "/documents%2Fa",
        "//documents/a",
    ],
)
async def test_what_is_no_path_of_ours_leads_nowhere(path: str) -> None:
    async with documents_at_work() as rest:
        await write(rest, "/documents/a", "here")

        answer = await rest.call("GET", path, token=rest.admin)

        assert (answer.status, answer.code) == (404, "not_found")


async def test_versions_of_a_document_are_never_the_document_that_is_called_so() -> None:
    async with documents_at_work() as rest:
        await write(rest, "/documents/a%2Fversions", "a document")
        missing = await rest.call("GET", "/documents/a/versions", token=rest.admin)
        await write(rest, "/documents/a", "another")
        await rest.call("POST", "/documents/a/versions", token=rest.admin)

        versions = await rest.call("GET", "/documents/a/versions", token=rest.admin)
        document = await rest.call("GET", "/documents/a%2fversions", token=rest.admin)
        of_the_other = await rest.call("GET", "/documents/a%2Fversions/versions", token=rest.admin)

        assert missing.status == 404
        assert [each["number"] for each in versions.json["versions"]] == [1]
        assert document.json == {"content": "a document"}
        assert of_the_other.json["versions"] == []


async def test_letters_that_need_no_encoding_may_have_one() -> None:
    async with documents_at_work() as rest:
        await write(rest, "/documents/abc", "here")

        answer = await rest.call("GET", "/d%6Fcuments/%61b%63", token=rest.admin)

        assert answer.json == {"content": "here"}


async def test_an_encoded_slash_is_a_slash_to_a_grant() -> None:
    async with documents_at_work() as rest:
        await write(rest, "/documents/a%2Fb", "secret")
        token = (await rest.session("alice", Grant("a*", Access.ADMIN), Grant("a%2Fb", Access.ADMIN))).token

        answers = [await rest.call("GET", f"/documents/{name}", token=token) for name in ("a%2Fb", "a%2fb", "a%252Fb")]

        assert [answer.status for answer in answers] == [404] * 3


async def test_a_mounted_interface_tells_the_same_names_apart() -> None:
    async with documents_at_work() as rest:
        host = Starlette(routes=[Mount("/rooms", rest.app)])
        headers = [("authorization", f"Bearer {rest.admin}"), ("content-type", "application/json")]

        for name in ("a%2Fversions", "rooms", "rooms%2Fdocuments"):
            made = await call(host, "PUT", f"/rooms/documents/{name}", headers=headers, body=b"{}")
            assert made.header("location") == f"/rooms/documents/{name}"
        below = await call(host, "GET", "/r%6Foms/documents/a%2Fversions", headers=headers)
        beside = await call(host, "GET", "/documents/a%2Fversions", headers=headers)

        names = [each["name"] for each in (await rest.call("GET", "/documents", token=rest.admin)).json["documents"]]
        assert names == ["a/versions", "rooms", "rooms/documents"]
        assert (below.status, beside.status) == (200, 404)


async def test_without_the_path_as_it_was_sent_slashes_part_segments() -> None:
    async with documents_at_work() as rest:
        for name in ("plain", "a%2Fversions", "a"):
            await write(rest, f"/documents/{name}", name)

        async def unsent(scope: dict[str, object], receive: object, send: object) -> None:
            await rest.app({**scope, "raw_path": None}, receive, send)  # pyright: ignore[reportArgumentType]

        headers = [("authorization", f"Bearer {rest.admin}")]
        plain = await call(unsent, "GET", "/documents/plain", headers=headers)  # pyright: ignore[reportArgumentType]
        slashed = await call(unsent, "GET", "/documents/a%2Fversions", headers=headers)  # pyright: ignore[reportArgumentType]

        assert plain.json == {"content": "plain"}
        assert "versions" in slashed.json  # those of `a`, which is also what access is checked for


# --- the same names on sockets ------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["picows", "asgi"])
async def test_rest_and_sockets_mean_the_same_document(transport: str) -> None:
    async with a_site(transport) as site:
        token = await site.token()
        for name in GOOD:
            await socket_writes(site, token, name)

        shown = {name: (await site.caller.http.get(f"/documents/{encoded(name)}")).json() for name in GOOD}
        listed = (await site.caller.http.get("/documents?limit=500")).json()["documents"]

        assert shown == {name: {"content": name} for name in GOOD}
        assert [each["name"] for each in listed] == sorted(GOOD, key=str.encode)


async def socket_writes(site: Site, token: str, name: str) -> None:
    async with y_client(site, token, name) as editor:
        await editor.send(edit(name))
        await editor.next(UPDATE)
        assert text_of(await editor.missing()) == name


@pytest.mark.parametrize("transport", ["picows", "asgi"])
async def test_no_socket_opens_a_document_with_a_bad_name(transport: str) -> None:
    async with a_site(transport) as site:
        token = await site.token()

        statuses: dict[str, int] = {}
        for name in BAD:
            statuses[name] = await refused(site, token, name)

        assert set(statuses.values()) <= {400, 404}, statuses
        assert (await site.caller.http.get("/documents")).json()["documents"] == []


async def refused(site: Site, token: str, sent: str) -> int:
    """The status of a handshake for a name as it is sent."""
    headers = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    key = {"sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==", "authorization": f"Bearer {token}"}
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"http://127.0.0.1:{site.port}/yjs/{sent}", headers=headers | key)
    return answer.status_code


async def test_a_session_that_may_not_is_kept_out_of_the_slashed_name_too() -> None:
    async with a_site() as site:
        token = await site.token("bob", ("a*", "write"))

        for name in ("a/b", "b"):
            with pytest.raises(InvalidStatus) as refusal:
                async with y_client(site, token, name):
                    pass
            assert refusal.value.response.status_code == 403
