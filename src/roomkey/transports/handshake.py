"""The opening handshake of RFC 6455, section 4.2, as bytes: reading the request, writing the answer."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

from roomkey.realtime.transport import Handshake, Refused
from roomkey.security.certificates import PeerCertificate
from roomkey.transports.handshake_gate import refusal

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_MAX_QUERY_PARAMETERS: Final = 100
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5: no CR, LF or NUL, so that nothing can be split


class UpgradeRequest(Struct, frozen=True):
    """A handshake that is well formed, and the two of its headers that are the transport's own business."""

    handshake: Handshake
    key: str
    extensions: str


class Unacceptable(Exception):
    """What arrived is no WebSocket handshake; ``refusal`` says why."""

    def __init__(self, refusal: Refused) -> None:
        super().__init__(refusal.status)
        self.refusal = refusal


def read_request(head: bytes, *, client_ip: str | None, secure: bool) -> UpgradeRequest:
    """
    Understand a request head that an HTTP parser has already accepted.

    Raises:
        Unacceptable: With the 400 or 426 to send.
    """
    lines = head.removesuffix(b"\r\n\r\n").decode("latin-1").split("\r\n")
    method, _, rest = lines[0].partition(" ")
    target, _, version = rest.rpartition(" ")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if method != "GET" or version != "HTTP/1.1":
        raise _malformed("A WebSocket is opened with GET and HTTP/1.1.")
    _check_upgrade(headers)
    return UpgradeRequest(
        handshake=describe(
            target, headers, subprotocols=_listed(headers, "sec-websocket-protocol"), client_ip=client_ip, secure=secure
        ),
        key=headers["sec-websocket-key"],
        extensions=headers.get("sec-websocket-extensions", ""),
    )


def describe(
    target: str,
    headers: Mapping[str, str],
    *,
    subprotocols: Iterable[str],
    client_ip: str | None,
    secure: bool,
    certificate: PeerCertificate | None = None,
) -> Handshake:
    """
    A request target and headers as the handshake handler sees them.

    Raises:
        Unacceptable: If the target is not the address of anything.
    """
    try:
        if not target.startswith("/"):  # RFC 9112, 3.2.2: the absolute form is allowed
            parts = urlsplit(target)
            if not parts.netloc:
                raise _malformed("The request target is not an address.")
            target = f"{parts.path or '/'}?{parts.query}"
        raw_path, _, query = target.partition("?")
        path = unquote(raw_path, errors="strict")
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_QUERY_PARAMETERS)
    except ValueError as error:
        raise _malformed("The request target is not an address.") from error
    return Handshake(
        path=path,
        raw_path=raw_path,
        query=dict(reversed(pairs)),  # of a repeated parameter the first counts
        headers=headers,
        subprotocols=tuple(subprotocols),
        client_ip=client_ip,
        secure=secure,
        certificate=certificate,
    )


def _check_upgrade(headers: Mapping[str, str]) -> None:
    if "host" not in headers or "websocket" not in (name.lower() for name in _listed(headers, "upgrade")):
        raise _malformed("Host or Upgrade is missing.")
    if "upgrade" not in (option.lower() for option in _listed(headers, "connection")):
        raise _malformed("Connection does not ask for the upgrade.")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise _malformed("A handshake has no body.")
    if headers.get("sec-websocket-version") != "13":
        raise Unacceptable(
            refusal(
                HTTPStatus.UPGRADE_REQUIRED,
                "unsupported_version",
                "This server speaks version 13 of the WebSocket protocol.",
                ("sec-websocket-version", "13"),
            )
        )
    try:
        key = base64.b64decode(headers.get("sec-websocket-key", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed("Sec-WebSocket-Key is not base64.") from error
    if len(key) != 16:
        raise _malformed("Sec-WebSocket-Key is not 16 bytes long.")


def _listed(headers: Mapping[str, str], name: str) -> list[str]:
    return [item for part in headers.get(name, "").split(",") if (item := part.strip(" \t"))]


def _malformed(detail: str) -> Unacceptable:
    return Unacceptable(refusal(HTTPStatus.BAD_REQUEST, "malformed", detail))


def accepted(
    request: UpgradeRequest, *, subprotocol: str | None, extensions: str | None, headers: Iterable[tuple[str, str]]
) -> bytes:
    """
    The 101.

    Raises:
        ValueError: If a header is not safe to send.
    """
    accept = base64.b64encode(hashlib.sha1(request.key.encode() + _GUID, usedforsecurity=False).digest()).decode()
    own = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", accept)]
    if subprotocol is not None:
        if subprotocol not in request.handshake.subprotocols:
            raise ValueError("a subprotocol that the client did not offer")  # RFC 6455, 4.2.2: it would hang up
        own.append(("sec-websocket-protocol", subprotocol))
    if extensions is not None:
        own.append(("sec-websocket-extensions", extensions))
    return _head(HTTPStatus.SWITCHING_PROTOCOLS, [*own, *headers])


def refused(answer: Refused) -> bytes:
    """
    The whole response, after which the connection closes.

    Raises:
        ValueError: If a header is not safe to send.
    """
    framing = [("content-length", str(len(answer.body))), ("connection", "close")]
    return _head(HTTPStatus(answer.status), [*answer.headers, *framing]) + answer.body


def _head(status: HTTPStatus, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"the response header {name!r} is not safe to send")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
