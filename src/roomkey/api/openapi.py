"""The OpenAPI 3.1 document: made from the contracts that the operations are checked by, and shown as a page."""

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from importlib.metadata import version
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from roomkey import errors, problems
from roomkey.api import access, docs_page, document_schemas, groups, key_schemas, login, schemas, webhooks
from roomkey.api.operations import Answer, Description, Operation, Publication
from roomkey.domain.access import Access
from roomkey.domain.policy import SessionPolicy
from roomkey.security.authorization import ANYONE, EVERY_KEY, KEYS, SENSITIVE, SESSIONS_EVEN_PENDING, CallerKind, Rule
from roomkey.security.credentials import COOKIE

Json = dict[str, Any]
Contracts = Mapping[str, Mapping[str, Operation]]

SERVER: Final = "/"
"""Where the paths begin, if a server knows nothing else: at the root of the place where the document was found."""

DESCRIPTION: Final = f"""\
Sessions for real-time collaborative editing: issued here, used on sockets, and ended everywhere at once.

**Who is calling.** Backends and operators present an API key, `Authorization: Bearer rkey_…`; devices present \
the token of their session, as a bearer token, in `X-Session-ID`, or in the cookie `{COOKIE}` (from pages of \
an allowed origin). A credential that is presented must be good, even where none is needed. What you may not see \
is answered like what does not exist.

**Errors** are RFC 9457 problems. Go by `code`, which never changes its meaning.

**Optimistic updates.** Answers about one session or document have its version as their `ETag`. Sent back in \
`If-Match`, it makes a change happen only if nobody was faster; else the answer is 412.

**Repeating safely.** A POST with an `Idempotency-Key` (1 to 255 visible ASCII characters) is done once: sent again \
within a day, it gets the same answer with `Idempotent-Replayed: true`. With another body it is refused (422), and \
while the first is being answered, too (409). The answers are kept in the memory of one process, tokens included, \
and nowhere else.
"""

TAGS: Final = {
    "Sessions": "Create, read and remove sessions.",
    "Transitions": "Move a session through its life. Asking for what already holds changes nothing and is no error.",
    "My session": "What the holder of a session can do with it.",
    "Users": "All sessions of one user.",
    "Documents": "What people edit together, read and written by programs. A change is that of one more collaborator.",
    "Connections": "Who has a document open by a socket, and disconnecting them. No right is taken by that.",
    "Versions": "States of a document that are kept.",
    "Access": "Who may do what in which document, and why; and having the application asked again.",
    "Groups": "Grants that many sessions have in common, who name the group in theirs.",
    "Keys": "API keys, with which backends and operators say who they are.",
    "Webhooks": "What happens, told to other programs: where, how that goes, and telling it once more.",
    "Audit log": "What happened, as files that outsiders can verify, and receipts for single entries.",
    "Service": "How the service is doing, and this document.",
}

PUBLIC_NAMES: Final = {
    "SessionBody": "Session",
    "IssuedBody": "IssuedSession",
    "RotatedBody": "RotatedSession",
    "InvalidatedBody": "InvalidatedSession",
    "PageBody": "SessionPage",
    "LoggedInBody": "LoggedIn",
    "RevokedBody": "Revocation",
    "TicketBody": "Ticket",
    "HealthBody": "HealthStatus",
    "ProbeBody": "Probe",
    "BatchBody": "BatchOutcome",
    "RecheckedBody": "Recheck",
    "AccessBody": "AccessOfUser",
    "SessionAccessBody": "AccessOfSession",
    "DocumentBody": "Document",
    "DocumentPageBody": "DocumentPage",
    "VersionBody": "Version",
    "AuthorBody": "Author",
    "VersionPageBody": "VersionPage",
    "DifferenceBody": "Difference",
    "BlameBody": "Blame",
    "RangeBody": "BlameRange",
    "AuditKeysBody": "AuditKeys",
    "AuditEntryBody": "AuditEntry",
    "AuditPageBody": "AuditPage",
    "AuditReportBody": "AuditReport",
    "ConnectedBody": "ConnectedSession",
    "ConnectedPageBody": "ConnectedPage",
    "ConnectionBody": "Connection",
    "DisconnectedBody": "Disconnection",
    "EventBody": "SessionEvent",
    "HistoryBody": "SessionHistory",
    "ReasonBody": "Reason",
    "RiskBody": "Risk",
    "SignalBody": "Signal",
    "ViolationBody": "Violation",
    "GrantInput": "NewGrant",
    "GroupBody": "Group",
    "GroupPageBody": "GroupPage",
    "GroupGrantInput": "GroupGrant",
    "GroupInput": "NewGroup",
    "ClientInput": "NewClient",
    "WebhookBody": "Webhook",
    "WebhooksBody": "WebhookList",
    "WebhookFiguresBody": "WebhookFigures",
    "DeliveryBody": "Delivery",
    "DeliveriesBody": "DeliveryPage",
    "KeyBody": "Key",
    "KeysBody": "KeyList",
    "MintedKeyBody": "MintedKey",
    "NarrowingBody": "Narrowing",
    "NarrowingInput": "NewNarrowing",
}
"""How outsiders call what has another name among us."""

