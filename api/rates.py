"""How many requests a tenant may make a minute, counted for all replicas where Redis is configured.

The library's moving window: at any moment, the requests of the last minute. The counters of
``async+memory://`` are this process's own, so that N replicas allow N times as much; with
``async+redis://`` they are shared. A counter that cannot be reached lets requests pass: the caps on
what is queued hold without it.

Header fields: draft-ietf-httpapi-ratelimit-headers-11.
"""

import math
import time
from collections.abc import Mapping

from limits import RateLimitItemPerMinute
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string

from api.errors import TooManyRequests
from darkroom.errors import MissingExtra, SettingsError
from darkroom.log import get_logger

WINDOW_SECONDS = 60
WAIT_SECONDS = 0.5  # for a counter; every request of a tenant waits for it
VARIABLE = "DARKROOM_API_LIMITS_URL"


def _options(storage_url: str) -> dict[str, str | float]:
    """Return which Redis client to use and how long to wait for it, in seconds."""
    if not storage_url.startswith("async+redis"):
        return {}
    waits = {"socket_timeout": WAIT_SECONDS, "socket_connect_timeout": WAIT_SECONDS}
    return {"implementation": "redispy", **waits}


class Rates:
    """Counts requests per tenant; ``per_minute`` of 0 counts nothing.

    Raises `SettingsError` for a ``storage_url`` that the library does not know, `MissingExtra`
    when the packages of its database are not installed.
    """

    def __init__(self, per_minute: int, storage_url: str) -> None:
        self._per_minute = per_minute
        self._item = RateLimitItemPerMinute(max(1, per_minute))
        self._log = get_logger()
        if not storage_url.startswith("async+"):
            raise SettingsError(
                f"{VARIABLE}: write async+memory:// or async+redis://...", target=VARIABLE
            )
        try:
            storage = storage_from_string(
                storage_url, wrap_exceptions=True, **_options(storage_url)
            )
        except ConfigurationError as error:
            if "prerequisite" in str(error):
                raise MissingExtra("redis", storage_url.partition(":")[0] + "://") from error
            raise SettingsError(f"{VARIABLE}: no such storage", target=VARIABLE) from error
        self._window = MovingWindowRateLimiter(storage)

    async def count(self, tenant: str) -> Mapping[str, str]:
        """Count a request; return the header fields that tell what is left.

        Raises `TooManyRequests` with the same fields once the window is full.
        """
        if self._per_minute == 0:
            return {}
        try:
            is_allowed = await self._window.hit(self._item, tenant)
            reset_at, left = await self._window.get_window_stats(self._item, tenant)
        except StorageError as error:
            self._log.warning("rates_unavailable", kind=type(error.storage_error).__name__)
            return {}
        seconds = max(1, min(WINDOW_SECONDS, math.ceil(reset_at - time.time())))
        fields = {
            "ratelimit-policy": f'"tenant";q={self._per_minute};w={WINDOW_SECONDS}',
            "ratelimit": f'"tenant";r={max(0, left)};t={seconds}',
        }
        if is_allowed:
            return fields
        raise TooManyRequests(
            f"more than {self._per_minute:,} requests in {WINDOW_SECONDS} seconds",
            retry_after_seconds=seconds,
            headers=fields,
        )
