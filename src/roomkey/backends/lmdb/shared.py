"""What the processes on one directory share besides what is stored in it."""

from contextlib import AsyncExitStack
from pathlib import Path

from roomkey.backends.lmdb.one_time import FileSystemOneTime, claim, folder_in_memory, remove_from_memory
from roomkey.backends.lmdb.processes import Processes
from roomkey.ports import Clock, OneTime, OneTimeLimits, SharedState
from roomkey.security.possession import PROOF_LIMITS


class FileSystemShared:
    """
    ``ports.SharedState`` of the processes on ``directory``.

    Tickets and answers are in the memory of the machine, and go with the last process. Where there is no such
    memory, each process has its ``own``. Leases and budgets are always each process's own: what must be done once
    may be done twice on one directory.
    """

    counts_once = False

    def __init__(
        self,
        directory: Path,
        *,
        secret: bytes,
        own: SharedState,
        tickets: OneTimeLimits,
        answers: OneTimeLimits,
        proofs: OneTimeLimits = PROOF_LIMITS,
        clock: Clock,
    ) -> None:
        self._processes = Processes(directory)
        self._open = AsyncExitStack()
        self._folder = folder_in_memory(directory, secret)
        self._files: tuple[FileSystemOneTime, ...] = ()
        self.tickets: OneTime = own.tickets
        self.answers: OneTime = own.answers
        self.proofs: OneTime = own.proofs
        self.leases = own.leases
        self.counters = own.counters
        if self._folder is not None:
            self._files = (
                FileSystemOneTime(self._folder / "tickets", tickets, clock=clock),
                FileSystemOneTime(self._folder / "answers", answers, clock=clock),
                FileSystemOneTime(self._folder / "proofs", proofs, clock=clock),
            )
            self.tickets, self.answers, self.proofs = self._files

    @property
    def is_complete(self) -> bool:
        return bool(self._files)

    async def join(self, node: str) -> None:
        self._processes.join(node)
        try:
            if self._folder is not None:
                claim(self._folder)
            for file in self._files:
                await self._open.enter_async_context(file)
        except BaseException:
            await self.leave()
            raise

    async def leave(self) -> None:
        await self._open.aclose()
        if self._processes.leave() and self._folder is not None:
            remove_from_memory(self._folder)

    def others(self) -> list[str]:
        return self._processes.others()
