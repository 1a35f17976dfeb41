"""The chart, rendered as it is installed next to Darkroom."""

from typing import Any

from tests.charts import helm
from tests.charts.helm import Object

NAME = "gpu-observability"
CHART = helm.CHARTS / NAME
SCENARIOS = sorted(helm.scenarios(NAME))
RELEASE, NAMESPACE = "watch", "gpu-monitoring"


def scenario(name: str, values: dict[str, Any] | None = None) -> list[Object]:
    """Return the objects of a file in ci/, with values over it."""
    return helm.render(NAME, values, scenario=name, release=RELEASE, namespace=NAMESPACE)


def only(objects: list[Object], kind: str, name_end: str = "") -> Object:
    """Return the one object of a kind whose name ends like this."""
    (found,) = (
        one for one in helm.of_kind(objects, kind) if one["metadata"]["name"].endswith(name_end)
    )
    return found
