"""The operations on webhooks: how endpoints stand, what was delivered; enable one again, replay a message."""

from datetime import datetime
from typing import Annotated, Final, Literal, cast

from msgspec import Meta, Struct

from roomkey.api.http_messages import Reply, json_reply
from roomkey.api.operations import Answer, Request, following, operation
from roomkey.api.schemas import HistoryListing, SessionIdText
from roomkey.errors import DeliveryNotFound, WebhookNotFound
from roomkey.hooks.deliveries import Delivery
from roomkey.hooks.events import ContentForm, DocumentEvent, EventType
from roomkey.hooks.service import WebhookService, WebhookStatus
from roomkey.ports import Page
from roomkey.security.authorization import Action, check_sees_all

WebhookName = Annotated[
    str,
    Meta(pattern="^[a-z0-9][a-z0-9-]{0,39}$", examples=["search-index"], description="The name in the configuration."),
]
DeliveryId = Annotated[
    str,
    Meta(
        pattern="^msg_[0-9a-f]{32}$",
        examples=["msg_3f0b9bb5febbe3fe6ce7df9e3741a4e3"],
        description="The `webhook-id` of the message.",
    ),
]
Count = Annotated[int, Meta(ge=0)]


class WebhookFiguresBody(Struct, frozen=True):
    """
    How the endpoint stands, as the node sees it that sends; a few seconds old. Counts are since that took over.

    `failed` messages were given up, `dropped` ones were never sent, because too many waited.
    """

    at: datetime
    node: str
    waiting: Count
    oldest: datetime | None
    delivered: Count
    failed: Count
    attempts_failed: Count
    dropped: Count
    is_away: bool
    last_failure: str | None
    last_failure_at: datetime | None


class WebhookBody(Struct, frozen=True):
    """An endpoint of the configuration. Its secrets are not shown. `figures` is null if nothing was ever sent."""

    name: str
    url: str
    events: list[EventType]
    documents: list[str]
    content: ContentForm | None
    disabled_at: datetime | None
    disabled_reason: str | None
    figures: WebhookFiguresBody | None


class WebhooksBody(Struct, frozen=True):
    """Every endpoint of the configuration."""

    webhooks: list[WebhookBody]


class DeliveryBody(Struct, frozen=True):
    """What became of a message. `status` is that of the last answer, `reason` says why it was none of success."""

    id: DeliveryId
    type: EventType
    document: str | None
    session_id: SessionIdText | None
    state: Literal["delivered", "failed"]
    at: datetime
    attempts: Annotated[int, Meta(ge=1)]
    seconds: Annotated[float, Meta(ge=0, description="How long the last attempt took.")]
    status: int | None
    reason: str | None


class DeliveriesBody(Struct, frozen=True):
    """Deliveries, the newest first; the list is at its end when `next_cursor` is null."""

    deliveries: list[DeliveryBody]
    next_cursor: str | None


TAG: Final = "Webhooks"


@operation("List webhooks", tag=TAG, action=Action.SEE_WEBHOOKS, answers={200: Answer("Every endpoint.", WebhooksBody)})
async def list_webhooks(request: Request) -> Reply:
    """The endpoints of the configuration, and how they stand."""
    return json_reply(WebhooksBody([_webhook_body(each) for each in await _webhooks(request).list()]))


@operation(
    "Get a webhook",
    tag=TAG,
    action=Action.SEE_WEBHOOKS,
    answers={200: Answer("The endpoint.", WebhookBody)},
    errors=(WebhookNotFound,),
)
async def get_webhook(request: Request) -> Reply:
    """The endpoint, and how it stands."""
    return json_reply(_webhook_body(await _webhooks(request).get(request.path("webhook"))))


@operation(
    "List deliveries",
    tag=TAG,
    action=Action.SEE_WEBHOOKS,
    query=HistoryListing,
    answers={200: Answer("A page of deliveries.", DeliveriesBody)},
    errors=(WebhookNotFound,),
)
async def list_deliveries(request: Request) -> Reply:
    """
    What became of messages lately, the newest first: as many as `webhooks.keep_deliveries` and `webhooks.keep_for` say.

    What still waits is not among them; `figures` of the webhook count it.
    """
    query = cast("HistoryListing", request.query)
    wanted = Page(cursor=query.cursor, limit=query.limit)
    with following(query.cursor):
        page = await _webhooks(request).deliveries(request.path("webhook"), wanted)
    return json_reply(DeliveriesBody([_delivery_body(each) for each in page.deliveries], page.next_cursor))


@operation(
    "Enable a webhook",
    tag=TAG,
    action=Action.CHANGE_WEBHOOKS,
    answers={200: Answer("Messages are sent to it.", WebhookBody)},
    errors=(WebhookNotFound,),
)
async def enable_webhook(request: Request) -> Reply:
    """
    Send to an endpoint again that was disabled because it answered 410, on all nodes within a second.

    Events of the time in which it was disabled are not sent. One that is enabled stays as it is.
    """
    return json_reply(_webhook_body(await _webhooks(request).enable(request.path("webhook"))))


@operation(
    "Replay a delivery",
    tag=TAG,
    action=Action.CHANGE_WEBHOOKS,
    answers={202: Answer("It will be sent once more; this is what became of it before.", DeliveryBody)},
    errors=(WebhookNotFound, DeliveryNotFound),
)
async def replay_delivery(request: Request) -> Reply:
    """Send a message once more, under the same `webhook-id`; a document's content is that of the time of sending."""
    found = await _webhooks(request).replay(request.path("webhook"), request.path("delivery"))
    return json_reply(_delivery_body(found), 202)


def _webhooks(request: Request) -> WebhookService:
    check_sees_all(request.caller)
    return request.webhooks


def _webhook_body(status: WebhookStatus) -> WebhookBody:
    endpoint, disabled, figures = status.endpoint, status.disabled, status.figures
    return WebhookBody(
        name=endpoint.name,
        url=endpoint.shown_url,
        events=list(endpoint.events),
        documents=list(endpoint.documents),
        content=endpoint.content,
        disabled_at=None if disabled is None else disabled.at,
        disabled_reason=None if disabled is None else disabled.reason,
        figures=None
        if figures is None
        else WebhookFiguresBody(**{name: getattr(figures, name) for name in WebhookFiguresBody.__struct_fields__}),
    )


def _delivery_body(delivery: Delivery) -> DeliveryBody:
    event = delivery.event
    return DeliveryBody(
        id=delivery.id,
        type=event.type,
        document=event.document if isinstance(event, DocumentEvent) else None,
        session_id=event.session_id,
        state=delivery.state,
        at=delivery.at,
        attempts=delivery.attempts,
        seconds=delivery.seconds,
        status=delivery.status,
        reason=delivery.reason,
    )