EXAMPLES: Final[Mapping[type[Struct], Any]] = {
    schemas.NewSession: {
        "user_id": "alice",
        "client": {"ip": "203.0.113.7", "device": "Alice's laptop"},
        "grants": [{"documents": "notes/**", "access": "write"}],
        "metadata": {"theme": "dark"},
        "activate": True,
    },
    schemas.Batch: {"create": [{"user_id": "alice"}, {"user_id": "bob", "lifetime": 3600}]},
    login.Credentials: {"token": "a7kq3v5zt2mjc4nxw6ye3rf5hbgd.Yt0b6nGyVJ2sQK1xLr8uWmC4eDpFaHoZiX9vTqN7k3M"},
    schemas.ReasonBody: {"reason": "signed in elsewhere"},
    schemas.Extension: {"lifetime": 3600},
    groups.GroupInput: {"grants": [{"documents": "team-7/**", "access": "write"}]},
    schemas.Rights: {"grants": [{"documents": "notes/**", "access": "read"}]},
    key_schemas.NewKey: {"name": "indexer", "role": "service", "only": {"scopes": ["documents:read"]}},
    key_schemas.KeyRotation: {"overlap": 3600},
    document_schemas.NewVersionLabel: {"label": "before the meeting"},
    document_schemas.TextEdits: {"edits": [{"root": "content", "index": 5, "insert": ", world"}]},
}

SECURITY_SCHEMES: Final[Json] = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key, `rkey_…`, of a service or an operator."},
    "sessionToken": {"type": "http", "scheme": "bearer", "description": "The token of a session."},
    "sessionHeader": {"type": "apiKey", "in": "header", "name": "X-Session-ID", "description": "The same."},
    "sessionCookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "The same. Whatever changes something must come from a page of ours; see `X-CSRF-Token`.",
    },
    "dpop": {
        "type": "http",
        "scheme": "DPoP",
        "description": "The token of a session that is bound to a key (RFC 9449).",
    },
}

# These speak of earlier requests: whether a value is right depends on what happened, not on its form. So no test draws
# them, see tests/support/contract_hooks.py; generated clients are given them as optional arguments.
STANDING_HEADERS: Final[Json] = {
    "If-Match": {
        "name": "If-Match",
        "in": "header",
        "description": "Change it only if this is its version; `ETag` of an earlier answer, or `*`.",
        "schema": {"type": "string"},
        "example": '"3"',
    },
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Any request with the same key and the same body gets the same answer, for a day.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
        "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
    },
}

_BYTES: Final[Json] = {"type": "string", "format": "binary"}

_ETAG: Final[Json] = {
    "description": "The version of the session.",
    "required": True,
    "schema": {"type": "string", "pattern": '^"[0-9]+"$'},
}

