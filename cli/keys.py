"""`darkroom keys new`: a fresh API key, and what the API's file is to hold of it."""

from collections.abc import Sequence
from datetime import timedelta

import yaml
from pydantic import ValidationError

from api.auth.api_keys import DEFAULT_ROLES, KeyEntry, digest, new_key
from cli.problems import CommandFailed
from darkroom.clock import SystemClock

USAGE_STATUS = 2


def print_new(tenant: str, *, roles: Sequence[str], name: str | None, days: int | None) -> None:
    """Print a new key and its entry. Raises `CommandFailed` for what the file could not hold."""
    key = new_key()
    now = SystemClock().now()
    fields = {
        "name": name or f"{tenant}-{now:%Y%m%d-%H%M%S}",
        "tenant": tenant,
        "roles": list(roles) or [str(role) for role in DEFAULT_ROLES],
        "sha256": digest(key),
    }
    if days is not None:
        fields["expires_at"] = (now + timedelta(days=days)).isoformat(timespec="seconds")
    try:
        KeyEntry.model_validate(fields)
    except ValidationError as error:
        last = error.errors(include_input=False, include_url=False)[-1]  # a tenant over its name
        option = str(last["loc"][0]).removesuffix("s")
        raise CommandFailed(f"--{option}: {last['msg']}", USAGE_STATUS) from None
    print(f"{key}\n")
    print("This is the only time that the key is shown. The entry for DARKROOM_API_KEYS_FILE:\n")
    print(yaml.safe_dump({"keys": [fields]}, sort_keys=False), end="")
