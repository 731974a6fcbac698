"""What a write under a lease checks: nobody writes any more who has lost the lease meanwhile."""

from roomkey.errors import LeaseLost


def fenced(highest: int, fence: int | None) -> int:
    """
    The highest fencing token that was written under, with that of this write; ``None`` is a write without a lease.

    Raises:
        LeaseLost: If this write comes too late.
    """
    if fence is None:
        return highest
    if fence < highest:
        raise LeaseLost("somebody else has the lease by now")
    return fence