_STANDING: Final[Json] = {
    "ETag": {
        "description": "The lineage and the version of the document.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[^"]+\\.[0-9]+"$'},
    },
    "Roomkey-Lineage": {
        "description": "The id of its history: a document that was deleted and made anew has another one.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Roomkey-Sequence": {
        "description": "How many updates it was ever given.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
}

_ACCESS: Final[Json] = {
    "Roomkey-Access": {
        "description": "What the caller may do in the document. Not for keys that read no documents.",
        "schema": {"enum": [str(access) for access in Access]},
    },
}


def describe(contracts: Contracts, policy: SessionPolicy, *, dev: bool = False) -> Json:
    """
    The document of ``contracts`` as a server with this policy keeps them, without where that server is.

    With ``dev`` it says that no credential is needed where an API key is.
    """
    description = {
        "openapi": "3.1.0",
        "info": {
            "title": "Roomkey",
            "version": version("roomkey"),
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": {
            _public_path(path): {
                method.lower(): _operation(path, operation, dev=dev) for method, operation in methods.items()
            }
            for path, methods in contracts.items()
        },
        "components": {
            "schemas": _schemas(contracts, policy),
            "examples": {
                error.code: {"value": msgspec.to_builtins(problems.example(error))} for error in problems.PRESENTATIONS
            },
            "securitySchemes": SECURITY_SCHEMES,
            "parameters": {name.replace("-", ""): parameter for name, parameter in STANDING_HEADERS.items()},
        },
    }
    return _told_plainly(description)


def publication(openapi: Json, asyncapi: Json) -> Publication:
    """What is served at ``/openapi.json``, ``/asyncapi.json`` and ``/docs``."""
    page = docs_page.page()
    return Publication(_encoded(openapi), _encoded(asyncapi), page.encode(), docs_page.policy_of(page))


def _encoded(description: Json) -> Description:
    content = msgspec.json.encode(description)
    return Description(content, b'"%b"' % sha256(content).hexdigest()[:32].encode())


def _public_path(path: str) -> str:
    return path.replace(":path}", "}")


def _operation(path: str, operation: Operation, *, dev: bool) -> Json:
    described: Json = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": f"{operation.description}\n\n{access.in_words(operation.rule)}",
        "x-roomkey-access": {str(kind): str(extent) for kind, extent in access.extents(operation.rule).items()},
        "security": _security(operation, dev=dev),
        "responses": {str(status): response for status, response in sorted(_responses(operation).items())},
    }
    if operation.rule.scope is not None:
        described["x-roomkey-scope"] = str(operation.rule.scope)
    if parameters := _parameters(path, operation):
        described["parameters"] = parameters
    contents = {"application/json": operation.body} if operation.body is not None else operation.contents
    if contents:
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {media: _content(kind) for media, kind in contents.items()},
        }
    return described


def _content(kind: Any) -> Json:
    if kind is bytes:
        return {"schema": dict(_BYTES)}
    described: Json = {"schema": _input(kind)}
    if isinstance(kind, type) and kind in EXAMPLES:
        described["example"] = EXAMPLES[kind]
    return described


def _input(kind: Any) -> Json:
    (schema,), _ = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    return _renamed(schema)


def _security(operation: Operation, *, dev: bool) -> list[Json]:
    if operation.rule.is_public:
        return []
    who = operation.rule.who
    needed: list[Json] = []
    if who is ANYONE or (dev and who & KEYS):
        needed.append({})
    if who & EVERY_KEY:
        needed.append({"apiKey": []})
    if who & SESSIONS_EVEN_PENDING:
        needed += [{"sessionToken": []}, {"sessionHeader": []}, {"sessionCookie": []}, {"dpop": []}]
    return needed


def _parameters(path: str, operation: Operation) -> list[Json]:
    kinds = {
        "id": schemas.SessionIdText,
        "user_id": schemas.UserId,
        "name": document_schemas.DocumentName,
        "number": document_schemas.VersionNumber,
        "key_name": key_schemas.KeyName,
        "group": schemas.GroupName,
        "index": schemas.EntryIndex,
        "file": schemas.LogFile,
        "webhook": webhooks.WebhookName,
        "delivery": webhooks.DeliveryId,
    }
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": _schema(kinds[name])}
        for name in re.findall(r"{(\w+)", path)
    ]
    if operation.query is not None:
        parameters += _query_parameters(operation.query)
    if 304 in operation.answers:
        parameters.append(
            {
                "name": "If-None-Match",
                "in": "header",
                "description": "Answer 304 if this is still the version.",
                "schema": {"type": "string"},
            }
        )
    obeyed = (("IfMatch", operation.conditional), ("IdempotencyKey", operation.idempotent))
    parameters += [{"$ref": f"#/components/parameters/{name}"} for name, obeys in obeyed if obeys]
    return parameters


