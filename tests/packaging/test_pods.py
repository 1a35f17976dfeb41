"""What the chart renders for a test cluster runs on the built images, with no cluster in between.

The pods of the scenario `test-cluster` are taken as rendered: arguments, environment, mounted
files. They meet as in a cluster of one node, on a network of their own.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.charts import helm
from tests.packaging.containers import Container, Image, run, running

ROOT = Path(__file__).resolve().parents[2]
SCENARIO = "test-cluster"
GIVEN_OTHERWISE = {"/tmp", "/dev/shm"}
"""Mounted as empty folders in every container of ours."""


class Node:
    """One machine with the folders that volumes stand for, and the pods' network."""

    def __init__(self, folder: Path, images: dict[str, Image]) -> None:
        self.folder = folder
        self.objects = helm.render("darkroom", scenario=SCENARIO)
        self._images = images
        (catalog,) = helm.of_kind(self.objects, "ConfigMap")
        self._volumes = {"catalog": folder / "catalog", "data": folder / "data"}
        for place in self._volumes.values():
            place.mkdir()
        for name, text in catalog["data"].items():
            (self._volumes["catalog"] / name).write_text(text)

    @contextmanager
    def pod(self, kind: str, name: str, network: str) -> Iterator[Container]:
        image, arguments, given = self._given(kind, name)
        with running(image, self.folder, *arguments, network=network, **given) as container:
            yield container

    def run(self, kind: str, name: str, network: str, **changed: str) -> tuple[int, str]:
        """Run a pod to its end, with some variables changed."""
        image, arguments, given = self._given(kind, name)
        given["environment"] |= changed
        return run(image, self.folder, *arguments, network=network, **given)

    def _given(self, kind: str, name: str) -> tuple[Image, list[str], dict[str, Any]]:
        made = helm.named(self.objects, kind, name)
        pod = made["spec"] if kind == "Pod" else made["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        image = self._images[container["image"].split(":")[0]]
        user = pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]
        assert image.config["User"] == "{}:{}".format(*user)
        os.chown(self._volumes["data"], *user)
        return (
            image,
            container["args"],
            {"environment": _environment(container, name)}
            | {
                "mounts": {
                    mount["mountPath"]: self._volumes[mount["name"]]
                    for mount in container["volumeMounts"]
                    if mount["mountPath"] not in GIVEN_OTHERWISE
                }
            },
        )


def _environment(container: dict[str, Any], pod: str) -> dict[str, str]:
    fields = {"metadata.name": pod, "metadata.namespace": "darkroom"}
    return {
        each["name"]: each["value"]
        if "value" in each
        else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for each in container["env"]
    }


def differing(image: Image) -> list[str]:
    """Return our files that are others in the image than here: it was built before a change."""
    return [
        str(path.relative_to(ROOT))
        for package in ("darkroom", "api", "worker", "cli")
        for path in (ROOT / package).rglob("*.py")
        if _bytes(image.packages() / path.relative_to(ROOT)) != path.read_bytes()
    ]


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def test_the_rendered_pods_take_a_job_from_the_doctor_to_its_picture(
    api: Image, worker: Image, tmp_path: Path
) -> None:
    if changed := differing(api):
        pytest.skip(f"the images are older than {changed[0]}: `make images` renews them")
    node = Node(tmp_path, {"darkroom-api": api, "darkroom-worker": worker})
    with node.pod("Deployment", "darkroom-api", network="") as serving:
        serving.logged("listening")
        network = serving.network()
        with (
            # They listen on the API's ports, so on networks of their own, as every pod does.
            node.pod("Deployment", "darkroom-worker-local", network="") as working,
            node.pod("Deployment", "darkroom-sweeper", network="") as sweeping,
        ):
            sweeping.logged("listening")
            working.logged("ready")
            status, said = node.run(
                "Pod", "darkroom-doctor", network, DARKROOM_URL="http://127.0.0.1:8080"
            )
            assert status == 0, said
            assert working.stop() == 0
            assert sweeping.stop() == 0
        assert serving.stop() == 0
    assert list((tmp_path / "data" / "images").rglob("*.png")), said
