"""What can go wrong on the caller's side of the HTTP API."""


class DarkroomClientError(Exception):
    """The API refused, or answered with what is no answer of its own.

    ``code``, ``message`` and ``target`` are those of the response's ``error``; ``status`` is the
    HTTP status, 0 where no response came.
    """

    def __init__(
        self, code: str, message: str, *, target: str | None = None, status: int = 0
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.target = target
        self.status = status


class ServerUnreachable(DarkroomClientError):
    """Nothing answered at the address."""

    def __init__(self, base_url: str, reason: str) -> None:
        super().__init__("ServerUnreachable", f"no Darkroom API answers at {base_url} ({reason})")
        self.base_url = base_url
