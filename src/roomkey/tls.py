"""TLS of the server: contexts made of the files that the configuration names, and made anew while it runs."""

import ssl
from pathlib import Path
from typing import Final

from roomkey.config import ServerSettings
from roomkey.errors import ConfigurationError, explain

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2, those with forward secrecy and authenticated encryption (RFC 9325, 4.2); those of 1.3 are like that."""


def tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """
    What new connections are encrypted with, of the files as they are now; ``None`` if there is no certificate.

    Raises:
        ConfigurationError: If the files cannot be read, or do not belong together.
    """
    for name in ("tls_cert", "tls_key", "tls_client_ca"):
        file: Path | None = getattr(settings, name)
        try:
            if file is not None:
                file.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"server.{name}: {file} cannot be read: {explain(error)}") from error
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, _no_password)
    except ssl.SSLError as error:
        mismatch = error.reason == "KEY_VALUES_MISMATCH"
        problem = "do not belong together" if mismatch else "are not a certificate and a key in PEM"
        raise ConfigurationError(f"server.tls_cert, server.tls_key: {cert} and {key} {problem}") from error
    _demand_certificates(context, settings)
    return context


def _demand_certificates(context: ssl.SSLContext, settings: ServerSettings) -> None:
    authority = settings.tls_client_ca
    if authority is None:
        return
    try:
        context.load_verify_locations(authority)
    except ssl.SSLError as error:
        raise ConfigurationError(f"server.tls_client_ca: {authority} has no certificate in PEM") from error
    is_required = settings.tls_client_auth == "required"
    context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL


def _no_password() -> str:
    """A key with a password is refused: otherwise it is asked for at the terminal, and the server waits."""
    return ""
