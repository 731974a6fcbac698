"""ASVS 4.4.1: sockets over TLS; certificates that are replaced while the server runs, and those of clients."""

import asyncio
import json
import signal
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from roomkey.config import ServerSettings
from roomkey.errors import ConfigurationError
from roomkey.security import apikeys
from roomkey.security.certificates import ClientCertificate, ClientCertificates, PeerCertificate, peer_certificate
from roomkey.tls import tls_context
from tests.support.certificates import Certificates, make_certificates
from tests.support.rest import Rest
from tests.support.server import RunningServer, running_server

BACKEND: Final = PeerCertificate(
    fingerprint="ab" * 32,
    thumbprint="A" * 43,
    subject="CN=backend,O=Example",
    names=("DNS:backend.example.com", "URI:spiffe://example.com/backend"),
)


# --- which key stands behind a certificate --------------------------------------------------------------


@pytest.mark.parametrize(
    "known",
    [
        ClientCertificate(key="backend", fingerprint="ab" * 32),
        ClientCertificate(key="backend", fingerprint=":".join(["AB"] * 32)),
        ClientCertificate(key="backend", subject="CN=backend,O=Example"),
        ClientCertificate(key="backend", name="URI:spiffe://example.com/backend"),
    ],
)
async def test_a_certificate_does_what_its_key_may(known: ClientCertificate) -> None:
    rest = Rest(certificates=[known])

    created = await rest.call("POST", "/sessions", json={"user_id": "alice"}, certificate=BACKEND)
    forbidden = await rest.call("GET", "/sessions/me", certificate=BACKEND)

    assert (created.status, forbidden.code) == (201, "forbidden")


@pytest.mark.parametrize(
    "known",
    [
        ClientCertificate(key="backend", fingerprint="cd" * 32),
        ClientCertificate(key="backend", subject="CN=backend"),
        ClientCertificate(key="backend", name="DNS:example.com"),
        ClientCertificate(key="nobody", fingerprint="ab" * 32),
    ],
)
async def test_a_certificate_that_leads_to_no_key_is_a_stranger(known: ClientCertificate) -> None:
    rest = Rest(certificates=[known])

    assert (
        await rest.call("POST", "/sessions", json={"user_id": "a"}, certificate=BACKEND)
    ).code == "credentials_missing"


async def test_a_certificate_that_is_two_is_nobody() -> None:
    rest = Rest(
        certificates=[
            ClientCertificate(key="backend", subject=BACKEND.subject),
            ClientCertificate(key="operator", name=BACKEND.names[0]),
        ]
    )

    assert (await rest.call("GET", "/sessions", certificate=BACKEND)).code == "credentials_missing"


async def test_a_credential_counts_more_than_the_certificate_beside_it() -> None:
    rest = Rest(certificates=[ClientCertificate(key="operator", subject=BACKEND.subject)])
    issued = await rest.session()

    assert (await rest.call("GET", "/sessions/me", token=issued.token, certificate=BACKEND)).status == 200
    assert (await rest.call("GET", "/sessions", token="wrong", certificate=BACKEND)).code == "invalid_token"


async def test_a_foreign_page_cannot_use_the_certificate_of_a_browser() -> None:
    rest = Rest(certificates=[ClientCertificate(key="backend", subject=BACKEND.subject)])
    headers = {"origin": "https://evil.example"}

    answer = await rest.call("POST", "/sessions", json={"user_id": "a"}, headers=headers, certificate=BACKEND)

    assert answer.code == "origin_rejected"


def test_a_name_cannot_pass_for_two_attributes() -> None:
    class Connection:
        def getpeercert(self, binary_form: bool = False) -> Any:  # noqa: FBT001, FBT002
            subject = ((("commonName", "backend,O=Example"),),)
            return b"certificate" if binary_form else {"subject": subject}

    shown = peer_certificate(Connection())

    assert shown is not None
    assert shown.subject == "CN=backend\\,O\\=Example"
    assert ClientCertificates([ClientCertificate(key="a", subject=BACKEND.subject)]).key_of(shown) is None


@pytest.mark.parametrize(
    "known", [{}, {"name": "a", "subject": "b"}, {"fingerprint": "short"}, {"fingerprint": "g" * 64}]
)
def test_a_certificate_is_known_by_one_thing(known: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="fingerprint"):
        ClientCertificate(key="backend", **known)


def test_two_keys_behind_one_certificate_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="two keys"):
        ClientCertificates([ClientCertificate(key=key, subject="CN=a") for key in ("one", "other")])


# --- contexts -------------------------------------------------------------------------------------------


def settings_of(made: Certificates, **more: Any) -> ServerSettings:
    return ServerSettings(tls_cert=made.certificate, tls_key=made.key, **more)


