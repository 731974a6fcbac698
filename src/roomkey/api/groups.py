"""The operations on groups: grants that many sessions have in common."""

from functools import partial
from typing import Annotated, Final, cast

from msgspec import Meta, Struct

from roomkey.access.groups import Group, Groups
from roomkey.api.authentication import address_of
from roomkey.api.http_messages import Reply, empty_reply, json_reply
from roomkey.api.operations import Answer, Request, operation
from roomkey.api.schemas import GroupName, Limit, Moment, Pattern
from roomkey.domain.access import MAX_GRANTS, Access, Grant
from roomkey.errors import Conflict, GroupNotFound, InvalidInput, TooManyGroups
from roomkey.security.authorization import Action, check_sees_all
from roomkey.security.events import SecurityEventType


class GroupGrantInput(Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a group's rights. In `documents` `*` stays inside a segment and `**` does not."""

    documents: Pattern
    access: Access

    def granted(self) -> Grant:
        """The same in the words of the domain."""
        return Grant(self.documents, self.access)


class GroupInput(Struct, frozen=True, forbid_unknown_fields=True):
    """What the group has from now on, instead of what it had before. The first grant that matches a document wins."""

    grants: Annotated[list[GroupGrantInput], Meta(max_length=MAX_GRANTS)]


class GroupListing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which part of the list: the groups whose names come behind `cursor`."""

    cursor: GroupName | None = None
    limit: Limit = 50


class GroupBody(Struct, frozen=True):
    """Grants that sessions have who name the group in theirs."""

    name: str
    grants: list[GroupGrantInput]
    changed_at: Moment
    changed_by: str


class GroupPageBody(Struct, frozen=True):
    """A page of groups, by name."""

    groups: list[GroupBody]
    next_cursor: str | None


_on_group: Final = partial(operation, tag="Groups")


@_on_group("List groups", action=Action.SEE_GROUPS, query=GroupListing, answers={200: Answer("A page.", GroupPageBody)})
async def list_groups(request: Request) -> Reply:
    """
    All groups with their grants, by name. Follow `next_cursor` until it is null.

    A key that is narrowed to users or documents may neither see groups nor change them: they are about all.
    """
    listing = cast("GroupListing", request.query)
    found = await _groups(request).list(after=listing.cursor or "", limit=listing.limit + 1)
    page = found[: listing.limit]
    return json_reply(
        GroupPageBody([_body(group) for group in page], page[-1].name if len(found) > len(page) else None)
    )


@_on_group(
    "Get a group", action=Action.SEE_GROUPS, answers={200: Answer("The group.", GroupBody)}, errors=(GroupNotFound,)
)
async def get_group(request: Request) -> Reply:
    """What sessions have who name the group in their grants."""
    return json_reply(_body(await _groups(request).get(request.path("group"))))


@_on_group(
    "Make or change a group",
    action=Action.CHANGE_GROUPS,
    body=GroupInput,
    answers={
        200: Answer("It has other grants now.", GroupBody),
        201: Answer("It is a new group.", GroupBody),
    },
    errors=(InvalidInput, TooManyGroups, Conflict),
)
async def put_group(request: Request) -> Reply:
    """
    Give a group its grants. Every session that names it has them at once.

    Before this is answered the open sockets of this node obey; those of others do within a second.
    """
    grants = [each.granted() for each in cast("GroupInput", request.body).grants]
    group, is_new = await _groups(request).put(request.path("group"), grants, actor=request.caller.actor)
    _report(request, "group_changed")
    return json_reply(_body(group), 201 if is_new else 200)


@_on_group(
    "Delete a group",
    action=Action.CHANGE_GROUPS,
    answers={204: Answer("It is gone.")},
    errors=(GroupNotFound, Conflict),
)
async def delete_group(request: Request) -> Reply:
    """Forget a group: sessions that name it have nothing by it any more, as with a change."""
    await _groups(request).delete(request.path("group"))
    _report(request, "group_deleted")
    return empty_reply()


def _groups(request: Request) -> Groups:
    """The commands, for whoever may know of everybody: a group is about users and documents that are not named."""
    check_sees_all(request.caller)
    return request.services.access.groups


def _report(request: Request, cause: str) -> None:
    request.services.events.report(
        SecurityEventType.PRIVILEGE_CHANGE,
        cause,
        actor=request.caller.actor,
        address=address_of(request.scope),
        details={"group": request.path("group")},
    )


def _body(group: Group) -> GroupBody:
    grants = [GroupGrantInput(grant.documents, grant.access) for grant in group.grants if grant.access is not None]
    return GroupBody(group.name, grants, group.changed_at, group.changed_by)
