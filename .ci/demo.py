"""`make demo`: serve on a free port, ask for one picture over HTTP, save it, say where time went.

Everything runs through the same doors as for a user: `darkroom up` and `darkroom submit`.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DARKROOM = [sys.executable, "-m", "cli"]


def main() -> int:
    """Run the demo; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install-seconds", type=int, default=0)
    parser.add_argument("--data-dir", type=Path, help="without it, the environment names backends")
    parser.add_argument("--out", type=Path, default=ROOT / "demo.png")
    parser.add_argument("prompt")
    arguments = parser.parse_args()
    backends = []
    if arguments.data_dir is not None:
        arguments.data_dir.mkdir(parents=True, exist_ok=True)
        backends = ["--data-dir", str(arguments.data_dir)]
    started = time.monotonic()
    up = subprocess.Popen(  # noqa: S603 -- our own command
        [*DARKROOM, "up", "--port", "0", *backends],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = _address(up)
        ready = time.monotonic()
        submit = [*DARKROOM, "submit", "--url", url, "--out", str(arguments.out), "--"]
        asked = subprocess.run(  # noqa: S603 -- our own command, the prompt is one argument
            [*submit, arguments.prompt], cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True
        )
        answered = time.monotonic()
    finally:
        up.send_signal(signal.SIGTERM)
        stopped = up.wait()
    if asked.returncode or stopped:
        return asked.returncode or stopped  # the line above on stderr says why
    *said, split = asked.stdout.splitlines()
    print("\n".join(said))
    print(f"install {arguments.install_seconds} s, start-up {ready - started:.1f} s, {split};")
    print(
        f"submit to picture {answered - ready:.1f} s,"
        f" all {arguments.install_seconds + time.monotonic() - started:.1f} s"
    )
    return 0


def _address(up: subprocess.Popen[str]) -> str:
    """Return the address that `up` prints once everything is ready."""
    assert up.stdout is not None
    for line in up.stdout:
        if " ready at " in line:
            return line.split(" ready at ")[1].split()[0]
    raise SystemExit("darkroom up ended before it was ready; see its lines above")


if __name__ == "__main__":
    sys.exit(main())
