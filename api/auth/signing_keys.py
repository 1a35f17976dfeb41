"""The public keys that an OpenID provider signs with: fetched, kept, and renewed when they roll.

Found by OpenID Connect Discovery 1.0, section 4: ``ISSUER/.well-known/openid-configuration`` names
the address of the JSON Web Key Set (RFC 7517). Fetches run in a thread. A provider that is away
costs nothing while its keys are known: they serve for `MAX_AGE`.
"""

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from jwt import PyJWK
from jwt.exceptions import PyJWKError

from api.errors import IdentityProviderUnavailable
from darkroom.clock import Clock
from darkroom.log import get_logger

RENEW_AFTER = timedelta(hours=1)  # so a withdrawn key stops serving without a restart
MAX_AGE = timedelta(hours=24)
UNKNOWN_KEY_PAUSE = timedelta(seconds=30)  # between two fetches that an unknown key id causes
FAILURE_PAUSE = timedelta(seconds=5)
FETCH_SECONDS = 5.0
MAX_BYTES = 1024 * 1024


class SigningKeys:
    """The RSA keys of ``issuer``, by key id."""

    def __init__(self, issuer: str, clock: Clock) -> None:
        self.issuer = issuer
        self._clock = clock
        self._log = get_logger()
        self._keys: Mapping[str, PyJWK] = {}
        self._fetched_at: datetime | None = None
        self._tried_at: datetime | None = None
        self._fetching = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None  # kept, or it could be collected

    async def find(self, key_id: str) -> PyJWK | None:
        """Return a key; an unknown one is looked for at the issuer, every 30 s at most.

        A known one is returned at once, whatever the issuer does; old ones are renewed beside.
        Raises `IdentityProviderUnavailable` when no keys are known and none can be had.
        """
        known = self._keys.get(key_id)
        if known is not None and self._is_fresh(MAX_AGE):
            if not self._is_fresh(RENEW_AFTER) and not self._fetching.locked():
                self._renewal = asyncio.create_task(self._renew(key_id))
            return known
        await self._renew(key_id)
        if not self._is_fresh(MAX_AGE):
            raise IdentityProviderUnavailable("the identity provider's keys cannot be fetched")
        return self._keys.get(key_id)

    async def _renew(self, key_id: str) -> None:
        """Fetch if that is due, looked at again after waiting for somebody else's fetch."""
        async with self._fetching:
            await self._fetch_if_due(key_id)

    async def _fetch_if_due(self, key_id: str) -> None:
        is_fresh = self._is_fresh(RENEW_AFTER)
        if is_fresh and key_id in self._keys:
            return
        pause = UNKNOWN_KEY_PAUSE if is_fresh else FAILURE_PAUSE
        now = self._clock.now()
        if self._tried_at is not None and now - self._tried_at < pause:
            return
        self._tried_at = now
        try:
            self._keys = await asyncio.to_thread(_fetch, self.issuer)
        except (OSError, ValueError, PyJWKError) as error:
            self._log.warning("signing_keys_not_fetched", kind=type(error).__name__)
            return
        self._fetched_at = now

    def _is_fresh(self, limit: timedelta) -> bool:
        return self._fetched_at is not None and self._clock.now() - self._fetched_at < limit


class _NoRedirect(HTTPRedirectHandler):
    """An issuer answers itself: following it elsewhere would trust that place too."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _fetch(issuer: str) -> Mapping[str, PyJWK]:
    opener = build_opener(_NoRedirect)
    about = _get(opener, f"{issuer}/.well-known/openid-configuration")
    if about.get("issuer") != issuer:
        raise ValueError("the discovery document is another issuer's")
    place = str(about.get("jwks_uri"))
    if not place.startswith("https://") and not issuer.startswith("http://"):
        raise ValueError("the key set must be at an https address")
    listed = _get(opener, place).get("keys")
    if not isinstance(listed, list):
        raise ValueError("no key set")
    signing = [key for key in listed if key.get("kty") == "RSA" and key.get("use", "sig") == "sig"]
    return {str(key["kid"]): PyJWK(key, algorithm="RS256") for key in signing if "kid" in key}


def _get(opener: OpenerDirector, url: str) -> dict[str, Any]:
    if not url.startswith(("https://", "http://")):
        raise ValueError("not an http address")
    asked = Request(url, headers={"accept": "application/json"})  # noqa: S310 - checked above
    with opener.open(asked, timeout=FETCH_SECONDS) as answer:
        content = json.loads(answer.read(MAX_BYTES))
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content
