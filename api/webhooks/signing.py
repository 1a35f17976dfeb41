"""The headers of a delivery, by Standard Webhooks."""

from collections.abc import Sequence
from datetime import datetime

from standardwebhooks import Webhook

from darkroom import __version__

AGENT = f"darkroom/{__version__}"


def headers_for(
    webhook_id: str, sent_at: datetime, body: bytes, secrets: Sequence[str]
) -> dict[str, str]:
    """Return the headers that let a receiver check ``body``, signed with every secret."""
    text = body.decode()
    signatures = (Webhook(secret).sign(webhook_id, sent_at, text) for secret in secrets)
    return {
        "content-type": "application/json",
        "user-agent": AGENT,
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
