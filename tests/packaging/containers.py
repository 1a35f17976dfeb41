"""Images that buildah has on this machine, and containers of them as the cluster would run them.

A container here is what Pod Security "restricted" and a read-only root leave: the image's numeric
user, no capability, no new privileges, nothing writable but /tmp, /dev/shm and what is mounted.
"""

import json
import os
import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PLAIN = ["nosuid", "nodev"]


def why_not(name: str) -> str | None:
    """Return why containers of image ``name`` cannot run here; None if they can."""
    absent = [tool for tool in ("buildah", "runc") if shutil.which(tool) is None]
    if absent:
        return f"no {' and no '.join(absent)} on this machine"
    if os.geteuid():
        return "containers of a machine's own images need root"
    found = subprocess.run(
        ["buildah", "inspect", "--type", "image", name], capture_output=True, text=True
    )
    return f"no image {name} here: `make images` builds it" if found.returncode else None


@dataclass
class Image:
    """What an image says, and its files as a folder."""

    config: dict[str, Any]
    root: Path

    def packages(self) -> Path:
        (folder,) = self.root.glob("opt/darkroom/lib/python3*/site-packages")
        return folder


@contextmanager
def mounted(name: str) -> Iterator[Image]:
    said = _buildah("inspect", "--type", "image", name)
    container = _buildah("from", "--pull-never", name).strip()
    try:
        root = Path(_buildah("mount", container).strip())
        yield Image(json.loads(said)["OCIv1"]["config"], root)
    finally:
        _buildah("rm", container)


def _buildah(*words: str) -> str:
    return subprocess.run(["buildah", *words], check=True, capture_output=True, text=True).stdout


@dataclass
class Container:
    """One that runs, and the log lines of it so far."""

    name: str
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.news:
                self.lines.append(line.rstrip())
                self.news.notify_all()
        with self.news:
            self.news.notify_all()

    def logged(self, event: str, seconds: float = 90) -> dict[str, Any]:
        """Wait for a log line and return it."""

        def found() -> list[dict[str, Any]]:
            records = [json.loads(line) for line in self.lines if line.startswith("{")]
            return [record for record in records if record["event"] == event]

        with self.news:
            over = self.news.wait_for(lambda: found() or self.process.poll() is not None, seconds)
            assert over, f"no {event} in {seconds} s: {self.lines}"
            assert found(), f"it ended without {event}: {self.lines}"
            return found()[0]

    def network(self) -> str:
        """Return its network namespace, which others may join."""
        said = subprocess.run(
            ["runc", "state", self.name], check=True, capture_output=True, text=True
        )
        return f"/proc/{json.loads(said.stdout)['pid']}/ns/net"

    def stop(self, seconds: float = 60) -> int:
        """Ask it to stop as a kubelet does; return the exit status."""
        subprocess.run(["runc", "kill", self.name, "TERM"], check=True, capture_output=True)
        return self.process.wait(seconds)


@contextmanager
def running(
    image: Image,
    folder: Path,
    *arguments: str,
    mounts: Mapping[str, Path] | None = None,
    environment: Mapping[str, str] | None = None,
    network: str | None = None,
) -> Iterator[Container]:
    """Run a container; ``folder`` is for its bundle.

    ``mounts`` are folders of this machine by where they shall be. ``network`` is the machine's
    (None), one of its own (empty), or the namespace of another container.
    """
    name = f"darkroom-{uuid.uuid4().hex[:12]}"
    bundle = folder / name
    bundle.mkdir()
    specification = _specification(image, arguments, mounts or {}, environment or {})
    if network is not None:
        joined = {"type": "network", "path": network} if network else {"type": "network"}
        specification["linux"]["namespaces"].append(joined)
    (bundle / "config.json").write_text(json.dumps(specification))
    process = subprocess.Popen(
        ["runc", "run", "--bundle", str(bundle), name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    container = Container(name, process)
    reader = threading.Thread(target=container.read, daemon=True)
    reader.start()
    try:
        yield container
    finally:
        subprocess.run(["runc", "delete", "--force", name], capture_output=True)
        process.wait(30)
        reader.join(30)


def run(image: Image, folder: Path, *arguments: str, **options: Any) -> tuple[int, str]:
    """Run a container to its end; return its exit status and all that it said."""
    with running(image, folder, *arguments, **options) as container:
        status = container.process.wait(120)
        with container.news:
            said = "\n".join(container.lines)
    return status, said


def _specification(
    image: Image,
    arguments: tuple[str, ...],
    mounts: Mapping[str, Path],
    environment: Mapping[str, str],
) -> dict[str, Any]:
    user, group = map(int, image.config["User"].split(":"))
    mounted_here = [
        _mount("/proc", "proc", "proc", [*PLAIN, "noexec"]),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "mode=755", "size=65536k"]),
        _mount("/dev/shm", "tmpfs", "shm", [*PLAIN, "noexec", "mode=1777"]),
        _mount("/sys", "none", "/sys", ["rbind", "ro", *PLAIN]),
        _mount("/tmp", "tmpfs", "tmpfs", [*PLAIN, "mode=1777"]),
    ]
    mounted_here += [
        _mount(where, "none", str(source), ["rbind", "rw", *PLAIN])
        for where, source in mounts.items()
    ]
    variables = [*image.config["Env"], *(f"{key}={value}" for key, value in environment.items())]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(image.root), "readonly": True},
        "process": {
            "user": {"uid": user, "gid": group},
            "args": [*image.config["Entrypoint"], *(arguments or image.config["Cmd"])],
            "env": variables,
            "cwd": image.config["WorkingDir"],
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "mounts": mounted_here,
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/sys", "/proc/bus", "/proc/irq"],
        },
    }


def _mount(where: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": where, "type": kind, "source": source, "options": options}
