"""Credentials to call with: API keys in a file, and an issuer of tokens on this machine."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from api.auth.api_keys import digest, new_key
from darkroom.clock import Clock

DIRECTORY = "7f3a0c52-1111-4b7e-9b0e-0d6d6a3f0001"
AUDIENCE = "5c5b2e8e-2222-4c6d-8a4c-9a8d7b6c0002"
ALL = ["Jobs.Submit", "Jobs.Read", "Jobs.Operate"]


class Keys:
    """A file of API keys; ``add`` returns the key itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        self.write()

    def add(self, tenant: str, **fields: Any) -> str:
        key = new_key()
        entry = {"name": f"key-{len(self.entries)}", "tenant": tenant, "sha256": digest(key)}
        self.entries.append({**entry, **fields})
        self.write()
        return key

    def write(self) -> None:
        self.path.write_text(yaml.safe_dump({"keys": self.entries}))


def bearer(credential: str) -> dict[str, str]:
    return {"authorization": f"Bearer {credential}"}


@cache
def signing_key(key_id: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_pem(key_id: str) -> bytes:
    return (
        signing_key(key_id)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


class Issuer:
    """An Entra ID directory on loopback: discovery, a key set, and tokens."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.key_ids = ["first"]
        self.is_down = False
        self.hangs = threading.Event()
        self.hangs.set()  # cleared, it answers nobody
        self.fetches = 0
        self.url = ""

    def documents(self) -> dict[str, Any]:
        keys = []
        for key_id in self.key_ids:
            algorithm = jwt.algorithms.RSAAlgorithm
            listed = algorithm.to_jwk(signing_key(key_id).public_key(), as_dict=True)
            keys.append({**listed, "kid": key_id, "use": "sig"})
        place = f"/{DIRECTORY}/v2.0"
        about = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        return {
            f"{place}/.well-known/openid-configuration": about,
            f"{place}/keys": {"keys": keys},
        }

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(self.clock.now().timestamp())
        usual = {
            "iss": self.url,
            "aud": AUDIENCE,
            "tid": DIRECTORY,
            "oid": "0b1d-acme",
            "ver": "2.0",
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "roles": ALL,
        }
        return {name: value for name, value in {**usual, **changes}.items() if value is not None}

    def token(self, key_id: str = "first", signed_by: str | None = None, **changes: Any) -> str:
        key = signing_key(signed_by or key_id)
        return jwt.encode(self.claims(**changes), key, "RS256", headers={"kid": key_id})

    def unsigned(self, **changes: Any) -> str:
        return jwt.encode(self.claims(**changes), None, "none", headers={"kid": "first"})

    def confused(self, **changes: Any) -> str:
        """An HMAC made with the public key, which anybody can have."""
        head = {"alg": "HS256", "typ": "JWT", "kid": "first"}
        parts = [_text(json.dumps(one).encode()) for one in (head, self.claims(**changes))]
        signed = ".".join(parts).encode()
        made = hmac.new(public_pem("first"), signed, hashlib.sha256).digest()
        return ".".join([*parts, _text(made)])

    def settings(self) -> dict[str, Any]:
        return {
            "auth": "entra",
            "entra_issuers": self.url,
            "entra_audiences": f"another, {AUDIENCE}",
        }


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def serving(issuer: Issuer) -> Iterator[Issuer]:
    """Answer for ``issuer`` on a free port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.hangs.wait(20)
            issuer.fetches += self.path.endswith("/keys")
            found = None if issuer.is_down else issuer.documents().get(self.path)
            self.send_response(503 if issuer.is_down else 200 if found else 404)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_port}/{DIRECTORY}/v2.0"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
