"""An issuer of tokens, as an OpenID provider is one: its keys, what it signs, and a server that shows the keys."""

import threading
from base64 import urlsafe_b64encode
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from roomkey.issuers.settings import Issuer
from roomkey.testing.clock import ManualClock

NAME = "https://login.example.com/"
AUDIENCE = "roomkey"


def new_key(kind: str = "EC", id: str = "first", **more: Any) -> Key:
    """A key pair."""
    parameters: Any = {"kid": id, **more}
    match kind:
        case "RSA":
            return RSAKey.generate_key(2048, parameters)
        case "OKP":
            return OKPKey.generate_key("Ed25519", parameters)
        case "oct":
            return OctKey.generate_key(256, parameters)
        case _:
            return ECKey.generate_key("P-256", parameters)


def key_set(*keys: Key) -> bytes:
    """The public halves as a JWK set."""
    return msgspec.json.encode({"keys": [key.as_dict(private=False) for key in keys]})


class Provider:
    """Signs tokens with ``key``, and writes its set into a file."""

    def __init__(self, folder: Path, clock: ManualClock, key: Key | None = None) -> None:
        self.key = key or new_key()
        self.clock = clock
        self.file = folder / "keys.json"
        self.file.write_bytes(key_set(self.key))

    def issuer(self, **settings: Any) -> Issuer:
        everything: dict[str, Any] = {"issuer": NAME, "audience": AUDIENCE, "key_set": str(self.file), **settings}
        return Issuer(**everything)

    def claims(self, user: str = "alice", **more: Any) -> dict[str, Any]:
        now = self.clock.now()
        usual = {"iss": NAME, "aud": AUDIENCE, "sub": user, "iat": stamp(now), "exp": stamp(now + timedelta(hours=1))}
        return {name: value for name, value in {**usual, **more}.items() if value is not None}

    def token(self, user: str = "alice", *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A token; a claim that is ``None`` is left out."""
        return self.signed(self.claims(user, **claims), header)

    def signed(self, payload: object, header: Mapping[str, Any] | None = None, key: Key | None = None) -> str:
        key = key or self.key
        algorithm = {"RSA": "RS256", "OKP": "Ed25519", "oct": "HS256"}.get(key.key_type, "ES256")
        protected: Any = {"alg": algorithm, "kid": key.get("kid"), **(header or {})}
        protected = {name: value for name, value in protected.items() if value is not None}
        # By hand, because libraries refuse to sign what they would refuse to read.
        signed = f"{in_base64(msgspec.json.encode(protected))}.{in_base64(msgspec.json.encode(payload))}"
        signature = JWSRegistry.algorithms[algorithm].sign(signed.encode(), key)
        return f"{signed}.{in_base64(signature)}"


def in_base64(content: bytes) -> str:
    """As parts of tokens are written."""
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def stamp(moment: datetime) -> int:
    """Seconds, as tokens have them."""
    return int(moment.timestamp())


class KeyServer:
    """Answers every request with ``status`` and ``content``, and counts them."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.content = b""
        self.headers: dict[str, str] = {}
        self.asked = 0


@contextmanager
def key_server(content: bytes = b"") -> Generator[KeyServer]:
    """One on a free port."""
    server = KeyServer()
    server.content = content

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked += 1
            self.send_response(server.status)
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(server.content)))
            self.end_headers()
            self.wfile.write(server.content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listener.server_port}/keys"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
