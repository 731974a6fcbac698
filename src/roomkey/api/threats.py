"""The operations on risks: how a session stands and why, and what is kept about a user."""

from datetime import datetime
from typing import Annotated, Final

from msgspec import Meta, Struct

from roomkey.api.http_messages import Reply, empty_reply, json_reply
from roomkey.api.operations import Answer, Request, operation
from roomkey.domain.session import SessionId, check_user_id
from roomkey.errors import NotFound
from roomkey.security import authorization
from roomkey.security.authorization import Action
from roomkey.threats.decay import Remainder
from roomkey.threats.verdicts import Contribution, Risk, Verdict

Moment = Annotated[datetime, Meta(tz=True)]


class SignalBody(Struct, frozen=True, kw_only=True):
    """What was noticed. It adds `contribution` to the score: at most `weight`, and less as time goes by."""

    signal: Annotated[str, Meta(examples=["network"])]
    weight: float
    contribution: float
    value: Annotated[str, Meta(examples=["203.0.113.0/24 instead of 198.51.100.0/24"])]
    at: Moment


class ViolationBody(Struct, frozen=True, kw_only=True):
    """A violation that counts. Of its `weight` there is `left` what has not been forgiven."""

    cause: Annotated[str, Meta(examples=["malformed"])]
    weight: int
    left: int
    at: Moment


class RiskBody(Struct, frozen=True, kw_only=True):
    """
    How a session stands.

    `score` is the sum of the contributions of `signals`, `level` that of what is left of `violations`. `causes` names
    what the verdict follows from.
    """

    session_id: str
    verdict: Verdict
    causes: list[str]
    since: Moment | None
    score: float
    signals: list[SignalBody]
    level: int
    violations: list[ViolationBody]
    violations_recorded: Annotated[int, Meta(ge=0, description="All of its life, forgiven or not.")]


ON_RISK: Final = {200: Answer("How the session stands now.", RiskBody)}


@operation("Get the risk of a session", tag="Sessions", action=Action.SEE_RISK, answers=ON_RISK, errors=(NotFound,))
async def get_risk(request: Request) -> Reply:
    """
    What is known against the session, with what each violation and each signal adds to its verdict.

    A session does not see its own: whoever has stolen one would read what was noticed.
    """
    session = authorization.check_session(
        request.caller, request.action, await request.sessions.get_session(SessionId(request.path("id")))
    )
    risk = await request.threats.risk(session)
    return json_reply(_risk_body(session.id, session.violations, risk))


@operation(
    "Forget a user's patterns",
    tag="Users",
    action=Action.FORGET_PATTERNS,
    answers={204: Answer("Nothing is kept about the user's habits, violations and signals any more.")},
)
async def forget_patterns(request: Request) -> Reply:
    """
    Delete what is kept about when, from where and with what the user works, and what counts against their sessions.

    Sessions and their history stay.
    """
    user_id = check_user_id(request.path("user_id"))
    authorization.check_user(request.caller, user_id)
    await request.threats.forget(user_id)
    return empty_reply()


def _risk_body(id: SessionId, recorded: int, risk: Risk) -> RiskBody:
    return RiskBody(
        session_id=id,
        verdict=risk.verdict,
        causes=list(risk.causes),
        since=risk.since,
        score=risk.score,
        signals=[_signal_body(each) for each in risk.signals],
        level=risk.level,
        violations=[_violation_body(each) for each in risk.strikes],
        violations_recorded=recorded,
    )


def _signal_body(each: Contribution) -> SignalBody:
    return SignalBody(
        signal=each.signal, weight=each.weight, contribution=each.contribution, value=each.value, at=each.at
    )


def _violation_body(each: Remainder) -> ViolationBody:
    return ViolationBody(cause=each.strike.cause, weight=each.strike.weight, left=each.left, at=each.strike.at)
