"""What must hold in every history: each law is a function that finds what breaks it."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Final

from roomkey.testing.simulation.history import CALM, FAILOVER, VISITOR, History, Observation, What

REVOKED_WITHIN_SECONDS: Final = 3.0
"""A revoke that has returned holds on every node that hears of the store: a look at the log, and one that fails."""

HINTED_WITHIN_SECONDS: Final = 0.05
"""The same where nothing is in the way of hints."""

BLIND_WITHIN_SECONDS: Final = 2.0 + 1.5
"""The same for requests to a node that hears of nothing: it knows that after two seconds, and asks the store then."""

STORAGE_LOST: Final = "storage_lost"
"""What a node says that has a document of which the store knows nothing."""

SOCKETS_CLOSE_WITHIN_SECONDS: Final = 2.0 + 3.0 + 1.5
"""The same for open sockets on a node that hears of nothing: two seconds, ``Settings.blind_grace``, and a look."""

Law = Callable[[History], Iterator[str]]

ENDINGS: Final = frozenset({"revoke", "revoke user", "suspend"})


class Violation(str):
    """What was broken, and where."""

    __slots__ = ()


def violations(history: History) -> list[Violation]:
    """Everything in a history that is against the laws."""
    return [Violation(f"{law.__name__.replace('_', ' ')}: {found}") for law in LAWS for found in law(history)]


# --- sessions -----------------------------------------------------------------------------------------


def nothing_of_a_session_is_accepted_after_the_bound_of_its_revoke(history: History) -> Iterator[str]:
    """Not a frame, not a handshake: its sockets are closed on every node."""
    ended = _endings(history)
    blind = _blindness(history)
    opened: dict[str, Observation] = {}
    closed: set[str] = set()
    for each in history:
        if each.what is What.ADMITTED and each.connection in closed:
            continue  # the answer was on its way when the connection broke
        if each.what is What.ADMITTED:
            opened[each.connection] = each
            for at in ended.get(each.session, ()):
                if at[0] + REVOKED_WITHIN_SECONDS < each.at < at[1] and not _was_blind(blind, each.node, each.at):
                    yield f"{each.connection} was let in at {each.at:.3f}, after {at[0]:.3f}"
        elif each.what is What.CLOSED:
            closed.add(each.connection)
            admitted = opened.pop(each.connection, None)
            if admitted is not None:
                yield from _outlived(admitted, each.at, ended, blind)
    for admitted in opened.values():
        yield from _outlived(admitted, _end(history), ended, blind)


def _outlived(
    admitted: Observation,
    closed_at: float,
    ended: dict[str, list[tuple[float, float]]],
    blind: dict[str, list[tuple[float, float]]],
) -> Iterator[str]:
    for at, until in ended.get(admitted.session, ()):
        due = at + REVOKED_WITHIN_SECONDS
        for begin, end in blind.get(admitted.node, ()):
            if begin - 1 < due and end > at - REVOKED_WITHIN_SECONDS:
                due = max(due, end + REVOKED_WITHIN_SECONDS)
        due = min(due, at + SOCKETS_CLOSE_WITHIN_SECONDS)
        if admitted.at < at and due < min(closed_at, until):
            yield f"{admitted.connection} on {admitted.node} was open until {closed_at:.3f}, after {at:.3f}"


def _endings(history: History) -> dict[str, list[tuple[float, float]]]:
    """By session, from when until when it could not be used."""
    owners: dict[str, list[str]] = defaultdict(list)
    ended: dict[str, list[tuple[float, float]]] = defaultdict(list)
    began: dict[tuple[str, str], list[str]] = {}
    for each in history.of(What.SIGNED_IN, What.ASKED, What.DONE):
        if each.what is What.SIGNED_IN:
            owners[each.text].append(each.session)
        elif each.what is What.ASKED and each.text == "revoke user":
            began[each.who, each.session] = list(owners[each.who])
        elif each.what is What.ASKED and each.text == "resume":
            ended[each.session] = [(begin, min(end, each.at)) for begin, end in ended[each.session]]
        elif each.what is What.DONE and each.text == "revoke user":
            for session in began.get((each.who, each.session), ()):
                ended[session].append((each.at, float("inf")))
        elif each.what is What.DONE and each.text in ENDINGS:
            ended[each.session].append((each.at, float("inf")))
    return ended


def _blindness(history: History) -> dict[str, list[tuple[float, float]]]:
    """By node, when it could not hear of the store, or late."""
    began: dict[tuple[str, str], float] = {}
    blind: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for each in history.of(What.FAULT, What.OVER, What.REST):
        fault = each.node, each.text
        if each.what is What.FAULT and each.text in ("store", "slow"):
            began.setdefault(fault, each.at)
        elif each.what is What.OVER and fault in began:
            blind[each.node].append((began.pop(fault), each.at))
        elif each.what is What.REST:
            for node, begin in [(node, began.pop((node, text))) for node, text in tuple(began)]:
                blind[node].append((begin, each.at))
    return blind


def _was_blind(blind: dict[str, list[tuple[float, float]]], node: str, at: float) -> bool:
    return any(begin <= at <= end + REVOKED_WITHIN_SECONDS for begin, end in blind.get(node, ()))


def no_request_is_served_after_the_bound_of_a_revoke(history: History) -> Iterator[str]:
    """At once where hints arrive; by the log where not; and a node that hears of nothing serves nobody."""
    ended = _endings(history)
    served = [each for each in history.of(What.SERVED) if each.session in ended]
    if not served:
        return
    deaf = _times_of(history, frozenset({"store", "broker", "feed", "history", "down", "slow"}))
    hard_of_hearing = _times_of(history, frozenset({"broker", "feed", "history", "down"}))
    is_calm = any(each.text == CALM for each in history.of(What.BEGIN))
    for each in served:
        begun = each.number / 1_000_000
        for at, until in ended[each.session]:
            bound = REVOKED_WITHIN_SECONDS
            # Who finds a session revoked has nothing to tell: the hint is that of the other command, which is not done.
            is_alone = not any(other > at for other, _ in ended[each.session])
            if is_calm and is_alone and not _any_within(hard_of_hearing, at - 1.0, begun):
                bound = HINTED_WITHIN_SECONDS
            elif _any_within(deaf, at - 1.0, begun):
                bound = BLIND_WITHIN_SECONDS
            if at + bound < begun < until:
                yield f"{each.session} on {each.node} at {begun:.3f}, after {at:.3f}"


def _times_of(history: History, faults: frozenset[str]) -> list[tuple[float, float]]:
    """When there was one of the faults, anywhere."""
    began: dict[tuple[str, str], float] = {}
    times: list[tuple[float, float]] = []
    for each in history.of(What.FAULT, What.OVER, What.REST):
        if each.what is What.FAULT and each.text in faults:
            began.setdefault((each.node, each.text), each.at)
        elif each.what is What.OVER and (each.node, each.text) in began:
            times.append((began.pop((each.node, each.text)), each.at))
        elif each.what is What.REST:
            times.extend((begin, each.at) for begin in began.values())
            began.clear()
    return times


def _any_within(times: list[tuple[float, float]], begin: float, end: float) -> bool:
    return any(first < end and last > begin for first, last in times)


def nobody_has_more_sessions_than_the_cap(history: History) -> Iterator[str]:
    """However many nodes are asked at once."""
    for each in history.of(What.LIVE):
        if each.number > each.size:
            yield f"{each.text} has {each.number} at {each.at:.3f}"


def a_one_time_value_is_redeemed_once(history: History) -> Iterator[str]:
    """On whichever nodes it is shown."""
    seen: set[str] = set()
    for each in history.of(What.REDEEMED):
        if each.text in seen:
            yield f"{each.text} again on {each.node} at {each.at:.3f}"
        seen.add(each.text)


# --- rooms --------------------------------------------------------------------------------------------


class _Reading:
    """How far a subscriber is, by what it was given."""

    def __init__(self) -> None:
        self.epoch = ""
        self.offset = 0
        self.is_told = False
        """Whether it has been told that something is missing, so that it subscribes anew."""


def a_subscriber_is_given_everything_once_and_in_order(history: History) -> Iterator[str]:
    """Its own are acknowledged in their place; what is missing is only what it was told of."""
    published = {(each.document, each.epoch, each.offset): each.text for each in history.of(What.PUBLISHED)}
    reading: dict[str, _Reading] = defaultdict(_Reading)
    for each in history.of(What.JOINED, What.HEARD, What.ACKNOWLEDGED, What.CHECKED):
        at = reading[each.who]
        if each.what is What.JOINED:
            yield from _joined(each, at)
        elif each.what is What.CHECKED and each.flag:
            at.epoch, at.offset, at.is_told = each.epoch, each.offset, False
        elif each.what is What.CHECKED:
            at.is_told = at.is_told or at.epoch != each.epoch or at.offset < each.offset
        elif each.what is What.HEARD or (at.epoch == each.epoch and each.offset > at.offset):
            if published.get((each.document, each.epoch, each.offset), each.text) != each.text:
                yield f"{each.who} was given {each.text} at {each.at:.3f}, and others something else"
            yield from _given(each, at, published)
    yield from _left_behind(history, reading, published)


def _joined(each: Observation, at: _Reading) -> Iterator[str]:
    if each.flag and at.epoch != each.epoch:
        yield f"{each.who} was told at {each.at:.3f} that it has recovered, in another epoch"
    elif each.flag and each.offset - at.offset != each.number:
        yield f"{each.who} recovered {each.number} of {each.offset - at.offset} at {each.at:.3f}"
    if not each.flag:
        at.epoch, at.offset = each.epoch, each.offset
    at.is_told = False


def _given(each: Observation, at: _Reading, published: dict[tuple[str, str, int], str]) -> Iterator[str]:
    if at.is_told:
        return
    if at.epoch != each.epoch:
        yield f"{each.who} was given {each.epoch}.{each.offset} at {each.at:.3f}, of another epoch than it was told"
    elif each.offset <= at.offset:
        yield f"{each.who} was given {each.text} again at {each.at:.3f}"
    else:
        yield from _missing(each.who, each.document, at, each.offset, published, each.at)
    at.epoch, at.offset = each.epoch, max(at.offset, each.offset)


def _missing(
    who: str, document: str, at: _Reading, offset: int, published: dict[tuple[str, str, int], str], when: float
) -> Iterator[str]:
    for skipped in range(at.offset + 1, offset):
        text = published.get((document, at.epoch, skipped), "")
        if not text.startswith(f"{who}:"):
            yield f"{who} was not given {text or skipped} before {when:.3f}"


def _left_behind(
    history: History, reading: dict[str, _Reading], published: dict[tuple[str, str, int], str]
) -> Iterator[str]:
    heads = {each.document: each for each in history.of(What.HEAD)}
    for each in history.of(What.HOLDS):
        head, at = heads.get(each.document), reading[each.who]
        if head is None or not each.flag or not each.epoch:
            continue
        if at.epoch != head.epoch:
            yield f"{each.who} is in epoch {at.epoch} at rest, and {each.document} in {head.epoch}"
        else:
            yield from _missing(each.who, each.document, at, head.offset + 1, published, each.at)


def what_was_acknowledged_was_published_once(history: History) -> Iterator[str]:
    """At the position that its sender was told."""
    places: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    for each in history.of(What.PUBLISHED):
        places[each.document, each.text].append((each.epoch, each.offset))
    for each in history.of(What.ACKNOWLEDGED):
        if (each.epoch, each.offset) not in places[each.document, each.text]:
            yield f"{each.text} at {each.epoch}.{each.offset}"


# --- documents ----------------------------------------------------------------------------------------


def nothing_is_shown_on_another_node_that_is_not_stored(history: History) -> Iterator[str]:
    """Who is on the node of a typist sees it at once; everybody else when it cannot be lost any more."""
    stored: dict[tuple[str, int], int] = defaultdict(int)
    typists: dict[int, str] = {}
    nodes: dict[str, set[str]] = defaultdict(set)
    for each in history.of(What.CONNECTED, What.TYPED, What.APPENDED, What.SHOWN):
        if each.what is What.CONNECTED:
            nodes[each.who].add(each.node)
        elif each.what is What.TYPED:
            typists[each.number] = each.who
        elif each.what is What.APPENDED:
            stored[each.document, each.number] = max(stored[each.document, each.number], each.size)
        elif each.number in typists and stored[each.document, each.number] < each.size:
            typist = typists[each.number]
            if each.node not in nodes[typist]:
                yield f"{each.who} on {each.node} was shown {each.size} of {typist} at {each.at:.3f}"


def replicas_are_equal_at_rest(history: History) -> Iterator[str]:
    """What every editor shows is what is stored."""
    stored = {each.document: each for each in history.of(What.STORED)}
    readers = {each.session for each in history.of(What.ASKED) if each.text == "read only"}
    for each in history.of(What.HOLDS):
        if not each.flag or not each.number or each.session in readers:
            continue
        text = stored[each.document].text if each.document in stored else ""
        if each.text != text:
            yield f"{each.who} has {each.text!r} of {each.document}, stored is {text!r}"


def nothing_is_missing_that_was_called_durable(history: History) -> Iterator[str]:
    """Unless its document was deleted."""
    stored = {each.document: each for each in history.of(What.STORED)}
    deleted = {each.document for each in history.of(What.ASKED) if each.text == "delete document"}
    if _has_failed_over(history):
        return
    for each in history.of(What.DURABLE):
        now = stored.get(each.document)
        if now is None or (now.lineage != each.lineage and each.document in deleted):
            if each.document not in deleted:
                yield f"{each.document} is gone, of which {each.who} was told at {each.at:.3f} that it is durable"
        elif now.state.get(each.number, 0) < each.size:
            yield (
                f"{each.who} was told at {each.at:.3f} that {each.size} of {each.number} are durable in"
                f" {each.document}, there are {now.state.get(each.number, 0)}"
            )


def nothing_of_a_deleted_document_is_in_its_successor(history: History) -> Iterator[str]:
    """
    What somebody has typed into one history is not in another one.

    A client that cannot state its lineage is recognised by nodes that have heard of the deletion, until they end.
    """
    has_forgotten = any(each.text in ("down", "feed", "broker", "history") for each in history.of(What.FAULT))
    unknowable = {each.document for each in history.of(What.ADMITTED) if each.flag and has_forgotten}
    stored = {each.document: each for each in history.of(What.STORED)}
    for each in history.of(What.TYPED):
        now = stored.get(each.document)
        if now is None or each.document in unknowable or each.lineage in ("", now.lineage):
            continue
        if each.number in now.state:
            yield f"{each.who} typed into {each.lineage} at {each.at:.3f}, and it is in {now.lineage}"


def nothing_is_written_under_a_lease_that_another_node_has_written_under(history: History) -> Iterator[str]:
    """Whoever has lost a lease without knowing it is refused."""
    highest: dict[str, int] = defaultdict(int)
    for each in history.of(What.FENCED, What.FAULT):
        if each.what is What.FAULT:
            if each.text == FAILOVER:
                highest.clear()  # what was written under them is lost as well
            continue
        if each.number < highest[each.document]:
            yield f"{each.document}: {each.text} under {each.number} at {each.at:.3f}, after {highest[each.document]}"
        highest[each.document] = max(highest[each.document], each.number)


# --- who is there -------------------------------------------------------------------------------------


def presence_is_who_is_there_at_rest(history: History) -> Iterator[str]:
    """In every room, whichever node is asked; nobody is missing and nobody is a ghost."""
    there: dict[str, set[str]] = defaultdict(set)
    shows: dict[str, str] = {}
    for each in history.of(What.JOINED, What.SHOWS, What.HOLDS):
        if each.what is What.JOINED:
            shows.pop(each.who, None)
        elif each.what is What.SHOWS:
            shows[each.who] = each.text
        elif each.flag and (each.number or each.who in shows):
            there[each.document].add(each.session)
    for each in history.of(What.JOINED):
        if not each.who.startswith(VISITOR):
            continue
        ghosts = set(each.members) - there[each.document]
        missing = there[each.document] - set(each.members)
        if ghosts or missing:
            yield f"{each.who} was shown {sorted(ghosts)} in {each.document}, and not {sorted(missing)}"


def editors_see_each_other_at_rest(history: History) -> Iterator[str]:
    """The awareness of every editor in a document is that of all others."""
    editors = [each for each in history.of(What.HOLDS) if each.flag and each.number]
    for each in editors:
        others = {str(other.number) for other in editors if other.document == each.document and other is not each}
        if set(each.members) != others:
            ghosts, missing = sorted(set(each.members) - others), sorted(others - set(each.members))
            yield f"{each.who} on {each.node} sees {ghosts} in {each.document}, and not {missing}"


# --- the rest -----------------------------------------------------------------------------------------


def whoever_wants_in_is_in_at_rest(history: History) -> Iterator[str]:
    """Unless its session is suspended, or the store has lost the document."""
    if _has_failed_over(history):
        return
    suspended = {each.session for each in history.of(What.ASKED) if each.text == "suspend"}
    for each in history.of(What.HOLDS):
        if each.size and not each.flag and each.session not in suspended:
            yield f"{each.who} is not in {each.document}"


def every_queue_is_within_its_bound(history: History) -> Iterator[str]:
    """At every moment that was looked at."""
    for each in history.of(What.QUEUE):
        if each.number > each.size:
            yield f"{each.text} of {each.node}: {each.number} at {each.at:.3f}"


def no_service_meets_what_must_not_be(history: History) -> Iterator[str]:
    """What a service calls an error of its own."""
    is_lossy = _has_failed_over(history)
    for each in history.of(What.DEFECT):
        if is_lossy and each.text.startswith(STORAGE_LOST):
            continue  # it refuses to write over the emptiness, and an operator decides
        yield f"{each.text} at {each.at:.3f}"


def _has_failed_over(history: History) -> bool:
    return any(each.text == FAILOVER for each in history.of(What.FAULT))


def _end(history: History) -> float:
    return max((each.at for each in history), default=0.0)


LAWS: Final[tuple[Law, ...]] = (
    nothing_of_a_session_is_accepted_after_the_bound_of_its_revoke,
    no_request_is_served_after_the_bound_of_a_revoke,
    nobody_has_more_sessions_than_the_cap,
    a_one_time_value_is_redeemed_once,
    a_subscriber_is_given_everything_once_and_in_order,
    what_was_acknowledged_was_published_once,
    nothing_is_shown_on_another_node_that_is_not_stored,
    replicas_are_equal_at_rest,
    nothing_is_missing_that_was_called_durable,
    nothing_of_a_deleted_document_is_in_its_successor,
    nothing_is_written_under_a_lease_that_another_node_has_written_under,
    presence_is_who_is_there_at_rest,
    editors_see_each_other_at_rest,
    whoever_wants_in_is_in_at_rest,
    every_queue_is_within_its_bound,
    no_service_meets_what_must_not_be,
)
