"""Random valid values make objects that a cluster takes."""

from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.charts.generated import names, values
from tests.charts.helm import Object, containers, of_kind, pods, render
from tests.charts.restricted import violations
from tests.charts.validation import amount, problems

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


def check_quotas(objects: list[Object]) -> None:
    """Kueue admits a Job only where each resource that its pod asks for is covered, and fits."""
    asked: dict[str, dict[str, float]] = {}
    for owner, pod in pods(of_kind(objects, "PodTemplate")):
        need = asked.setdefault(owner["metadata"]["labels"]["app.kubernetes.io/component"], {})
        for container in containers(pod):
            for name, quantity in container["resources"]["requests"].items():
                need[name] = max(need.get(name, 0.0), amount(quantity))
    for each in of_kind(objects, "ClusterQueue"):
        need = asked[each["metadata"]["labels"]["app.kubernetes.io/component"]]
        (group,) = each["spec"]["resourceGroups"]
        (flavor,) = group["flavors"]
        quota = {one["name"]: amount(one["nominalQuota"]) for one in flavor["resources"]}
        assert list(quota) == group["coveredResources"]
        assert set(quota) == set(need)
        assert all(quota[name] >= need[name] for name in need)
