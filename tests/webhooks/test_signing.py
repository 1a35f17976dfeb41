"""The `standardwebhooks` package, as a receiver uses it, accepts what was sent and nothing else."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from api.webhooks.payloads import MAX_PAYLOAD_BYTES, payload_of
from api.webhooks.secrets import Secrets, new_secret, read_secrets
from api.webhooks.signing import headers_for
from darkroom.clock import FakeClock
from darkroom.errors import SettingsError
from darkroom.jobs import JobImage, cancel
from tests.samples import NOW, make_job
from tests.webhooks.receiver import OLD_SECRET, SECRET, posting, receiving, write_secrets


async def test_the_verifier_accepts_what_came_and_refuses_what_was_changed(tmp_path: Path) -> None:
    async with receiving() as receiver, posting(tmp_path) as post:
        post.clock.advance((datetime.now(UTC) - post.clock.now()).total_seconds())
        job = await post.ended(receiver.url)
        await post.deliver()
        headers, body = receiver.requests[0]
    assert Verifier(SECRET).verify(body, headers)["data"]["id"] == job.id
    for altered in (
        (body.replace(b"canceled", b"succeeded"), headers),
        (body + b" ", headers),
        (body, {**headers, "webhook-id": headers["webhook-id"] + "x"}),
        (body, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}),
        (body, {**headers, "webhook-signature": ""}),
    ):
        with pytest.raises(WebhookVerificationError):
            Verifier(SECRET).verify(*altered)
    with pytest.raises(WebhookVerificationError):
        Verifier(OLD_SECRET).verify(body, headers)


def test_during_a_rotation_either_secret_is_enough_and_a_third_is_not() -> None:
    body, now = b'{"type":"job.succeeded"}', datetime.now(UTC)
    headers = headers_for("id", now, body, [SECRET, OLD_SECRET])
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (SECRET, OLD_SECRET):
        Verifier(secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(new_secret()).verify(body, headers)


def test_a_secret_taken_out_of_the_file_signs_no_more(tmp_path: Path) -> None:
    path, clock = tmp_path / "secrets.yaml", FakeClock()
    write_secrets(path, {"acme": [SECRET, OLD_SECRET]})
    known = Secrets(path, clock)
    assert known.of("acme") == (SECRET, OLD_SECRET)
    assert known.of("nobody") == ()
    write_secrets(path, {"acme": [SECRET]})
    clock.advance(2)
    assert known.of("acme") == (SECRET,)
    path.write_text("tenants: [")
    clock.advance(2)
    assert known.of("acme") == (SECRET,), "a mistake in the file silences nobody"


@pytest.mark.parametrize(
    "content",
    [
        "tenants: [{tenant: a, secrets: [whsec_c2hvcnQ=]}]",
        "tenants: [{tenant: a, secrets: [plain-text-password-of-somebody]}]",
        "tenants: [{tenant: a, secrets: []}]",
        f"tenants: [{{tenant: a, secrets: [{SECRET}]}}, {{tenant: a, secrets: [{SECRET}]}}]",
        "[",
    ],
)
def test_a_file_that_cannot_be_is_refused_without_repeating_it(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "secrets.yaml"
    path.write_text(content)
    with pytest.raises(SettingsError) as refused:
        read_secrets(path)
    assert "DARKROOM_API_WEBHOOK_SECRETS_FILE" in refused.value.message
    for told in ("c2hvcnQ", "password", SECRET):
        assert told not in refused.value.message


def test_the_longest_payload_stays_within_the_convention() -> None:
    tags = {f"{index:02}{'€' * 126}": "𝄞" * 128 for index in range(16)}
    image = JobImage(index=0, width=2048, height=2048, sha256="ab" * 32, seed=2**32 - 1)
    job = cancel(make_job(tags=tags), NOW + timedelta(seconds=1))
    job = job.model_copy(update={"images": tuple([image] * 8)})
    body = payload_of(job, "https://" + "a" * 200 + ".example")
    assert len(body) < MAX_PAYLOAD_BYTES
    assert len(json.loads(body)["data"]["images"]) == 8
    assert json.loads(payload_of(cancel(make_job(tags={"a": "é"}), NOW), ""))["data"]["tags"] == {
        "a": "é"
    }
