"""`python -m worker`: what the container starts."""

import sys

from darkroom.errors import SettingsError
from worker.wiring import serve

try:
    sys.exit(serve())
except SettingsError as error:
    sys.exit(f"darkroom worker: {error.message}")
