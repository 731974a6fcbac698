"""
What the nodes of a deployment share besides their stores: values of one use, budgets and leases.

Time is the implementation's: that of the store where there is one, so that the clocks of nodes need not agree.
One object serves one purpose; what another one holds is not seen, and not pushed out.
All methods raise ``Storage`` when what they need is away.
"""

from datetime import timedelta
from typing import Protocol

from msgspec import Struct

# --- values of one use --------------------------------------------------------------------------------


class OneTimeLimits(Struct, frozen=True, kw_only=True):
    """
    How much a ``OneTime`` holds: ``None`` is no limit.

    ``bytes`` counts values, and 1 KiB for what else an entry costs.
    """

    entries: int | None = None
    entries_per_owner: int | None = None
    bytes: int | None = None


class OneTime(Protocol):
    """
    Values that can be had once, and places that can be taken once: for tickets and for idempotency keys.

    Every method is one atomic step: of any number of callers, in any process, one has the effect. What is older
    than its lifetime is not there, and is forgotten sooner or later. Where the ``OneTimeLimits`` leave no room,
    the oldest goes first, of the same owner if that one has too many; what is pinned stays.
    A value may contain a secret: an implementation keeps it in memory only, or encrypted.
    """

    async def add(
        self, key: str, value: bytes, lifetime: timedelta, *, owner: str | None = None, pinned: bool = False
    ) -> bytes | None:
        """Put ``value`` at ``key`` if nothing is there, and return ``None``; otherwise return what is there."""
        ...

    async def take(self, key: str, *, expected: bytes | None = None) -> bytes | None:
        """
        Remove what is at ``key``, and return it; ``None`` if nothing is there.

        With ``expected`` only that is removed: ``None`` if something else is there, which stays.
        """
        ...

    async def replace(self, key: str, expected: bytes, value: bytes, lifetime: timedelta) -> bool:
        """
        Put ``value`` in the place of ``expected``, as a new value that is not pinned.

        ``False`` if ``expected`` is not at ``key`` any more; nothing was changed.
        """
        ...


# --- budgets ------------------------------------------------------------------------------------------


class Rate(Struct, frozen=True, gc=False):
    """So much per second for as long as one likes, and ``burst`` at once after a pause."""

    per_second: float
    burst: float


class Counters(Protocol):
    """
    A budget for each of many keys, such as addresses.

    In bounded memory: a key that was not heard of for long is forgotten, which fills its budget.
    """

    async def take(self, key: str, rate: Rate, cost: float = 1.0) -> float:
        """
        Spend ``cost`` of the budget of ``key`` if there is enough, and return 0; otherwise the seconds until there is.

        Whoever is refused is charged nothing. A cost beyond the burst is granted to a full budget. A key is
        always asked for with the same rate.
        """
        ...


# --- leases -------------------------------------------------------------------------------------------


class Leases(Protocol):
    """
    Who may do what only one may do at a time.

    A lease says who may begin, not that nobody else is still at it: a holder that was asleep does not know that its
    time is over. So it comes with a **fencing token**, which is written together with what is done under it, and
    whoever writes refuses a lower token than it has seen. Of one name every token is higher than all before, also
    after the lease was released or is over, and as durable as what it protects. Names and holders have 1 to 500 bytes
    in UTF-8.
    """

    async def acquire(self, name: str, holder: str, lifetime: timedelta) -> int | None:
        """
        The fencing token of the lease for ``lifetime`` from now, or ``None`` if another holder has it.

        A holder that has it gets a new token, and its former one is void: an answer that was lost costs nothing.
        """
        ...

    async def renew(self, name: str, token: int, lifetime: timedelta) -> bool:
        """Let the lease last for ``lifetime`` from now; ``False`` if ``token`` does not hold it any more."""
        ...

    async def release(self, name: str, token: int) -> bool:
        """End the lease, so that others need not wait for it; ``False`` if ``token`` does not hold it any more."""
        ...


# --- all of it ----------------------------------------------------------------------------------------


class SharedState(Protocol):
    """What the nodes on one storage share besides it, as far as its technology can, and who they are."""

    @property
    def tickets(self) -> OneTime:
        """The tickets that are good for one handshake. Usable, as ``answers``, between ``join`` and ``leave``."""
        ...

    @property
    def answers(self) -> OneTime:
        """The answers that idempotency keys stand for."""
        ...

    @property
    def proofs(self) -> OneTime:
        """The proofs of possession that have come."""
        ...

    @property
    def leases(self) -> Leases:
        """Who does what must be done once; where there is nothing to share them by, each node's own."""
        ...

    @property
    def counters(self) -> Counters:
        """Budgets of all nodes together; where there is nothing to share them by, each node's own."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether tickets and answers are the same for all nodes, and not each node's own."""
        ...

    @property
    def counts_once(self) -> bool:
        """Whether budgets are the same for all nodes, and not each node's own."""
        ...

    async def join(self, node: str) -> None:
        """
        Be one of the nodes, under this name.

        Raises:
            Storage: If that is not possible.
        """
        ...

    async def leave(self) -> None:
        """Be none of them any more."""
        ...

    def others(self) -> list[str]:
        """The other nodes that are known to live, as an operator would find them."""
        ...
