"""An import whose bytes nest as deep as they are long is a problem that says so, and no failure of ours."""

import msgspec
import pytest

from roomkey.documents.service import Bundle
from tests.support.rest import documents_at_work

DEEP = b"\x91" * 50_000
"""What stands in a field that nobody knows is read, too, and passed over."""


@pytest.mark.parametrize("where", ["the bundle", "who wrote it"])
async def test_a_nested_import_is_refused(where: str) -> None:
    async with documents_at_work() as rest:
        await rest.call("PUT", "/documents/a", token=rest.admin, json={"map": {"b": 1}})
        exported = await rest.call("GET", "/documents/a/export", token=rest.admin)
        bundle = msgspec.msgpack.decode(exported.body, type=Bundle)
        forged = msgspec.structs.replace(bundle, authorship=b"\x01\x9b\x90\x80\x80\x80" + DEEP)
        body = b"\x81\xa1x" + DEEP if where == "the bundle" else msgspec.msgpack.encode(forged)
        headers = {"content-type": "application/vnd.roomkey.document"}

        answer = await rest.call("POST", "/documents/b/import", token=rest.admin, body=body, headers=headers)

    assert answer.status == 422
