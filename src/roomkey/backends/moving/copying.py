"""
Copying one store into another, and comparing both.

A copy looks at what is there and brings what is missing, so it can be stopped at any moment and begun again: nothing
but the two stores has to be remembered. The source is only read, and may be in use.
"""

from collections.abc import Callable
from typing import Final

from msgspec import Struct, field

from roomkey.backends.moving.digests import Fingerprint
from roomkey.errors import Conflict

MAX_NAMED: Final = 100
"""Maximum number of differences that are named; all are counted."""

Progress = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done, and of how much."""


class Foreign(Conflict):
    """The target has something that is not of the source; nothing was written."""

    retry = False


class Section(Struct):
    """What there is of one kind of record on both sides, and how many records were written."""

    source: Fingerprint = field(default_factory=Fingerprint)
    target: Fingerprint = field(default_factory=Fingerprint)
    written: int = 0


class Report(Struct):
    """
    What became of a copy. ``changed`` says that the source was written to meanwhile.

    ``differences`` and ``unreadable`` name the first hundred; the numbers count all.
    """

    sections: dict[str, Section] = field(default_factory=dict[str, Section])
    differences: list[str] = field(default_factory=list[str])
    different: int = 0
    unreadable: list[str] = field(default_factory=list[str])
    unread: int = 0
    changed: bool = False

    @property
    def is_identical(self) -> bool:
        """Whether everything that the source has is in the target, and nothing else."""
        return not self.different and not self.unread

    def section(self, name: str) -> Section:
        """The section of this name."""
        return self.sections.setdefault(name, Section())

    def differs(self, what: str) -> None:
        """Note a difference."""
        self.different += 1
        if len(self.differences) < MAX_NAMED:
            self.differences.append(what)

    def cannot_be_read(self, what: str) -> None:
        """Note a record of the source that is damaged. It is met twice: when it is copied, and when it is compared."""
        if what not in self.unreadable:
            self.unread += 1
            if len(self.unreadable) < MAX_NAMED:
                self.unreadable.append(what)

    def compare(self, name: str, source: dict[str, bytes], target: dict[str, bytes]) -> None:
        """Take in the digests of both sides by what they are of, and note what differs."""
        section = self.section(name)
        for digest in source.values():
            section.source.add(digest)
        for digest in target.values():
            section.target.add(digest)
        for key in source.keys() | target.keys():
            if key not in target:
                self.differs(f"{key} is missing")
            elif key not in source:
                self.differs(f"{key} is not in the source")
            elif source[key] != target[key]:
                self.differs(f"{key} is not what it is in the source")
