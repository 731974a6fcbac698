"""Keys of clients, and the proofs (RFC 9449) that they make."""

import json
from base64 import urlsafe_b64encode
from hashlib import sha256
from itertools import count
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

_numbers = count()


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


class ProofKey:
    """A key for ES256 or, if asked for, EdDSA."""

    def __init__(self, algorithm: str = "ES256") -> None:
        self.algorithm = algorithm
        if algorithm == "ES256":
            self._ec = ec.generate_private_key(ec.SECP256R1())
            numbers = self._ec.public_key().public_numbers()
            self.jwk: dict[str, Any] = {
                "crv": "P-256",
                "kty": "EC",
                "x": b64(numbers.x.to_bytes(32)),
                "y": b64(numbers.y.to_bytes(32)),
            }
        else:
            self._ed = ed25519.Ed25519PrivateKey.generate()
            self.jwk = {"crv": "Ed25519", "kty": "OKP", "x": b64(self._ed.public_key().public_bytes_raw())}

    @property
    def thumbprint(self) -> str:
        return b64(sha256(json.dumps(self.jwk, sort_keys=True, separators=(",", ":")).encode()).digest())

    def sign(self, signed: bytes) -> bytes:
        if self.algorithm != "ES256":
            return self._ed.sign(signed)
        r, s = utils.decode_dss_signature(self._ec.sign(signed, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)

    def token(self, header: dict[str, Any], claims: dict[str, Any]) -> str:
        return self.encoded(json.dumps(header).encode(), json.dumps(claims).encode())

    def encoded(self, header: bytes, claims: bytes) -> str:
        """A token of this header and these claims, whatever they are."""
        signed = f"{b64(header)}.{b64(claims)}"
        return f"{signed}.{b64(self.sign(signed.encode()))}"

    def proof(self, method: str, url: str, *, at: float, token: str | None = None, **claims: Any) -> str:
        """A proof; what is given besides replaces or adds claims, and ``None`` takes one away."""
        header = {"typ": "dpop+jwt", "alg": self.algorithm, "jwk": self.jwk}
        whole: dict[str, Any] = {"jti": f"proof-{next(_numbers)}", "htm": method, "htu": url, "iat": at}
        if token is not None:
            whole["ath"] = b64(sha256(token.encode()).digest())
        whole |= claims
        return self.token(header, {name: value for name, value in whole.items() if value is not None})
