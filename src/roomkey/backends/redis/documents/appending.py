"""
Appending, once and not twice, whatever becomes of the connection.

Each row has an id, by which the script knows it again if it comes a second time, be it that the first answer was lost
or that the first request was late. It looks only behind a number that the document had reached before the row was sent:
mostly that is where the document still is, and there is nothing to look through.
"""

from collections.abc import Iterator, Sequence
from secrets import token_bytes
from typing import Any, Final

from msgspec import Struct

from roomkey.backends.document_records import encode_batch
from roomkey.backends.redis.documents.layout import Partition, Place, lineage_id, moment, text
from roomkey.backends.redis.documents.outcomes import refusal
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import AGAIN, Again, Call, RedisServer
from roomkey.ports import DocumentUpdate, RecordCodec, RecordKind

ROW_ID_BYTES: Final = 12
"""As in ``document_append.lua``."""

AT_A_TIME: Final = 32
AT_A_TIME_BYTES: Final = 1024 * 1024
"""Rows in one call of the script: well below a millisecond, in which the server does nothing else."""

REMEMBERED: Final = 20_000
"""Number of documents of which is known how far they were."""

_APPEND: Final = Script("document_append")

Outcome = int | Exception
"""The number of the last update, or why nothing was appended."""


class Appendix(Struct):
    """Updates for the end of a log. ``base`` is a number that the document had reached before."""

    place: Place
    lineage: str
    id: bytes
    row: bytes
    count: int
    size: int
    latest: bytes
    after: int | None
    base: int = 0

    @classmethod
    def of(
        cls, place: Place, lineage: str, updates: Sequence[DocumentUpdate], codec: RecordCodec, after: int | None = None
    ) -> "Appendix":
        """What is to be appended; at least one update."""
        id = token_bytes(ROW_ID_BYTES)
        row = codec.encode(RecordKind.UPDATES, lineage_id(place.name, lineage) + id, 0, encode_batch(updates))
        size = sum(len(update.data) for update in updates)
        latest = moment(max(update.at for update in updates))
        return cls(place, lineage, id, row, len(updates), size, latest, after)

    def arguments(self) -> tuple[bytes | int, ...]:
        """What the script is told of it."""
        after = -1 if self.after is None else self.after
        return (
            text(self.lineage),
            self.place.name,
            self.id,
            self.base,
            after,
            self.count,
            self.size,
            self.latest,
            self.row,
        )


class Reached:
    """How far documents are known to have come, at least; the least recently asked for are forgotten."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[bytes, str], int] = {}

    def get(self, name: bytes, lineage: str) -> int | None:
        """A number that the document has reached."""
        number = self._numbers.pop((name, lineage), None)
        if number is not None:
            self._numbers[name, lineage] = number
        return number

    def note(self, name: bytes, lineage: str, number: int) -> None:
        """The document has reached this number."""
        self._numbers.pop((name, lineage), None)
        self._numbers[name, lineage] = number
        if len(self._numbers) > REMEMBERED:
            del self._numbers[next(iter(self._numbers))]


class Appender:
    """What appends."""

    def __init__(self, server: RedisServer, reached: Reached) -> None:
        self._server = server
        self._reached = reached

    async def append(self, appendices: Sequence[Appendix]) -> list[Outcome]:
        """
        Append to many documents, as many as possible with one call.

        Raises:
            Storage: If the server fails; some may have been stored nevertheless.
        """
        outcomes: dict[int, Outcome] = {}
        left = [*range(len(appendices))]
        while left:
            calls = [*_calls(left, appendices)]
            # May be repeated: the script knows rows again by their ids, or says that it cannot know.
            answers = await self._server.run_many([call for _, call in calls], may_repeat=True)
            stale: list[int] = []
            for (numbers, _), found in zip(calls, answers, strict=True):
                for number, answer in zip(numbers, found, strict=True):
                    if answer[0] == b"stale":  # so many others were faster that it has to be sent anew
                        appendices[number].base = answer[1]
                        stale.append(number)
                    else:
                        outcomes[number] = self._outcome(appendices[number], answer)
            left = stale
        return [outcomes[number] for number in range(len(appendices))]

    def _outcome(self, appendix: Appendix, answer: Sequence[Any]) -> Outcome:
        if answer[0] != b"ok":
            return refusal(answer)
        self._reached.note(appendix.place.name, appendix.lineage, answer[1])
        return answer[1]


def _calls(numbers: Sequence[int], appendices: Sequence[Appendix]) -> Iterator[tuple[Sequence[int], Call]]:
    """The calls that append those of these numbers, each with the numbers that it is for."""
    groups: dict[Partition, list[int]] = {}
    for number in numbers:
        groups.setdefault(appendices[number].place.partition, []).append(number)
    for partition, group in groups.items():
        for portion in _portions(group, appendices):
            keys = [partition.log_updates, partition.log_bytes, partition.changes]
            arguments: list[bytes | int | Again] = [AGAIN]
            for number in portion:
                keys += (appendices[number].place.document, appendices[number].place.log)
                arguments += appendices[number].arguments()
            yield portion, Call(_APPEND, keys, arguments)


def _portions(numbers: Sequence[int], appendices: Sequence[Appendix]) -> list[list[int]]:
    """``numbers`` in portions that one call may have."""
    portions: list[list[int]] = [[]]
    size = 0
    for number in numbers:
        if portions[-1] and (len(portions[-1]) == AT_A_TIME or size + len(appendices[number].row) > AT_A_TIME_BYTES):
            portions.append([])
            size = 0
        portions[-1].append(number)
        size += len(appendices[number].row)
    return portions
