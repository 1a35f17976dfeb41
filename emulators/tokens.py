"""Entra tokens that only emulators believe: the right claims, and no signature worth checking."""

import base64
import json
import time
from typing import Any, Final

from azure.core.credentials import AccessToken

TENANT: Final = "00000000-0000-0000-0000-000000000001"


def local_token(audience: str, *, lifetime_seconds: int = 3600) -> tuple[str, int]:
    """A JSON Web Token for an audience such as `https://storage.azure.com`, and when it ends.

    The end is in seconds since 1970. The signature is a constant: the emulators check claims only.
    """
    now = int(time.time())
    claims = {
        "aud": audience,
        "iss": f"https://sts.windows.net/{TENANT}/",
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + lifetime_seconds,
        "oid": TENANT,
        "sub": TENANT,
        "tid": TENANT,
        "ver": "1.0",
    }
    parts = ({"alg": "RS256", "typ": "JWT"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*encoded, b"bm90LWEtc2lnbmF0dXJl"]).decode(), now + lifetime_seconds


class LocalCredential:
    """An asynchronous credential for the emulators, in the place of DefaultAzureCredential."""

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """A token for the first scope's audience."""
        return AccessToken(*local_token(scopes[0].removesuffix("/.default")))

    async def close(self) -> None:
        """Nothing is held."""

    async def __aenter__(self) -> "LocalCredential":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()
