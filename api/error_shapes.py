"""Routes that speak another API's language have that API's errors too."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

OPENAI_PATH = "/v1/images/generations"
TUTORIAL_PATH = "/api/generate"

_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_OPENAI_NAMES = {"num_images": "n", "width": "size", "height": "size"}
_TUTORIAL_NAMES = {"num_inference_steps": "num_steps"}


class OpenAIError(BaseModel):
    """What is wrong, as OpenAI's clients read it."""

    model_config = ConfigDict(extra="forbid")

    message: str
    type: str
    param: str | None
    code: str


class OpenAIErrorAnswer(BaseModel):
    """The body of every refusal of the OpenAI route."""

    model_config = ConfigDict(extra="forbid")

    error: OpenAIError


class TutorialErrorAnswer(BaseModel):
    """The body of every refusal of the tutorial's route: one line for a person."""

    model_config = ConfigDict(extra="forbid")

    error: str


def openai_error(status: int, code: str, message: str, target: str | None) -> dict[str, Any]:
    """Return an error as the OpenAI API has it; ``param`` is the field in its own names."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    param = _OPENAI_NAMES.get(target, target) if target else None
    said = {"message": message, "type": _OPENAI_TYPES.get(status, kind)}
    return {"error": {**said, "param": param, "code": code}}


def tutorial_error(status: int, code: str, message: str, target: str | None) -> dict[str, Any]:
    """Return an error as the tutorial's server has it: one line."""
    name = _TUTORIAL_NAMES.get(target, target) if target else None
    shown = message.replace(target, name) if target and name else message
    return {"error": shown}


SHAPES: Final[Mapping[str, Callable[[int, str, str, str | None], dict[str, Any]]]] = {
    OPENAI_PATH: openai_error,
    TUTORIAL_PATH: tutorial_error,
}
"""By path; every other route has the Azure shape, or RFC 9457."""
