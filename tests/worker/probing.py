"""Asking a worker's probes."""

import urllib.error
import urllib.request


def get(url: str) -> tuple[int, str]:
    """Return status and body; status 0 when nothing listens."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except urllib.error.URLError:
        return 0, "not listening"
