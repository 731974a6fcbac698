"""What is passed on in a document stands behind the address that each of its listeners goes by."""

import pytest

from roomkey.realtime.clients.document_audience import MAX_ANSWERS_PER_TICK, NEW_FOR
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


# --- coming back ----------------------------------------------------------------------------------------


@in_no_time
async def test_when_a_client_comes_back_everyone_else_shows_themselves_anew() -> None:
    async with House() as house:
        document = await house.document()
        here, away = house.attend(document), house.attend(document)
        await house.pass_time(NEW_FOR.total_seconds())
        here.show(1)
        away.show(2)
        away.leave()

        again = house.attend(document)
        again.show(2)
        await house.pass_time(1)

        assert (here.told, away.told) == (["remind 1"], [])


@in_no_time
async def test_a_client_that_is_new_disturbs_nobody() -> None:
    async with House() as house:
        document = await house.document()
        here = house.attend(document)
        await house.pass_time(NEW_FOR.total_seconds())
        here.show(1)

        house.attend(document).show(2)
        await house.pass_time(1)

        assert here.told == []


@in_no_time
async def test_soon_after_a_start_whoever_comes_may_have_been_here_before() -> None:
    async with House() as house:
        document = await house.document()
        listeners = [house.attend(document) for _ in range(3)]

        for client, listener in enumerate(listeners):
            listener.show(client)
        await house.pass_time(1)

        assert [listener.told for listener in listeners] == [["remind 0"], ["remind 1"], ["remind 2"]]


@in_no_time
async def test_in_a_large_document_clients_show_themselves_anew_one_after_the_other() -> None:
    async with House() as house:
        document = await house.document()
        listeners = [house.attend(document) for _ in range(MAX_ANSWERS_PER_TICK // 2)]
        for client, listener in enumerate(listeners):
            listener.show(client)

        await house.pass_time(1)
        first = sum(len(listener.told) for listener in listeners)
        await house.pass_time(1)
        second = sum(len(listener.told) for listener in listeners)

        assert (first, second) == (2, 4)
