"""What ``Checkpoints`` promises, as tests."""
# ruff: noqa: D102, S101  # tests are sentences; tests assert

from contextlib import AbstractAsyncContextManager

from roomkey.ports import Checkpoints


class CheckpointsConformance:
    """All of it. Subclasses say how to ``open`` the implementation under test, empty at first."""

    def open(self) -> AbstractAsyncContextManager[Checkpoints]:
        raise NotImplementedError

    async def test_who_has_saved_nothing_has_no_position(self) -> None:
        async with self.open() as checkpoints:
            assert dict(await checkpoints.load("audit")) == {}

    async def test_what_was_saved_last_is_loaded(self) -> None:
        async with self.open() as checkpoints:
            await checkpoints.save("audit", 0, 7)
            await checkpoints.save("audit", 255, 2**53)
            await checkpoints.save("audit", 0, 9)

            assert dict(await checkpoints.load("audit")) == {0: 9, 255: 2**53}

    async def test_a_position_may_go_back_because_a_log_may(self) -> None:
        async with self.open() as checkpoints:
            await checkpoints.save("audit", 3, 7)
            await checkpoints.save("audit", 3, 1)

            assert dict(await checkpoints.load("audit")) == {3: 1}

    async def test_consumers_have_positions_of_their_own(self) -> None:
        async with self.open() as checkpoints:
            await checkpoints.save("audit", 3, 7)
            await checkpoints.save("webhooks", 3, 5)

            assert dict(await checkpoints.load("audit")) == {3: 7}
            assert dict(await checkpoints.load("webhooks")) == {3: 5}

    async def test_what_was_loaded_does_not_change_afterwards(self) -> None:
        async with self.open() as checkpoints:
            await checkpoints.save("audit", 3, 7)
            loaded = await checkpoints.load("audit")

            await checkpoints.save("audit", 3, 8)

            assert dict(loaded) == {3: 7}


class DurableCheckpointsConformance(CheckpointsConformance):
    """What holds besides for those that outlive their process."""

    async def test_what_was_saved_is_there_after_another_start(self) -> None:
        async with self.open() as checkpoints:
            await checkpoints.save("audit", 3, 7)

        async with self.open() as checkpoints:
            assert dict(await checkpoints.load("audit")) == {3: 7}