def test_nothing_older_than_tls_1_2_and_no_cipher_without_forward_secrecy(tmp_path: Path) -> None:
    context = tls_context(settings_of(make_certificates(tmp_path)))

    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    names = [cipher["name"] for cipher in context.get_ciphers()]
    assert names
    assert all(name.startswith("TLS_") or (name.startswith("ECDHE") and "SHA1" not in name) for name in names)
    assert all("GCM" in name or "CHACHA20" in name for name in names)


@pytest.mark.parametrize("damage", ["missing", "nonsense", "of another", "authority"])
def test_files_that_cannot_be_used_are_named(tmp_path: Path, damage: str) -> None:
    made = make_certificates(tmp_path)
    match damage:
        case "missing":
            made.key.unlink()
        case "nonsense":
            made.certificate.write_text("nonsense")
        case "authority":
            made.authority.write_text("nonsense")
        case _:
            made.key.write_bytes(made.client_key.read_bytes())

    with pytest.raises(ConfigurationError, match=r"server\.tls_"):
        tls_context(settings_of(made, tls_client_ca=made.authority))


# --- a server -------------------------------------------------------------------------------------------


def trusting(made: Certificates, *, shown: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=made.authority)
    if shown is not None:
        context.load_cert_chain(shown, key)
    return context


async def get(server: RunningServer, context: ssl.SSLContext, path: str = "/health/live") -> int:
    async with httpx.AsyncClient(base_url=server.url, verify=context) as client:
        return (await client.get(path)).status_code


async def is_alive(socket: ClientConnection) -> bool:
    await socket.send(json.dumps({"message_type": "subscribe", "id": "1", "payload": {"document": "plan"}}))
    async with asyncio.timeout(10):
        while json.loads(await socket.recv()).get("message_type") != "subscribed":
            pass
    return True


async def told(server: RunningServer, event: str, *, times: int) -> None:
    async with asyncio.timeout(30):
        while server.errors.count(event) < times:  # noqa: ASYNC110  # a file of another process tells nobody
            await asyncio.sleep(0.01)


async def renewed_under_way(
    server: RunningServer, made: Certificates, workers: int, headers: Sequence[tuple[str, str]]
) -> None:
    former = trusting(made, shown=made.client_certificate, key=made.client_key)
    async with connect(server.websocket_url, ssl=former, additional_headers=dict(headers)) as socket:
        make_certificates(made.authority.parent)
        current = trusting(made, shown=made.client_certificate, key=made.client_key)

        server.process.send_signal(signal.SIGHUP)
        await told(server, "certificates_reloaded", times=workers)

        assert await get(server, current) == 200
        with pytest.raises(httpx.TransportError):
            await get(server, former)
        assert await is_alive(socket)

        made.certificate.write_text("nonsense")
        server.process.send_signal(signal.SIGHUP)
        await told(server, "certificates_not_reloaded", times=workers)

        assert await get(server, current) == 200
        assert await is_alive(socket)

        make_certificates(made.authority.parent)
        server.process.send_signal(signal.SIGHUP)
        await told(server, "certificates_reloaded", times=2 * workers)

        assert await get(server, trusting(made, shown=made.client_certificate, key=made.client_key)) == 200
        assert await is_alive(socket)


@pytest.mark.parametrize("workers", [1, 2])
async def test_certificates_are_replaced_while_connections_go_on(tmp_path: Path, workers: int) -> None:
    made = make_certificates(tmp_path)
    _, digest = apikeys.mint()
    (tmp_path / "roomkey.toml").write_text(
        f"""
        [server]
        workers = {workers}
        tls_cert = "{made.certificate}"
        tls_key = "{made.key}"
        tls_client_ca = "{made.authority}"
        [access]
        default_grants = [{{documents = "**", access = "write"}}]
        [security]
        api_keys = [{{name = "backend", role = "service", digest = "{digest}"}}]
        [[security.client_certificates]]
        key = "backend"
        subject = "CN=client"
        """
    )
    async with running_server(storage="file", dev=False, folder=tmp_path) as server:
        mine = trusting(made, shown=made.client_certificate, key=made.client_key)
        strange = trusting(made, shown=made.certificate, key=made.key)
        body = {"user_id": "alice", "activate": True}
        async with httpx.AsyncClient(base_url=server.url, verify=mine) as client:
            created = await client.post("/sessions", json=body)
        async with httpx.AsyncClient(base_url=server.url, verify=strange) as client:
            refused = await client.post("/sessions", json=body)

        assert (created.status_code, refused.status_code) == (201, 401)
        headers = [("Authorization", f"Bearer {created.json()['token']}")]
        await renewed_under_way(server, made, workers, headers)
