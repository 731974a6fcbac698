"""Whatever a command is called with, it does it or says in a sentence which argument is wrong."""

import inspect
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import roomkey
from roomkey import errors
from roomkey.backends.memory import MemorySessionStorage
from roomkey.domain.access import Access, Grant
from roomkey.domain.session import Client, SessionFilter, SessionState
from roomkey.ports import Page
from roomkey.sessions.issuing import SessionRequest
from roomkey.sessions.manager import SessionManager
from roomkey.testing.storage.suite import issue
from tests.support.sessions import Desk
from tests.support.storages import STORAGES

ANYTHING: list[Any] = [None, True, 42, 1.5, "text", b"bytes", [], [1], ["x"], {}, {"a": 1}, (), object(), Path(), len]

COMMANDS = {
    name: command
    for name, command in inspect.getmembers(SessionManager, inspect.isfunction)
    if not name.startswith("_")
}

MEANT: dict[str, tuple[Any, ...]] = {
    "id": ("text",),
    "ids": ([], ["x"], ()),
    "user_id": ("text",),
    "token": ("text",),
    "presented": (None, "text"),
    "bound_to": (None, "text"),
    "held": ([], ["x"], ()),
    "reauthenticated": (True,),
    "except_session": (None, "text"),
    "requests": ([], ()),
    "client": (None,),
    "grants": ([], ()),
    "lifetime": (None,),
    "metadata": (None, {}, {"a": 1}),
    "activate": (True,),
    "is_activity": (True,),
    "cause": ("text",),
    "reason": (None, "text"),
    "actor": ("text",),
    "if_version": (None, 42),
    "filter": (None,),
    "page": (None,),
    "listener": (len,),
    "session": (),
}
"""Of ``ANYTHING``, what the parameters of these names may be."""

GOOD: dict[str, Any] = {
    "id": "3a" + "a" * 26,
    "ids": [],
    "user_id": "alice",
    "token": "3a" + "a" * 26 + "." + "A" * 43,
    "requests": [],
    "grants": [],
    "cause": "spam",
    "listener": len,
    "session": issue().session,
    "client": None,
}

CALLS = [
    (command, parameter)
    for command, function in COMMANDS.items()
    for parameter in inspect.signature(function).parameters
    if parameter != "self"
]


async def complaint(call: Callable[[], Any]) -> str | None:
    """What is wrong with the arguments of a call; ``None`` if nothing is, whatever else comes of it."""
    try:
        result = call()
        if inspect.isawaitable(result):
            await result
    except errors.InvalidInput as refusal:
        return str(refusal)
    except errors.SessionError:
        pass
    return None


def test_every_parameter_of_every_command_is_in_the_table() -> None:
    assert {parameter for _, parameter in CALLS} == set(MEANT)


@pytest.mark.parametrize("kind", STORAGES)
@pytest.mark.parametrize(("command", "parameter"), CALLS)
async def test_an_argument_of_the_wrong_kind_is_named(command: str, parameter: str, kind: str, tmp_path: Path) -> None:
    needed = [
        name
        for name, each in inspect.signature(COMMANDS[command]).parameters.items()
        if each.default is each.empty and name != "self"
    ]
    async with STORAGES[kind](tmp_path) as storage:
        sessions = Desk(storage).sessions
        for value in ANYTHING:
            arguments = {name: GOOD[name] for name in needed} | {parameter: value}
            is_meant = any(value is each or (type(value) is type(each) and value == each) for each in MEANT[parameter])
            is_meant = is_meant or (parameter == "grants" and value is None and command.startswith("create"))

            said = await complaint(partial(getattr(sessions, command), **arguments))

            assert is_meant or (said is not None and said.startswith(parameter)), (value, said)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"user_id": 42}, "user_id"),
        ({"user_id": "alice", "client": {"ip": "192.0.2.7"}}, "client"),
        ({"user_id": "alice", "client": Client(ip=7)}, "client.ip"),  # pyright: ignore[reportArgumentType]
        ({"user_id": "alice", "grants": "notes/**:write"}, "grants"),
        ({"user_id": "alice", "grants": [("notes/**", "write")]}, "grants[0]"),
        ({"user_id": "alice", "lifetime": 3600}, "lifetime"),
        ({"user_id": "alice", "metadata": [1]}, "metadata"),
    ],
)
async def test_a_field_of_a_request_is_named_whichever_way_it_comes(wrong: dict[str, Any], named: str) -> None:
    desk = Desk()

    with pytest.raises(errors.InvalidInput) as one:
        await desk.sessions.create_session(**wrong)
    with pytest.raises(errors.InvalidInput) as many:
        await desk.sessions.create_sessions([SessionRequest(**wrong)])

    assert str(one.value) == str(many.value)
    assert str(one.value).startswith(f"{named} must be ")


