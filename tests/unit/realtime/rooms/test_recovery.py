"""How far a room has come: every publication once and in order, or it is said that a part is lost."""

import pytest

from roomkey.ports import Position, Publication, Recovered
from roomkey.realtime.rooms import recovery
from roomkey.realtime.rooms.recovery import Progress, Question


def at(offset: int, epoch: str = "e") -> Position:
    return Position(epoch, offset)


def message(offset: int, epoch: str = "e") -> Publication:
    return Publication(b'"%d' % offset, "elsewhere", at(offset, epoch))


PASSING = Publication(b'"passing', "elsewhere", None)


def history(first: int, last: int, epoch: str = "e") -> Recovered:
    return Recovered(at(last, epoch), [message(offset, epoch) for offset in range(first, last + 1)])


def progress_at(offset: int) -> Progress:
    progress = Progress()
    progress.begin_at(at(offset))
    return progress


def asked(progress: Progress) -> Question:
    question = progress.ask()
    assert question is not None
    return question


def test_what_follows_is_handed_on_at_once() -> None:
    progress = progress_at(4)

    assert [*progress.take(message(5)), *progress.take(PASSING), *progress.take(message(6))] == [
        message(5),
        PASSING,
        message(6),
    ]
    assert not progress.is_behind


def test_what_was_handed_on_before_is_not_handed_on_again() -> None:
    progress = progress_at(4)

    assert [progress.take(message(offset)) for offset in (3, 4)] == [(), ()]
    assert not progress.is_behind


def test_what_comes_behind_a_gap_waits_until_it_is_filled() -> None:
    progress = progress_at(4)

    waiting = [progress.take(each) for each in (message(6), PASSING, message(7))]
    filled = progress.fill(asked(progress), history(5, 6))

    assert waiting == [(), (), ()]
    assert list(filled.publications) == [message(5), message(6), PASSING, message(7)]
    assert filled.lost is None
    assert progress.position == at(7)
    assert not progress.is_behind


def test_before_the_position_is_known_everything_waits_and_is_cut_by_it() -> None:
    progress = Progress()

    waiting = [progress.take(message(offset)) for offset in (3, 4, 5)]

    assert waiting == [(), (), ()]
    assert progress.begin_at(at(4)) == [message(5)]


def test_a_gap_behind_the_first_position_is_one_too() -> None:
    progress = Progress()
    progress.take(message(6))

    assert progress.begin_at(at(4)) == []
    assert progress.is_blocked


@pytest.mark.parametrize("there", [at(9), at(2, "new")])
def test_what_cannot_be_had_is_lost_and_the_room_goes_on_behind_it(there: Position) -> None:
    progress = progress_at(4)
    progress.take(message(there.offset, there.epoch))
    progress.take(message(there.offset + 1, there.epoch))

    filled = progress.fill(asked(progress), Recovered(there, None))

    assert filled.lost == there
    assert list(filled.publications) == [message(there.offset + 1, there.epoch)]


def test_an_answer_that_was_overtaken_changes_nothing() -> None:
    progress = progress_at(4)
    question = asked(progress)
    progress.take(message(5))

    filled = progress.fill(question, history(5, 5))
    trimmed = progress.fill(question, Recovered(at(5), None))

    assert (list(filled.publications), filled.lost) == ([], None)
    assert (list(trimmed.publications), trimmed.lost) == ([], None)
    assert progress.position == at(5)


def test_what_was_only_heard_of_is_missing_until_it_has_come() -> None:
    progress = progress_at(4)

    progress.heard_of(at(5))
    before = progress.is_behind
    progress.take(message(5))

    assert before
    assert not progress.is_behind


def test_a_history_that_was_heard_of_and_is_gone_is_not_asked_for_again() -> None:
    progress = progress_at(4)
    progress.heard_of(at(1, "gone"))

    progress.fill(asked(progress), history(5, 4))

    assert not progress.is_behind


def test_what_waits_is_bounded_and_the_rest_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "MAX_WAITING", 2)
    progress = progress_at(4)
    for offset in range(6, 10):
        progress.take(message(offset))

    first = progress.fill(asked(progress), history(5, 5))
    still_behind = progress.is_behind
    second = progress.fill(asked(progress), history(8, 9))

    assert [each.position for each in first.publications] == [at(5), at(6), at(7)]
    assert still_behind
    assert [each.position for each in second.publications] == [at(8), at(9)]
    assert not progress.is_behind
