"""What is passed on in a document stands behind the address that each of its listeners goes by."""

import pytest

from roomkey.realtime.protocol import yjs_messages as yjs
from tests.support.loops import in_no_time
from tests.support.open_documents import ALICE, House, Writer
from tests.support.sockets import NOON

ADDRESSES = [b"", yjs.address("d"), yjs.address("d\0a"), yjs.address("d\0b")]


@in_no_time
@pytest.mark.parametrize("sender", ADDRESSES)
async def test_a_change_comes_to_everyone_behind_their_own_address(sender: bytes) -> None:
    async with House() as house:
        document = await house.document()
        listeners = [house.attend(document, address) for address in ADDRESSES]
        update = Writer().type("hello")

        document.take_update(update, ALICE, NOON, message=sender + yjs.update(update))
        await house.settle()

        frames = [[frame.payload for frame in listener.socket.frames] for listener in listeners]
        assert frames == [[address + yjs.update(update)] for address in ADDRESSES]


@in_no_time
async def test_a_change_that_came_in_more_words_than_needed_is_passed_on_in_as_few_as_possible() -> None:
    async with House() as house:
        document = await house.document()
        listener = house.attend(document)
        update = Writer().type("hello")
        sent = yjs.update(update)

        document.take_update(update, ALICE, NOON, message=sent + b"more")
        await house.settle()

        assert [frame.payload for frame in listener.socket.frames] == [sent]
