"""Options that several commands share."""

from typing import Annotated

import typer

Url = Annotated[str | None, typer.Option("--url", help="Address of the API (else DARKROOM_URL).")]
