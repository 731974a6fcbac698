"""The copy in which changes are computed: always what the document is, and nothing of a change that was given up."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Doc, Text

from roomkey.documents.crdt.replica import Replica
from roomkey.documents.workbench import IDLE, Workbench
from roomkey.errors import InvalidInput
from tests.support.effort import examples
from tests.support.loops import in_no_time
from tests.support.open_documents import BOB, FaultyStore, House, Writer, outside, proposed
from tests.support.sockets import NOON


def text_of(replica: Replica) -> str:
    return str(replica.doc.get("content", type=Text))


def append(replica: Replica, words: str) -> bytes:
    made: list[bytes] = []
    replica.edit(lambda doc: doc.get("content", type=Text).insert(0, words), made.append)
    return made[0]


@given(st.lists(st.sampled_from(["change", "type", "typed meanwhile", "give up", "nothing", "rest"]), max_size=8))
@settings(max_examples=examples(60))
def test_what_is_taken_is_what_the_document_is(steps: list[str]) -> None:
    replica, bench, writer, now = Replica(), Workbench(), Writer(), NOON
    for number, step in enumerate(steps):
        if step == "type":
            replica.apply(writer.type(str(number)))
            continue
        if step == "rest":
            now += IDLE * 2
            bench.rest(now)
            continue

        copy = bench.take(replica, now)
        assert text_of(copy) == text_of(replica)

        if step == "nothing":
            bench.unchanged()
            continue
        update = append(copy, f"[{number}]")
        if step == "give up":
            continue
        if step == "typed meanwhile":
            replica.apply(writer.type("!"))
        before = replica.revision
        replica.apply(update)
        replica.landed()
        bench.landed(replica, before)
        assert f"[{number}]" in text_of(replica)


def test_a_copy_stays_once_its_change_is_there_and_goes_when_nobody_needs_it() -> None:
    replica, bench = Replica(), Workbench()

    copy = bench.take(replica, NOON)
    replica.apply(append(copy, "a"))
    replica.landed()
    bench.landed(replica, replica.revision - 1)
    again = bench.take(replica, NOON)
    bench.unchanged()
    bench.rest(NOON + IDLE + timedelta(seconds=1))

    assert again is copy
    assert bench.take(replica, NOON) is not copy


@in_no_time
async def test_changes_on_the_bench_are_stored_one_behind_the_other_and_one_that_fails_harms_none() -> None:
    async with House() as house:
        document = await house.document()

        def insert(words: str) -> Callable[[Doc[Any]], None]:
            def change(doc: Doc[Any]) -> None:
                doc.get("content", type=Text).insert(0, words)

            return change

        def fail(doc: Doc[Any]) -> None:
            doc.get("content", type=Text).insert(0, "never")
            raise InvalidInput("not this")

        drafts = [
            proposed(document, insert("a"), work=1),
            proposed(document, insert("b")),
            proposed(document, fail, work=1),
            proposed(document, lambda doc: None, work=1),  # noqa: ARG005  # nothing is done with it
            proposed(document, insert("c"), work=1),
        ]
        document.take_update(Writer().type("!"), BOB, NOON)
        await house.settle()

        with pytest.raises(InvalidInput):
            drafts[2].outcome.result()
        landed = [draft.outcome.result().changed for draft in drafts if draft is not drafts[2]]
        assert landed == [True, True, False, True]
        assert sorted(await house.store.text("d")) == ["!", "a", "b", "c"]
        assert text_of(document.replica) == await house.store.text("d")


@in_no_time
async def test_a_change_on_the_bench_is_computed_anew_when_another_process_was_faster() -> None:
    async with House(FaultyStore(shared=True)) as house:
        document = await house.document()
        seen: list[str] = []

        def change(doc: Doc[Any]) -> None:
            text = doc.get("content", type=Text)
            seen.append(str(text))
            text.insert(0, "mine ")

        await outside(house.store, Writer().type("theirs"))
        draft = proposed(document, change, work=1)
        await house.settle()

        assert draft.outcome.result().changed
        assert seen[-1] == "theirs"
        assert await house.store.text("d") == "mine theirs"