@pytest.mark.parametrize(
    ("conditions", "named"),
    [
        ({"user_id": 42}, "filter.user_id"),
        ({"state": "active"}, "filter.state"),
        ({"created_before": datetime(2026, 1, 1)}, "filter.created_before"),  # noqa: DTZ001  # that is what is wrong
        ({"created_after": "2026-01-01"}, "filter.created_after"),
    ],
)
async def test_a_condition_of_a_list_is_named(conditions: dict[str, Any], named: str) -> None:
    for command in (Desk().sessions.list_sessions, Desk().sessions.count_sessions):
        with pytest.raises(errors.InvalidInput, match=f"^{named} must be "):
            await command(SessionFilter(**conditions))


@pytest.mark.parametrize(("page", "named"), [({"limit": "9"}, "page.limit"), ({"cursor": 9}, "page.cursor")])
async def test_a_part_of_a_page_is_named(page: dict[str, Any], named: str) -> None:
    with pytest.raises(errors.InvalidInput, match=f"^{named} must be "):
        await Desk().sessions.list_sessions(page=Page(**page))


async def test_grants_may_be_written_as_in_json() -> None:
    desk = Desk()

    issued = await desk.sessions.create_session("alice", grants=[{"documents": "notes/**", "access": "write"}])
    changed = await desk.sessions.change_grants(issued.id, [{"documents": "notes/**", "access": "read"}])

    assert issued.grants == (Grant("notes/**", Access.WRITE),)
    assert changed.grants == (Grant("notes/**", Access.READ),)
    assert type(changed.grants[0].access) is Access


@pytest.mark.parametrize(
    "grant",
    [
        {"documents": "notes/**"},
        {"documents": "notes/**", "access": "own"},
        {"documents": "notes/**", "access": "read", "until": "noon"},
        {"documents": 7, "access": "read"},
        {"documents": "", "access": "read"},
        {"documents": "a\nb", "access": "read"},
        {"documents": "notes/**", "access": 1},
        Grant("notes/**", "own"),  # pyright: ignore[reportArgumentType]  # that is what is wrong
        "notes/**:read",
        None,
    ],
)
async def test_what_is_no_grant_is_refused_and_changes_nothing(grant: Any) -> None:
    desk = Desk()
    issued = await desk.sessions.create_session("alice")

    with pytest.raises(errors.InvalidInput, match=r"grant"):
        await desk.sessions.create_session("alice", grants=[grant])
    with pytest.raises(errors.InvalidInput, match=r"grant"):
        await desk.sessions.change_grants(issued.id, [grant])

    assert await desk.sessions.get_session(issued.id) == issued.session
    assert await desk.sessions.count_sessions() == 1


async def test_a_session_may_be_active_from_the_beginning() -> None:
    desk = Desk()

    issued = await desk.sessions.create_session("alice", activate=True, actor="key:backend")

    assert issued.state is SessionState.ACTIVE
    assert (await desk.sessions.authenticate(issued.token)) == issued.session
    assert [(event.tag(), event.actor) for event in desk.announced] == [
        ("created", "key:backend"),
        ("activated", "key:backend"),
    ]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"storage": "lmdb://data"}, "storage"), ({"storage": MemorySessionStorage(), "policy": {"cap": 3}}, "policy")],
)
def test_what_a_manager_is_made_of_is_named_too(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(TypeError, match=f"^{named} must be "):
        SessionManager(**arguments)


async def test_a_lifetime_is_a_duration() -> None:
    with pytest.raises(errors.InvalidInput, match=r"^lifetime must be a datetime\.timedelta or None, not int$"):
        await Desk().sessions.extend_session("3a" + "a" * 26, lifetime=3600)  # pyright: ignore[reportArgumentType]
    with pytest.raises(errors.NotFound):
        await Desk().sessions.extend_session("3a" + "a" * 26, lifetime=timedelta(hours=1))  # pyright: ignore[reportArgumentType]


def test_a_star_imports_the_public_names() -> None:
    names: dict[str, Any] = {}

    exec("from roomkey import *", names)

    assert set(roomkey.__all__) <= set(names)
    assert {name for name in names if not name.startswith("__")} | {"__version__"} == set(roomkey.__all__)
