"""The calls for jobs that have ended, for what was used, and for operators, as values."""

from datetime import datetime
from urllib.parse import quote

from darkroom.client.calls import Call, path


def resubmit(job_id: str) -> Call:
    """Return the request to run a job again."""
    return Call("POST", f"{path(job_id)}:resubmit")


def replay_webhook(job_id: str) -> Call:
    """Return the request to deliver a job's event again."""
    return Call("POST", f"{path(job_id)}:replay-webhook")


def erase(job_id: str) -> Call:
    """Return the removal of a job's pictures and prompt."""
    return Call("DELETE", path(job_id))


def usage(start: datetime | None, end: datetime | None) -> Call:
    """Return the read of what was used between two times, each with a zone."""
    times = {"from": start, "to": end}
    params = {name: moment.isoformat() for name, moment in times.items() if moment}
    return Call("GET", "/v1/usage", params=params or None)


def dead_letters(pool: str | None, limit: int) -> Call:
    """Return the read of the oldest dead letters, of one pool or of all."""
    params = {"limit": str(limit)} | ({"pool": pool} if pool is not None else {})
    return Call("GET", "/v1/dead-letters", params=params)


def dead_letter(pool: str, message_id: str) -> Call:
    """Return the read of one dead letter."""
    return Call("GET", _aside(pool, message_id))


def resubmit_dead_letter(pool: str, message_id: str) -> Call:
    """Return the request to run a dead letter's job again."""
    return Call("POST", f"{_aside(pool, message_id)}:resubmit")


def discard_dead_letter(pool: str, message_id: str) -> Call:
    """Return the removal of a dead letter."""
    return Call("POST", f"{_aside(pool, message_id)}:discard")


def _aside(pool: str, message_id: str) -> str:
    return f"/v1/dead-letters/{quote(pool, safe='')}/{quote(message_id, safe='')}"
