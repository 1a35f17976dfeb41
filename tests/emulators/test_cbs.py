import base64
import hashlib
import hmac
from urllib.parse import quote_plus

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from emulators.service_bus.cbs import (
    SAS_TYPE,
    SERVICE_BUS_AUDIENCE,
    Authority,
    Claims,
    JwtPolicy,
    Unauthorized,
    base_entity,
    entity_path,
)
from emulators.service_bus.message import Request

NOW = 1_000_000.0
SECRET = "a shared secret of thirty-two bytes"


def authority(policy: JwtPolicy | None = None) -> Authority:
    return Authority("name", "key", policy, lambda: NOW)


def signature(ends: float = NOW + 60, key: str = "key", name: str = "name") -> str:
    resource = quote_plus("sb://host/q")
    digest = hmac.digest(key.encode(), f"{resource}\n{ends:.0f}".encode(), hashlib.sha256)
    sig = quote_plus(base64.b64encode(digest))
    return f"SharedAccessSignature sr={resource}&sig={sig}&se={ends:.0f}&skn={name}"


def claims(audience: object = SERVICE_BUS_AUDIENCE, ends: object = NOW + 60) -> dict[str, object]:
    return {"aud": audience, "exp": ends}


def test_a_signature_is_good_until_it_ends() -> None:
    assert authority().check(signature()) == NOW + 60


@pytest.mark.parametrize(
    "token", [signature(ends=NOW), signature(key="other"), signature(name="other")]
)
def test_a_signature_of_another_key_name_or_time_is_not(token: str) -> None:
    with pytest.raises(Unauthorized):
        authority().check(token)


@pytest.mark.parametrize("end", ["nan", "soon", ""])
def test_an_end_that_is_no_time_is_refused(end: str) -> None:
    digest = hmac.digest(b"key", f"r\n{end}".encode(), hashlib.sha256)
    sig = quote_plus(base64.b64encode(digest))
    with pytest.raises(Unauthorized):
        authority().check(f"SharedAccessSignature sr=r&sig={sig}&se={end}&skn=name")


@pytest.mark.parametrize(
    "audience", [SERVICE_BUS_AUDIENCE, SERVICE_BUS_AUDIENCE + "/", ["x", SERVICE_BUS_AUDIENCE]]
)
def test_a_token_for_the_bus_is_good(audience: object) -> None:
    token = jwt.encode(claims(audience), SECRET)
    assert authority(JwtPolicy()).check(token) == NOW + 60
    assert authority(JwtPolicy(key=SECRET)).check("Bearer " + token) == NOW + 60


def test_a_token_is_verified_with_a_public_key() -> None:
    private = rsa.generate_private_key(65537, 2048)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    checked = authority(JwtPolicy(key=public.decode()))
    assert checked.check(jwt.encode(claims(), private, "RS256")) == NOW + 60
    with pytest.raises(Unauthorized, match="signature"):
        checked.check(jwt.encode(claims(), SECRET))


@pytest.mark.parametrize(
    ("token", "policy"),
    [
        (jwt.encode(claims("https://storage.azure.com"), SECRET), JwtPolicy()),
        (jwt.encode(claims(ends=NOW - 1), SECRET), JwtPolicy()),
        (jwt.encode({"aud": SERVICE_BUS_AUDIENCE}, SECRET), JwtPolicy()),
        (jwt.encode(claims(), SECRET + "!"), JwtPolicy(key=SECRET)),
        (jwt.encode(claims(), SECRET), None),
        ("x.!!!.y", JwtPolicy()),
        ("", JwtPolicy()),
    ],
)
def test_a_token_that_is_not_good_is_refused(token: str, policy: JwtPolicy | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        authority(policy).check(token)
    assert not token or token not in str(caught.value)


def put(held: Claims, name: object, body: object, kind: object = SAS_TYPE) -> object:
    properties: dict[object, object] = {"operation": "put-token", "type": kind, "name": name}
    return held.put_token(Request("id", None, properties, body))["status-code"]


def test_a_claim_covers_its_entity_and_what_is_under_it() -> None:
    held = Claims(authority())
    assert not held.cover("q")
    assert put(held, "sb://host:5672/q", signature()) == 200
    for path in ("q", "Q", "q/$management", "q/$DeadLetterQueue", "q/$DeadLetterQueue/$management"):
        assert held.cover(path)
    for path in ("queue", "other", ""):
        assert not held.cover(path)


def test_a_claim_for_the_namespace_covers_everything() -> None:
    held = Claims(authority())
    put(held, "sb://host/", signature())
    assert held.cover("any")


def test_a_claim_ends_with_its_token() -> None:
    now = [NOW]
    held = Claims(Authority("name", "key", None, lambda: now[0]))
    put(held, "q", signature())
    now[0] += 61
    assert not held.cover("q")


def test_a_put_token_that_is_wrong_is_answered_with_why() -> None:
    held = Claims(authority())
    assert put(held, "q", signature(key="other")) == 401
    assert put(held, None, signature()) == 400
    assert put(held, "q", b"bytes") == 400
    assert put(held, "q", signature(), kind="amqp:cbs:other") == 400
    assert held.put_token(Request("id", None, {}, None))["status-code"] == 400


def test_addresses_are_read_with_and_without_a_host() -> None:
    assert entity_path("amqps://host:5672/a/b/") == "a/b"
    assert entity_path("a/b") == "a/b"
    assert base_entity("A/B/$DeadLetterQueue/$management") == "a/b"
