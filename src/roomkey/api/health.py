"""What the service says about itself: how it is doing, and what it promises."""

import msgspec

from roomkey.api import openapi
from roomkey.api.http_messages import HTML, Reply, json_reply, matches_etag
from roomkey.api.operations import Answer, Description, Request, operation
from roomkey.api.schemas import HealthBody, ProbeBody
from roomkey.errors import Draining, Storage
from roomkey.security.authorization import Action, permits


@operation(
    "Health",
    tag="Service",
    action=Action.SEE_HEALTH,
    answers={
        200: Answer("It works.", HealthBody),
        503: Answer("Sessions cannot be read or changed.", HealthBody),
    },
)
async def health(request: Request) -> Reply:
    """How the service is doing. Figures and the state of its parts are shown to administrators only."""
    status = await request.services.health.status()
    body = HealthBody(status=status.status, timestamp=status.timestamp)
    if permits(request.caller, Action.SEE_FIGURES):
        body = HealthBody(
            status=status.status,
            timestamp=status.timestamp,
            sessions_count=status.sessions_count,
            memory_usage=status.memory_usage,
            checks=status.checks,
        )
    return json_reply(body, 503 if status.status == "unhealthy" else 200)


@operation(
    "Is it alive?", tag="Service", action=Action.SEE_PUBLIC, answers={200: Answer("The process answers.", ProbeBody)}
)
async def live(request: Request) -> Reply:  # noqa: ARG001  # there is nothing to look at
    """Whether the process answers at all. If not, restart it."""
    return json_reply(ProbeBody("alive"))


@operation(
    "Is it ready?",
    tag="Service",
    action=Action.SEE_PUBLIC,
    answers={200: Answer("Send requests.", ProbeBody)},
    errors=(Storage, Draining),
)
async def ready(request: Request) -> Reply:
    """Whether requests should be sent here: the storage answers, and the server is not about to stop."""
    if request.services.draining():
        raise Draining("the server is about to stop")
    await request.services.health.check_readiness()
    return json_reply(ProbeBody("ready"))


@operation(
    "The OpenAPI document",
    tag="Service",
    action=Action.SEE_PUBLIC,
    answers={
        200: Answer("This document, in OpenAPI 3.1.", media=("application/json",)),
        304: Answer("It has not changed."),
    },
)
async def openapi_json(request: Request) -> Reply:
    """What the interface promises, for machines."""
    description = request.services.publication.openapi
    # Mounted in another application, all paths are below the place where the document was found.
    server = msgspec.json.encode(request.public_url or request.root or openapi.SERVER)
    return _described(request, description, b'{"servers":[{"url":%b}],' % server + description.content[1:])


@operation(
    "The AsyncAPI document",
    tag="Service",
    action=Action.SEE_PUBLIC,
    answers={
        200: Answer("The document, in AsyncAPI 3.0.", media=("application/json",)),
        304: Answer("It has not changed."),
    },
)
async def asyncapi_json(request: Request) -> Reply:
    """What is said on the sockets, and what the application is asked and told, for machines."""
    description = request.services.publication.asyncapi
    return _described(request, description, description.content)


def _described(request: Request, description: Description, body: bytes) -> Reply:
    headers = [(b"etag", description.tag), (b"cache-control", b"no-cache")]
    if matches_etag(request.headers.get("if-none-match"), description.tag):
        return Reply(304, b"", headers)
    return Reply(200, body, [(b"content-type", b"application/json"), *headers])


@operation(
    "The documentation",
    tag="Service",
    action=Action.SEE_PUBLIC,
    answers={200: Answer("A page for people.", media=("text/html",))},
)
async def docs(request: Request) -> Reply:
    """What the interface promises, for people. The page loads nothing from elsewhere."""
    publication = request.services.publication
    return Reply(
        200,
        publication.page,
        [
            HTML,
            (b"content-security-policy", publication.page_policy.encode()),
            (b"cache-control", b"no-cache"),
        ],
    )
