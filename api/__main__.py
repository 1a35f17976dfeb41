"""``python -m api``: the API process."""

import sys

from api.wiring import serve

if __name__ == "__main__":
    sys.exit(serve())
