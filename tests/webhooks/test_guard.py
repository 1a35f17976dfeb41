"""Webhooks reach public addresses alone, however a private one is written, named or swapped in."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api.webhooks.addresses import UrlRules, is_allowed
from api.webhooks.guard import NameUnknown, SystemResolver
from darkroom.errors import InvalidInput
from tests.webhooks.receiver import posting, receiving

PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "168.63.129.16",
    "100.64.0.1",
    "100.127.255.254",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "not an address",
    "",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::200e"]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_refused_in_every_form(address: str) -> None:
    assert not is_allowed(address, allow_loopback=False)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_allowed(address, allow_loopback=False)


def test_the_switch_for_development_opens_loopback_and_nothing_else() -> None:
    opened = {address for address in PRIVATE if is_allowed(address, allow_loopback=True)}
    assert {"127.0.0.1", "127.8.8.8", "::1"} <= opened
    assert opened <= {"127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"}


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://example.com:8443/",
        "https://localhost/",
        "https://a.localhost/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://169.254.169.254/metadata",
        "http://127.0.0.1/",
    ],
)
def test_a_url_that_can_never_be_sent_to_is_refused_at_admission(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        UrlRules(frozenset({443, 80}), allow_loopback=False).check(url)
    assert refused.value.target == "webhook_url"
    UrlRules(frozenset({443, 80}), allow_loopback=False).check("https://example.com/a?b=c")


def naming(*answers: Sequence[str]) -> object:
    """A resolver that gives each answer once, then the last for ever; it counts."""
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        resolve.asked.append(host)  # type: ignore[attr-defined]
        return left.pop(0) if len(left) > 1 else left[0]

    resolve.asked = []  # type: ignore[attr-defined]
    return resolve


def inside(port: int) -> str:
    return f"https://receiver.example:{port}/"


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::ffff:127.0.0.1"], ["10.0.0.1"]]
)
async def test_a_name_that_means_a_private_address_is_not_connected_to(
    tmp_path: Path, addresses: list[str]
) -> None:
    async with receiving() as receiver:
        settings = {"allow_loopback": False, "ports": f"443,{receiver.port}"}
        resolve = naming(addresses)
        async with posting(tmp_path, resolve=resolve, **settings) as post:  # type: ignore[arg-type]
            await post.ended(inside(receiver.port))
            await post.deliver()
            assert post.attempts("AddressRefused") == 1
    assert receiver.requests == []


async def test_a_name_that_changes_its_meaning_is_looked_up_once_an_attempt(
    tmp_path: Path,
) -> None:
    # What was checked is what is connected to: were the name looked up a second time for the
    # connection, the second answer would be used, which is refused.
    resolve = naming(["127.0.0.1"], ["10.0.0.1"])
    async with receiving() as receiver, posting(tmp_path, resolve=resolve) as post:  # type: ignore[arg-type]
        await post.ended(f"http://receiver.localhost:{receiver.port}/")
        await post.deliver()
        assert post.attempts("Delivered") == 1
        assert len(receiver.requests) == 1
        assert resolve.asked == ["receiver.localhost"]  # type: ignore[attr-defined]
        await post.ended(f"http://receiver.localhost:{receiver.port}/")
        await post.deliver()
        assert post.attempts("AddressRefused") == 1, "an earlier connection lends nothing"
        assert len(receiver.requests) == 1


async def test_what_was_admitted_under_other_rules_is_checked_again(tmp_path: Path) -> None:
    async with receiving() as receiver, posting(tmp_path, allow_loopback=False) as post:
        await post.ended(receiver.url)
        await post.deliver()
        assert post.attempts("UrlRefused") == 1
        assert receiver.requests == []


async def test_a_name_without_an_address_is_a_failure_that_is_tried_again(tmp_path: Path) -> None:
    resolver = SystemResolver(1)
    with pytest.raises(NameUnknown):
        await resolver("nobody.invalid", 443)
    assert "127.0.0.1" in await resolver("localhost", 443)
    resolver.close()
    async with posting(tmp_path, resolve=naming([]), ports="443") as post:  # type: ignore[arg-type]
        await post.ended("https://nobody.example/")
        await post.deliver()
        assert post.attempts("NameUnknown") == 1
        assert (await post.queue.depth()).scheduled == 1


async def test_a_port_where_nobody_listens_is_a_failure_that_is_tried_again(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with posting(tmp_path) as post:
        await post.ended(f"http://localhost:{port}/")
        await post.deliver()
        assert post.attempts("ConnectionFailed") == 1


@pytest.mark.parametrize(("name", "is_good"), [("hooks.example", True), ("other.example", False)])
async def test_the_certificate_must_be_the_names_though_the_address_is_connected_to(
    tmp_path: Path, name: str, is_good: bool
) -> None:
    server, client = certified("hooks.example", tmp_path)
    async with receiving(ssl=server) as receiver:
        settings = {"ssl_context": client, "ports": str(receiver.port)}
        async with posting(tmp_path, **settings) as post:  # type: ignore[arg-type]
            await post.ended(f"https://{name}:{receiver.port}/")
            await asyncio.wait_for(post.deliver(), 20)
            assert post.attempts("Delivered") == is_good
            assert post.attempts("ConnectionFailed") == (not is_good)
        assert len(receiver.requests) == is_good


def certified(name: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server with a certificate of ``name``, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "server.pem").write_bytes(secret + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem")
    return server, ssl.create_default_context(cadata=pem.decode())
