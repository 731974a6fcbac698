"""Who may do what with a document: every operation, asked by everyone."""

from typing import Any, Final

import pytest

from roomkey.api.app import DOCUMENT_ROUTES
from roomkey.domain.access import Access, Grant
from tests.support.rest import Answer, Rest, documents_at_work

WHO: Final = ("nobody", "service", "admin", "reader", "writer", "keeper", "elsewhere", "pending")
"""
Who asks: nobody, an API key of either role, and sessions: with each access to the document, with access to other
documents only, and one that has every right but is not active yet.
"""

# A row names the operation, and for everyone in WHO the status.
TABLE: Final = {
    "GET /documents": (401, 200, 200, 200, 200, 200, 200, 403),
    "GET /documents/{name}": (401, 200, 200, 200, 200, 200, 404, 403),
    "PUT /documents/{name}": (401, 200, 200, 403, 200, 200, 404, 403),
    "PATCH /documents/{name}": (401, 200, 200, 403, 200, 200, 404, 403),
    "DELETE /documents/{name}": (401, 204, 204, 403, 403, 204, 404, 403),
    "GET /documents/{name}/versions": (401, 200, 200, 200, 200, 200, 404, 403),
    "POST /documents/{name}/versions": (401, 201, 201, 403, 201, 201, 404, 403),
    "GET /documents/{name}/versions/{number}": (401, 200, 200, 200, 200, 200, 404, 403),
    "GET /documents/{name}/versions/{number}/diff": (401, 200, 200, 200, 200, 200, 404, 403),
    "POST /documents/{name}/versions/{number}/restore": (401, 200, 200, 403, 200, 200, 404, 403),
    "GET /documents/{name}/access": (401, 200, 200, 403, 403, 403, 403, 403),
    "PUT /documents/{name}/recheck": (401, 200, 200, 403, 403, 403, 403, 403),
    "GET /documents/{name}/blame": (401, 200, 200, 200, 200, 200, 404, 403),
    "GET /documents/{name}/export": (401, 200, 200, 200, 200, 200, 404, 403),
    "POST /documents/{name}/import": (401, 409, 409, 403, 403, 409, 404, 403),
}

GRANTS: Final = {
    "reader": (Grant("secret", Access.READ),),
    "writer": (Grant("secret", Access.WRITE),),
    "keeper": (Grant("secret", Access.ADMIN),),
    "elsewhere": (Grant("other", Access.ADMIN), Grant("secret/*", Access.ADMIN)),
    "pending": (Grant("**", Access.ADMIN),),
}

KINDS: Final = {"PUT": "application/json", "PATCH": "application/merge-patch+json"}

CELLS: Final = [
    (operation, who, status) for operation, row in TABLE.items() for who, status in zip(WHO, row, strict=True)
]


async def token_of(rest: Rest, who: str) -> str | None:
    keys = {"nobody": None, "service": rest.service, "admin": rest.admin}
    if who in keys:
        return keys[who]
    return (await rest.session("alice", *GRANTS[who], active=who != "pending")).token


async def furnished(rest: Rest) -> bytes:
    """A document with a version; what an export of it is."""
    content = {"content-type": "application/json"}
    await rest.call("PUT", "/documents/secret", token=rest.admin, body=b'{"content":"quiet"}', headers=content)
    await rest.call("POST", "/documents/secret/versions", token=rest.admin)
    return (await rest.call("GET", "/documents/secret/export", token=rest.admin)).body


async def asked(rest: Rest, operation: str, token: str | None, exported: bytes, name: str = "secret") -> Answer:
    method, _, path = operation.partition(" ")
    path = path.replace("{name}", name).replace("{number}", "1")
    path += "?user_id=alice" if path.endswith("/access") else ""
    kind, body = (
        KINDS.get(method, "application/json"),
        b'{"content":"loud"}' if method in KINDS and not path.endswith("/recheck") else b"",
    )
    if path.endswith("/import"):
        kind, body = "application/vnd.roomkey.document", exported
    return await rest.call(method, path, token=token, body=body, headers={"content-type": kind} if body else {})