def _query_parameters(kind: type[Struct]) -> list[Json]:
    _, components = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    properties = cast("Json", components[kind.__name__]["properties"])
    parameters: list[Json] = []
    for name, schema in properties.items():
        # What is optional in a query is left out; there is no null in it.
        some = [choice for choice in schema.get("anyOf", [schema]) if choice.get("type") != "null"]
        described: Json = dict(some[0]) if len(some) == 1 else {"anyOf": some}
        parameter: Json = {"name": name, "in": "query", "schema": described}
        if text := described.pop("description", None):
            parameter["description"] = text
        if schema.get("default") is not None:
            described["default"] = schema["default"]
        parameters.append(parameter)
    return parameters


def _responses(operation: Operation) -> dict[int, Json]:
    responses = {status: _answer(answer, operation.rule) for status, answer in operation.answers.items()}
    grouped: dict[int, list[type[errors.RoomkeyError]]] = {}
    for error in _errors(operation):
        grouped.setdefault(problems.PRESENTATIONS[error].status, []).append(error)
    for status, kinds in grouped.items():
        problem = _problem(kinds)
        if status in responses:
            responses[status]["content"] |= problem["content"]
        else:
            responses[status] = problem
    responses[500] = _problem([errors.Internal, errors.Serialization])
    return responses


def _answer(answer: Answer, rule: Rule) -> Json:
    response: Json = {"description": answer.description}
    headers: Json = {} if rule.access is None else dict(_ACCESS)
    if answer.etag:
        headers["ETag"] = _ETAG
    if answer.revision:
        headers |= _STANDING
    if answer.location:
        headers["Location"] = {"description": "What was made.", "required": True, "schema": {"type": "string"}}
    if headers:
        response["headers"] = headers
    content: Json = {media: _form(media) for media in answer.media}
    if answer.body is not None:
        content["application/json"] = {"schema": _reference(answer.body.__name__)}
    if content:
        response["content"] = content
    if answer.body is schemas.IssuedBody:
        response["links"] = _links()
    return response


def _form(media: str) -> Json:
    if media == "application/json":
        return {"schema": {"type": "object"}}
    return {"schema": {"type": "string"} if media.startswith("text/") else dict(_BYTES)}


def _links() -> Json:
    """What can be done with a session that was created."""
    follow_ups = ("get_session", "activate", "suspend", "resume", "extend", "rotate", "invalidate", "delete_session")
    return {name: {"operationId": name, "parameters": {"id": "$response.body#/session/id"}} for name in follow_ups}


def _errors(operation: Operation) -> Iterable[type[errors.RoomkeyError]]:
    """Everything that can be wrong with a request, each once."""
    kinds: list[type[errors.RoomkeyError]] = [errors.MalformedRequest, errors.RateLimited, errors.Storage]
    who = operation.rule.who
    if not operation.rule.is_public:
        kinds += [errors.InvalidToken, errors.TokenRotated, errors.TokenReused]
        kinds += [errors.HolderUnproven, errors.InvalidProof, errors.NonceNeeded]
        kinds += [errors.Suspended, errors.Expired, errors.Invalidated]
    if operation.action in SENSITIVE:
        kinds.append(errors.ReauthenticationNeeded)
    if who is not ANYONE:
        kinds += [errors.CredentialsMissing, errors.Forbidden]
        if CallerKind.SESSION in who and CallerKind.PENDING not in who:
            kinds.append(errors.SessionPending)
    if operation.body is not None or operation.contents:
        kinds += [errors.RequestTimeout, errors.BodyTooLarge, errors.UnsupportedMediaType, errors.InvalidInput]
    if operation.rule.access is not None:
        kinds += [errors.InvalidInput, errors.DocumentNotFound, errors.AccessUnknown]
    if operation.query is not None:
        kinds.append(errors.InvalidInput)
    if operation.idempotent:
        kinds += [errors.RequestInProgress, errors.IdempotencyKeyReused]
    return dict.fromkeys([*kinds, *operation.errors])


