"""Proxies with the configurations that are shipped or on a page, in front of servers on ports of this machine."""

import os
import re
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.certificates import Certificates
from tests.support.pages import ROOT, blocks
from tests.support.store_servers import ServerProcess
from tests.support.store_servers.process import found

DEPLOY: Final = ROOT / "deploy"

SURROUNDINGS: Final = """\
daemon off;
{user}
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/roomkey.conf;
}}
"""
"""What Debian has in /etc/nginx/nginx.conf."""


@contextmanager
def proxy(kind: str, folder: Path, nodes: Sequence[int]) -> Generator[ServerProcess]:
    """The proxy of that ``kind`` in front of nodes on these ports: of those in its file the first ones."""
    command = {"nginx": _nginx, "haproxy": _haproxy}[kind]
    server = ServerProcess(
        lambda port: command(folder, port, nodes),
        url="http://127.0.0.1:{port}",
        log=folder / f"{kind}.log",
        answers=lambda: _listens(server),
    )
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _nginx(folder: Path, port: int, nodes: Sequence[int]) -> Sequence[str]:
    text = here((DEPLOY / "nginx.conf").read_text(encoding="utf-8"), nodes)
    (folder / "roomkey.conf").write_text(text.replace("listen 8080;", f"listen 127.0.0.1:{port};"), encoding="utf-8")
    return _nginx_in(folder)


def _nginx_in(folder: Path) -> Sequence[str]:
    around = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    around.write_text(SURROUNDINGS.format(folder=folder, user=user), encoding="utf-8")
    return (found("nginx"), "-p", str(folder), "-c", str(around), "-e", "stderr")


def _haproxy(folder: Path, port: int, nodes: Sequence[int]) -> Sequence[str]:
    text = here((DEPLOY / "haproxy.cfg").read_text(encoding="utf-8"), nodes)
    file = folder / "haproxy.cfg"
    file.write_text(text.replace("bind :8080", f"bind 127.0.0.1:{port}"), encoding="utf-8")
    return (found("haproxy"), "-db", "-f", str(file))


RECIPES: Final = ROOT / "docs" / "recipes.md"

NOT_ON_THE_PAGE: Final = """\
{{
    admin off
    storage file_system {folder}
    auto_https disable_redirects
}}
"""
"""What keeps Caddy from ports and folders that are not those of the test."""


@contextmanager
def proxy_of_the_recipe(
    kind: str, folder: Path, application: int, certificates: Certificates
) -> Generator[ServerProcess]:
    """The proxy as the page of recipes has it, in front of the application on this port."""
    command = {"nginx": _nginx_recipe, "caddy": _caddy_recipe}[kind]
    (text,) = (block.text for block in blocks(RECIPES) if block.language == kind)
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{application}")
    server = ServerProcess(
        lambda port: command(folder, port, text, certificates),
        url="https://127.0.0.1:{port}",
        log=folder / f"{kind}.log",
        answers=lambda: _listens(server),
    )
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _nginx_recipe(folder: Path, port: int, text: str, certificates: Certificates) -> Sequence[str]:
    text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;")
    for name, file in (("pem", certificates.certificate), ("key", certificates.key)):
        text = text.replace(f"/etc/ssl/notes.example.com.{name}", str(file))
    (folder / "roomkey.conf").write_text(text, encoding="utf-8")
    return _nginx_in(folder)


def _caddy_recipe(folder: Path, port: int, text: str, certificates: Certificates) -> Sequence[str]:
    site = f"https://127.0.0.1:{port} {{\n    tls {certificates.certificate} {certificates.key}\n    bind 127.0.0.1\n"
    file = folder / "Caddyfile"
    file.write_text(
        NOT_ON_THE_PAGE.format(folder=folder) + text.replace("notes.example.com {\n", site), encoding="utf-8"
    )
    return (found("caddy"), "run", "--config", str(file), "--adapter", "caddyfile")


def here(text: str, nodes: Sequence[int]) -> str:
    """The text with the nodes that it names where they are in this test; lines about others are left out."""
    lines = text.splitlines(keepends=True)
    for number, port in enumerate(nodes, 1):
        lines = [line.replace(f"node-{number}:3000", f"127.0.0.1:{port}") for line in lines]
    return "".join(line for line in lines if not re.search(r"node-\d:3000", line))


def _listens(server: ServerProcess) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", server.port)) == 0