async def state(rest: Rest) -> list[Any]:
    paths = ("/documents", "/documents/secret", "/documents/secret/versions")
    return [(await rest.call("GET", path, token=rest.admin)).body for path in paths]


def test_the_table_knows_every_operation() -> None:
    assert set(TABLE) == {f"{method} {path}" for path, methods in DOCUMENT_ROUTES.items() for method in methods}


@pytest.mark.parametrize(("operation", "who", "status"), CELLS)
async def test_everyone_may_do_what_the_table_says(operation: str, who: str, status: int) -> None:
    async with documents_at_work() as rest:
        exported = await furnished(rest)
        before = await state(rest)

        answer = await asked(rest, operation, await token_of(rest, who), exported)

        assert answer.status == status
        if status in (401, 403, 404):
            assert answer.code in {"credentials_missing", "forbidden", "session_pending", "document_not_found"}
            assert await state(rest) == before


@pytest.mark.parametrize("operation", [operation for operation in TABLE if "{name}" in operation])
async def test_what_no_grant_covers_looks_the_same_whether_or_not_it_is_there(operation: str) -> None:
    async with documents_at_work() as rest:
        exported = await furnished(rest)
        token = await token_of(rest, "elsewhere")

        there = await asked(rest, operation, token, exported)
        missing = await asked(rest, operation, token, exported, "nothing")

        assert there.told == missing.told


async def test_a_session_lists_what_its_grants_cover() -> None:
    async with documents_at_work() as rest:
        content = {"content-type": "application/json"}
        for name in ("a", "notes%2Fa", "notes%2Fb", "notes%2Fprivate", "z"):
            await rest.call("PUT", f"/documents/{name}", token=rest.admin, body=b"{}", headers=content)
        token = (await rest.session("alice", Grant("notes/*", Access.READ))).token

        seen: list[str] = []
        cursor = ""
        while cursor is not None:
            page = (await rest.call("GET", f"/documents?limit=2{cursor}", token=token)).json
            seen += [each["name"] for each in page["documents"]]
            cursor = None if page["next_cursor"] is None else f"&cursor={page['next_cursor']}"

        assert seen == ["notes/a", "notes/b", "notes/private"]


async def test_the_first_grant_that_matches_counts() -> None:
    async with documents_at_work() as rest:
        exported = await furnished(rest)
        token = (await rest.session("alice", Grant("sec*", Access.READ), Grant("**", Access.ADMIN))).token

        answer = await asked(rest, "DELETE /documents/{name}", token, exported)

        assert (answer.status, answer.code) == (403, "forbidden")


async def test_changed_grants_count_for_the_next_request() -> None:
    async with documents_at_work() as rest:
        exported = await furnished(rest)
        issued = await rest.session("alice", Grant("**", Access.WRITE))
        write = "PUT /documents/{name}"

        before = await asked(rest, write, issued.token, exported)
        await rest.sessions.change_grants(issued.id, (Grant("**", Access.READ),))
        after = await asked(rest, write, issued.token, exported)

        assert (before.status, after.status) == (200, 403)


async def test_who_may_not_write_is_told_before_anything_is_read() -> None:
    async with documents_at_work() as rest:
        await furnished(rest)
        token = await token_of(rest, "reader")

        answer = await rest.call(
            "PUT",
            "/documents/secret",
            token=token,
            headers={"content-type": "application/json", "content-length": "999999999"},
        )

        assert (answer.status, answer.code) == (403, "forbidden")


async def test_in_development_who_presents_nothing_may_do_everything() -> None:
    async with documents_at_work(dev=True) as rest:
        exported = await furnished(rest)

        statuses = {operation: (await asked(rest, operation, None, exported)).status for operation in TABLE}

        assert not {401, 403} & set(statuses.values())


async def test_without_documents_there_are_none() -> None:
    rest = Rest()

    answer = await rest.call("GET", "/documents", token=rest.admin)

    assert (answer.status, answer.code) == (404, "not_found")
    assert "/documents" not in (await rest.call("GET", "/openapi.json")).json["paths"]
