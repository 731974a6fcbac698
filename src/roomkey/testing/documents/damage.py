"""A damaged record is reported, never taken for an empty document, and harms no other one."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

from collections.abc import Awaitable, Callable

import pytest

from roomkey.errors import Serialization
from roomkey.ports import DocumentStore, Page
from roomkey.testing.documents.suite import (
    NOON,
    DocumentSuite,
    compactable,
    log_of,
    make,
    update,
    updates,
    version,
)
from roomkey.testing.requirements import needs


class DocumentDamageConformance(DocumentSuite):
    """What ``corrupt`` brings about."""

    @needs("corrupt")
    async def test_a_damaged_record_is_reported_and_not_replaced(self) -> None:
        async with self.open() as store:
            await self._damage(store)
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: store.find("secret plan"),
                lambda: store.load("secret plan"),
                lambda: store.updates("secret plan", "first", 0),
                lambda: store.create("secret plan", "second", NOON),
                lambda: store.append("secret plan", "first", [update(b"more")]),
                lambda: store.compact("secret plan", "first", snapshot=b"", upto=1, authorship=b""),
                lambda: store.keep_version("secret plan", "first", version()),
                lambda: store.delete("secret plan", "first", NOON),
                lambda: store.list("", Page()),
            ]

            for call in calls:
                with pytest.raises(Serialization) as caught:
                    await call()
                assert "secret" not in str(caught.value)
                assert caught.value.__cause__ is None
            # It is not known as deleted either, which would be `Conflict`.
            with pytest.raises(Serialization):
                await store.create("secret plan", "first", NOON)

    @needs("corrupt")
    async def test_the_others_go_on(self) -> None:
        async with self.open() as store:
            await self._damage(store)

            await store.append("sound", "first", updates(1, 3))
            await make(store, "new", updates(1))

            assert await log_of(store, "sound") == updates(3)
            assert await log_of(store, "new") == updates(1)

    @needs("corrupt")
    async def test_chores_are_not_stopped(self) -> None:
        async with self.open() as store:
            await self._damage(store)

            assert await compactable(store) == ["sound"]

    async def _damage(self, store: DocumentStore) -> None:
        """A document that is damaged, and one that is not."""
        await make(store, "secret plan", updates(2))
        await make(store, "sound", updates(2))
        if not await self.corrupt(store, "secret plan"):
            pytest.skip("records of this store cannot be damaged")
