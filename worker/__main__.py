"""`python -m worker`: what the container and `darkroom worker` start."""

import sys

from worker.wiring import serve

sys.exit(serve())
