"""Who may connect: shared access signatures and Entra tokens, and the `$cbs` node that takes them.

A claim covers an entity and what is under it. Signatures are always verified. Tokens are checked
for audience and time always, and for their signature when a key is configured.

Source: Azure's SAS format (HMAC-SHA256 over the resource and the expiry) and the AMQP CBS draft.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, unquote_plus, urlsplit

from emulators.service_bus.codec import Int
from emulators.service_bus.message import Request

CBS_ADDRESS: Final = "$cbs"
SAS_TYPE: Final = "servicebus.windows.net:sastoken"
SERVICE_BUS_AUDIENCE: Final = "https://servicebus.azure.net"
MANAGEMENT_SUFFIX: Final = "/$management"
DEAD_LETTER_SUFFIX: Final = "/$deadletterqueue"


class Unauthorized(Exception):
    """The token is not good; the message says why and never holds the token."""


@dataclass(frozen=True, slots=True)
class JwtPolicy:
    """Which Entra tokens are let in. Without `key` their signature is not checked.

    `key` is a PEM public key (RS256) or a shared secret (HS256).
    """

    audience: str = SERVICE_BUS_AUDIENCE
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Authority:
    """Checks tokens against the one shared key and, if there is one, the policy for JWTs.

    `now_seconds` is real time: tokens come from clients, which know no fake clock.
    """

    key_name: str
    key: str
    jwt: JwtPolicy | None
    now_seconds: Callable[[], float]

    def check(self, token: str) -> float:
        """Returns when the token ends, in seconds since 1970; raises Unauthorized."""
        if token.startswith("SharedAccessSignature "):
            return self._check_signature(token)
        return self._check_jwt(token.removeprefix("Bearer "))

    def _check_signature(self, token: str) -> float:
        fields = parse_qs(token.partition(" ")[2], keep_blank_values=True)
        raw = dict(
            part.partition("=")[::2] for part in token.partition(" ")[2].split("&") if "=" in part
        )
        try:
            ends, name = float(fields["se"][0]), fields["skn"][0]
            signed = f"{raw['sr']}\n{raw['se']}".encode()
            signature = unquote_plus(raw["sig"])
        except (KeyError, ValueError) as error:
            raise Unauthorized("the signature lacks sr, sig, se or skn") from error
        expected = base64.b64encode(hmac.digest(self.key.encode(), signed, hashlib.sha256))
        # A client may leave '+' of the base64 unescaped; unquote_plus made a space of it.
        if name != self.key_name or not hmac.compare_digest(
            expected, signature.replace(" ", "+").encode()
        ):
            raise Unauthorized("the signature does not match any known key")
        return self._not_ended(ends)

    def _check_jwt(self, token: str) -> float:
        if self.jwt is None:
            raise Unauthorized("tokens are not accepted here, only shared access signatures")
        claims = _unverified(token) if self.jwt.key is None else _verified(token, self.jwt.key)
        audiences = claims.get("aud")
        listed = audiences if isinstance(audiences, list) else [audiences]
        if self.jwt.audience.rstrip("/") not in {str(item).rstrip("/") for item in listed}:
            raise Unauthorized(f"the token's audience is not {self.jwt.audience}")
        ends = claims.get("exp")
        if not isinstance(ends, int | float):
            raise Unauthorized("the token has no expiry")
        return self._not_ended(float(ends))

    def _not_ended(self, ends: float) -> float:
        if ends > self.now_seconds():
            return ends
        raise Unauthorized("the token has expired")  # or its end is no number at all


def _unverified(token: str) -> dict[str, object]:
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, binascii.Error, ValueError) as error:
        raise Unauthorized("the token is no JSON Web Token") from error
    if not isinstance(claims, dict):
        raise Unauthorized("the token's claims are no object")
    return claims


def _verified(token: str, key: str) -> dict[str, object]:
    import jwt  # noqa: PLC0415 -- comes with azure-identity; needed only for verifying

    algorithm = "RS256" if key.lstrip().startswith("-----BEGIN") else "HS256"
    options = {"verify_aud": False, "verify_exp": False}
    try:
        return dict(jwt.decode(token, key, algorithms=[algorithm], options=options))  # type: ignore[arg-type]
    except jwt.InvalidTokenError as error:
        raise Unauthorized(f"the token's signature is not good: {error}") from error


def entity_path(address: str) -> str:
    """The path of an address like `amqps://host:5672/queue`, without slashes around it."""
    return (urlsplit(address).path if "://" in address else address).strip("/")


def base_entity(path: str) -> str:
    """The queue that a path belongs to, in lower case: without sub-queue and management node."""
    lowered = path.lower()
    for suffix in (MANAGEMENT_SUFFIX, DEAD_LETTER_SUFFIX):
        lowered = lowered.removesuffix(suffix)
    return lowered


@dataclass(slots=True)
class Claims:
    """What one connection has proved: entities, and until when in seconds since 1970."""

    authority: Authority
    _ends: dict[str, float] = field(default_factory=dict)

    def cover(self, path: str) -> bool:
        """Whether a claim that has not ended covers this path."""
        entity, now = base_entity(path), self.authority.now_seconds()
        return any(
            ends > now and (not claimed or entity == claimed or entity.startswith(claimed + "/"))
            for claimed, ends in self._ends.items()
        )

    def put_token(self, request: Request) -> dict[object, object]:
        """Handles a `$cbs` request; returns the response's application properties."""
        status, description = 200, "OK"
        name, body = request.properties.get("name"), request.body
        kind = request.properties.get("type")
        if request.properties.get("operation") != "put-token":
            status, description = 400, "the operation must be put-token"
        elif not isinstance(name, str) or not isinstance(body, str):
            status, description = 400, "name and token must be strings"
        elif kind not in (SAS_TYPE, "jwt"):
            status, description = 400, f"type must be {SAS_TYPE} or jwt"
        else:
            try:
                self._ends[base_entity(entity_path(name))] = self.authority.check(body)
            except Unauthorized as error:
                status, description = 401, str(error)
        return {"status-code": Int(status), "status-description": description}
