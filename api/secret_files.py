"""Mounted YAML or JSON files that hold secrets: read, checked, and never quoted in an error."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from darkroom.errors import SettingsError

M = TypeVar("M", bound=BaseModel)


def read_secret_file(path: Path, kind: type[M], variable: str) -> M:
    """Return the file that the setting ``variable`` names, as a ``kind``.

    Raises `SettingsError` that names the variable, the file and the entry at fault. What stands
    there is not repeated: somebody may have put a secret in the wrong place.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SettingsError(f"{variable} {path}: {error.strerror}", target=variable) from error
    except (yaml.YAMLError, UnicodeDecodeError):
        raise SettingsError(f"{variable} {path}: not YAML or JSON", target=variable) from None
    try:
        return kind.model_validate({} if content is None else content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        said = f"{variable} {path}: {where}: {first['msg']}"
        raise SettingsError(said, target=variable) from None
