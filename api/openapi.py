"""The committed OpenAPI document, openapi.json: generated, and checked to be current.

``python -m api.openapi --write`` writes the file; ``--check`` fails when it is stale.
"""

import argparse
import json
import sys
from pathlib import Path

from api.settings import ApiSettings
from api.wiring import build
from darkroom.settings import DarkroomSettings

FILE = Path(__file__).resolve().parent.parent / "openapi.json"


def render() -> str:
    """Return the text of openapi.json."""
    urls = dict.fromkeys(("queue_url", "jobstore_url", "imagestore_url"), "memory://")
    shared = DarkroomSettings.model_validate(urls)  # unlike the constructor: no environment
    app = build(ApiSettings.model_validate({}), shared)
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write or check the file; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m api.openapi", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write openapi.json")
    action.add_argument("--check", action="store_true", help="fail when openapi.json is stale")
    text = render()
    if parser.parse_args().write:
        FILE.write_text(text)
        return 0
    if not FILE.is_file() or FILE.read_text() != text:
        sys.stderr.write("openapi.json is stale: run python -m api.openapi --write\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
