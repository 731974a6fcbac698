"""Moving house between stores of any technology: copying, comparing, and examining what is there."""

from typing import NamedTuple

from roomkey.backends.moving.copying import Foreign, Progress, Report
from roomkey.backends.moving.documents import DocumentsCopy
from roomkey.backends.moving.objects import ObjectsCopy
from roomkey.backends.moving.sessions import SessionsCopy
from roomkey.backends.moving.soundness import Examination, examine
from roomkey.ports import MovableDocuments, MovableSessions, ObjectStore

__all__ = ["Examination", "Foreign", "House", "Progress", "Report", "copy", "examine"]


class House(NamedTuple):
    """The stores of a deployment, which are open."""

    sessions: MovableSessions
    documents: MovableDocuments
    objects: ObjectStore


async def copy(source: House, target: House, progress: Progress) -> Report:
    """
    Bring everything from ``source`` to ``target``, and compare both.

    It may be stopped at any moment and done again, which brings what is missing; so does another copy of a source
    that was in use.

    Raises:
        Foreign: If the target has something that is not of the source; nothing was written.
        Conflict: If the target is written to by somebody else meanwhile.
    """
    report = Report()
    copies = (
        SessionsCopy(source.sessions, target.sessions, report, progress),
        DocumentsCopy(source.documents, target.documents, report, progress),
        ObjectsCopy(source.objects, target.objects, report, progress),
    )
    for each in copies:
        await each.check()
    for each in copies:
        await each.bring()
    for each in copies:
        await each.compare()
    return report
