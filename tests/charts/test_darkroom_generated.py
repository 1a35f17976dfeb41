"""Random valid values make objects that a cluster takes."""

from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.charts.generated import names, values
from tests.charts.helm import of_kind, pods, render
from tests.charts.restricted import violations
from tests.charts.validation import problems

BOUNDED = settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # each example costs a run of helm: none for shrinking
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@BOUNDED
@given(
    values(), st.builds("{}{}".format, names, st.sampled_from(["", "-darkroom", "-" + "x" * 25]))
)
def test_random_values_make_objects_that_a_cluster_takes(
    chosen: dict[str, Any], release: str
) -> None:
    objects = render("darkroom", chosen, release=release)
    assert not [problem for each in objects for problem in problems(each)]
    keys = [
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in objects
    ]
    assert len(set(keys)) == len(keys)
    assert not {name for _, _, name in keys if len(name) > 63}
    for _, pod in pods(objects):
        assert not violations(pod)
    check_quotas(objects)


def check_quotas(objects: list[dict[str, Any]]) -> None:
    """Kueue admits no Job that asks for a resource which its ClusterQueue does not cover."""
    asked = {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: set(
            each["template"]["spec"]["containers"][0]["resources"]["requests"]
        )
        for each in of_kind(objects, "PodTemplate")
    }
    for each in of_kind(objects, "ClusterQueue"):
        component = each["metadata"]["labels"]["app.kubernetes.io/component"]
        for group in each["spec"]["resourceGroups"]:
            assert set(group["coveredResources"]) == asked[component]
            for flavor in group["flavors"]:
                assert [one["name"] for one in flavor["resources"]] == group["coveredResources"]
