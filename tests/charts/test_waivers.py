"""What the policy scan (.ci/scan) is told to overlook: each finding once, each with its reason."""

import re
from collections import Counter

import pytest

from tests.charts import helm

WAIVER = re.compile(r"(CKV2?_[A-Z0-9_]+)=([^=]{30,})")  # the scan splits at every "="
CASES = [
    (chart, name) for chart in ("darkroom", "gpu-observability") for name in helm.scenarios(chart)
]


@pytest.mark.parametrize(("chart", "name"), CASES)
def test_a_finding_is_waived_with_a_reason_on_the_object_alone(chart: str, name: str) -> None:
    for one in helm.render(chart, scenario=name):
        notes = one["metadata"].get("annotations") or {}
        waived = [text for key, text in notes.items() if key.startswith("checkov.io/skip")]
        found = [WAIVER.fullmatch(text) for text in waived]
        assert all(found), waived
        assert not [
            check for check, times in Counter(m[1] for m in found if m).items() if times > 1
        ]
        for _, pod in helm.pods([one]):
            if pod is not one:  # a waiver in a pod template would replace workers when it changes
                inner = pod["metadata"].get("annotations") or {}
                assert not [key for key in inner if key.startswith("checkov.io/")]


def test_no_object_is_waived_for_what_only_root_needs_but_those_on_gpu_nodes() -> None:
    rooted = {
        (chart, one["metadata"]["name"])
        for chart, name in CASES
        for one in helm.render(chart, scenario=name)
        for text in (one["metadata"].get("annotations") or {}).values()
        if str(text).startswith(("CKV_K8S_23=", "CKV_K8S_39="))
    }
    assert {chart for chart, _ in rooted} == {"gpu-observability"}
    assert {name.removeprefix("darkroom-gpu-observability-") for _, name in rooted} == {
        "exporter",
        "device-plugin",
    }
