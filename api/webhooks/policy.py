"""Whether a request may have a webhook, asked at admission. No network, no web framework."""

from api.webhooks.addresses import TARGET, UrlRules
from api.webhooks.secrets import Secrets
from darkroom.errors import InvalidInput
from darkroom.generation import GenerationRequest
from darkroom.webhooks import ALL_EVENTS, Webhook


class WebhookPolicy:
    """The rules of this deployment. ``can_queue`` is false where no queue takes events."""

    def __init__(self, rules: UrlRules, secrets: Secrets, *, can_queue: bool) -> None:
        self._rules = rules
        self._secrets = secrets
        self._can_queue = can_queue

    def webhook_of(self, tenant: str, request: GenerationRequest) -> Webhook | None:
        """Return what the record keeps, None when none is asked for.

        Raises `InvalidInput` for a URL that would never be sent to, or a tenant that has no secret
        to sign with: better than an event that nobody gets.
        """
        if request.webhook_url is None:
            if request.webhook_events is not None:
                raise InvalidInput("webhook_events needs webhook_url", target="webhook_events")
            return None
        if not self._can_queue:
            raise InvalidInput(f"{TARGET}: the queue in use carries no events", target=TARGET)
        if not self._secrets.of(tenant):
            raise InvalidInput(
                f"{TARGET}: this tenant has no webhook secret to sign with; operators add one"
                " (docs/webhooks.md)",
                target=TARGET,
            )
        self._rules.check(request.webhook_url)
        return Webhook(url=request.webhook_url, events=request.webhook_events or ALL_EVENTS)
