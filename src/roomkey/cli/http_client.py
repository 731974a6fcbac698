"""
A client that speaks HTTP to a running server.

It is httpcore's HTTP, not that of httpx, which stands on it: httpx loads its own command line with all that this prints
with, and a command would wait longer for that than for its answer.
"""

import os
import ssl
from base64 import b64encode
from typing import Final, Self
from urllib.parse import SplitResult, quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore

from roomkey.cli.clients import Answer, Headers, Incoming, Request
from roomkey.errors import Storage

_NO_ANSWER: Final = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
    OSError,
)


class HttpClient:
    """Requests to the server at a URL, which may have a path; follows no redirects. Entered before it is used."""

    def __init__(self, url: str, headers: Headers) -> None:
        """
        By the proxy and with the authorities that the environment names.

        Raises:
            ValueError: If ``url`` is none of HTTP.
        """
        address = urlsplit(url)
        user, _, host = address.netloc.rpartition("@")
        if address.scheme not in ("http", "https") or not address.hostname or address.port == 0:
            raise ValueError("it begins with http:// or https:// and a host")
        netloc = host.encode("ascii" if host.isascii() else "idna").decode()
        self._address = address._replace(netloc=netloc, path=quote(address.path.rstrip("/"), safe="/%:@!$&'()*+,;="))
        self._headers = {"host": self._address.netloc, "user-agent": "roomkey", "accept": "*/*", **headers}
        if user:
            self._headers["authorization"] = f"Basic {b64encode(unquote(user).encode()).decode()}"
        self._pool = httpcore.AsyncConnectionPool(ssl_context=authorities(), proxy=_proxy(self._address))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_reason: object) -> None:
        await self._pool.aclose()

    async def call(self, request: Request) -> Answer:
        """See ``Client``."""
        answer = Incoming(request)
        extensions = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), request.seconds)}
        try:
            async with self._pool.stream(
                request.method,
                self._url(request.path),
                headers=[*{**self._headers, **request.headers}.items()],
                # RFC 9110, 8.6: where a body could be, its absence is said.
                content=b"" if request.content is None and request.method in ("POST", "PUT") else request.content,
                extensions=extensions,
            ) as response:
                answer.begin(response.status, response.headers)
                async for part in response.aiter_stream():
                    answer.add(part)
        except _NO_ANSWER as error:
            raise Storage(f"no answer from {self._address.geturl()}: {str(error) or type(error).__name__}") from error
        return answer.whole()

    def _url(self, path: str) -> httpcore.URL:
        address = self._address
        return httpcore.URL(
            scheme=address.scheme,
            host=address.hostname or "",
            port=address.port,
            target=address.path + path,
        )


def authorities() -> ssl.SSLContext | None:
    """Those of SSL_CERT_FILE and SSL_CERT_DIR and no others; ``None``: those of this machine and of certifi."""
    file, directory = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    return ssl.create_default_context(cafile=file or None, capath=directory or None) if file or directory else None


def _proxy(address: SplitResult) -> httpcore.Proxy | None:
    proxies = getproxies()
    url = proxies.get(address.scheme) or proxies.get("all")
    if not url or proxy_bypass(address.netloc):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    user = (unquote(parts.username or ""), unquote(parts.password or ""))
    return httpcore.Proxy(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), user if any(user) else None)
