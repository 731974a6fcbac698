"""Which tests of a suite a backend gets."""

from roomkey.testing.requirements import Selective, needs


class Suite(Selective):
    durable = False

    def corrupt(self) -> bool:
        return False

    def test_always(self) -> None: ...

    @needs("durable")
    def test_if_it_keeps_something(self) -> None: ...

    @needs("corrupt")
    def test_if_it_can_be_damaged(self) -> None: ...


class Whole(Suite):
    """As the suites' authors put their parts together."""


class Memory(Whole):
    durable = False


class Disk(Whole):
    durable = True

    def corrupt(self) -> bool:
        return True


class DamagedMemory(Memory):
    def corrupt(self) -> bool:
        return True


def given_to(suite: type) -> set[str]:
    return {name for name in dir(suite) if name.startswith("test") and callable(getattr(suite, name))}


def test_a_backend_that_defines_nothing_has_only_the_tests_that_need_nothing() -> None:
    assert given_to(Memory) == {"test_always"}


def test_a_backend_that_defines_every_hook_has_every_test() -> None:
    assert given_to(Disk) == {"test_always", "test_if_it_keeps_something", "test_if_it_can_be_damaged"}


def test_a_hook_that_comes_late_brings_its_tests_back() -> None:
    assert given_to(DamagedMemory) == {"test_always", "test_if_it_can_be_damaged"}