def _problem(kinds: Iterable[type[errors.RoomkeyError]]) -> Json:
    shown = {kind.code: problems.PRESENTATIONS[kind] for kind in kinds}
    response: Json = {
        "description": "; ".join(f"{kind.title} (`{code}`)" for code, kind in shown.items()) + ".",
        "content": {
            problems.MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in shown},
            }
        },
    }
    statuses = {kind.status for kind in shown.values()}
    if 401 in statuses:
        challenge = {"description": "RFC 6750.", "required": True, "schema": {"type": "string"}}
        response["headers"] = {"WWW-Authenticate": challenge}
    elif 429 in statuses:
        response["headers"] = _TO_THE_HASTY
    elif any(name == "retry-after" for kind in shown.values() for name, _ in kind.headers):
        seconds = {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}}
        response["headers"] = {"Retry-After": seconds}
    return response


_TO_THE_HASTY: Final[Json] = {
    "Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "integer", "minimum": 1}},
    "RateLimit-Policy": {
        "description": "The budget that is empty: its quota, and in how many seconds it is refilled"
        " (draft-ietf-httpapi-ratelimit-headers). Every answer names the budget that it was charged to.",
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": "What remains of it, and in how many seconds all of it does.",
        "schema": {"type": "string"},
    },
}


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{_public_name(name)}"}


def _schema(kind: Any) -> Json:
    return msgspec.json.schema(kind)


def _schemas(contracts: Contracts, policy: SessionPolicy) -> Json:
    operations = [operation for methods in contracts.values() for operation in methods.values()]
    kinds = {operation.body for operation in operations if operation.body is not None}
    kinds |= {answer.body for operation in operations for answer in operation.answers.values() if answer.body}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    contents = [kind for operation in operations for kind in operation.contents.values()]
    _, components = msgspec.json.schema_components(
        [*ordered, *contents, problems.Problem, schemas.SessionState], ref_template="#/components/schemas/{name}"
    )
    renamed = {
        _public_name(name): _renamed(schema) | {"title": _public_name(name)} for name, schema in components.items()
    }
    for schema in renamed.values():
        for field in schema.get("properties", {}).values():
            # Generators of clients take what has a default for always there, and then demand it in requests.
            field.pop("default", None)
    for name in ("NewSession", "Extension"):
        longest = int(policy.lifetime.total_seconds())
        renamed[name]["properties"]["lifetime"]["anyOf"][0] |= {"type": "integer", "maximum": longest}
    for name, field in (("NewKey", "lifetime"), ("KeyRotation", "overlap")):
        renamed[name]["properties"][field]["anyOf"][0]["type"] = "integer"
    _let_one_be_given(renamed["Credentials"])
    renamed["Problem"]["properties"]["code"]["enum"] = list(problems.CODES)
    return dict(sorted(renamed.items()))


def _let_one_be_given(schema: Json) -> None:
    """Exactly one of the properties stands in such an object, and is not null."""
    for name, field in schema["properties"].items():
        schema["properties"][name] = field["anyOf"][0]
    schema["minProperties"] = schema["maxProperties"] = 1


def _told_plainly(value: Any) -> Any:
    """
    ``value`` with what follows from a schema written out, and without what says nothing.

    Generators of clients look for a ``type`` and for the ``items`` of an array, and some know no schema but objects.
    """
    if isinstance(value, list):
        return [_told_plainly(item) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    schema = {key: _told_plainly(item) for key, item in cast("Json", value).items()}
    if isinstance(schema.get("enum"), list) and "type" not in schema:
        schema = {"type": "string", **schema}
    if isinstance(names := schema.get("propertyNames"), dict):
        schema["propertyNames"] = {"type": "string", **cast("Json", names)}
    if schema.get("type") == "object" and not {"properties", "additionalProperties"} & schema.keys():
        schema["additionalProperties"] = True  # else a type of TypeScript for objects that have nothing in them
    if "prefixItems" in schema and schema.get("items") is False:
        del schema["items"]  # `maxItems` says it already
    if schema.get("type") == "array" and not {"items", "prefixItems"} & schema.keys():
        schema["items"] = {}
    return schema


def _public_name(name: str) -> str:
    return PUBLIC_NAMES.get(name, name)


def _renamed(value: Any) -> Any:
    """``value`` with references to the names that outsiders know."""
    if isinstance(value, list):
        return [_renamed(item) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    return {
        key: _reference(item.rpartition("/")[2])["$ref"] if key == "$ref" else _renamed(item)
        for key, item in cast("Json", value).items()
    }
