"""A catalog that cannot work is refused by the entry at fault; a job goes to the right pool."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from darkroom.catalog import Catalog, load_catalog
from darkroom.errors import NoPoolForJob, SettingsError, UnknownModel
from tests.samples import make_generation

MODEL: dict[str, Any] = {
    "name": "demo",
    "source": "demo/pipeline",
    "revision": "1",
    "seconds_per_megapixel_step": 0.5,
    "licence": "MIT",
}
GOOD: dict[str, Any] = {
    "version": 1,
    "default_model": "demo",
    "models": [MODEL, {**MODEL, "name": "large"}],
    "pools": [
        {"name": "short", "models": ["demo"], "max_gpu_seconds": 10, "price_per_hour_usd": 3.6},
        {"name": "long", "models": ["demo", "large"], "max_gpu_seconds": 100},
    ],
}


def write(folder: Path, data: object) -> Path:
    path = folder / "catalog.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def with_value(where: str, value: object) -> dict[str, Any]:
    """Return the good catalog with one entry changed; ``where`` is like ``models.0.name``."""
    data = deepcopy(GOOD)
    at: Any = data
    *path, last = (int(part) if part.isdigit() else part for part in where.split("."))
    for part in path:
        at = at[part]
    at[last] = value
    return data


def without(where: str) -> dict[str, Any]:
    data = deepcopy(GOOD)
    at: Any = data
    *path, last = (int(part) if part.isdigit() else part for part in where.split("."))
    for part in path:
        at = at[part]
    del at[last]
    return data


def test_a_good_catalog_is_read(tmp_path: Path) -> None:
    catalog = load_catalog(write(tmp_path, GOOD))
    assert [model.name for model in catalog.models] == ["demo", "large"]
    assert catalog.folder == tmp_path.resolve()
    assert catalog.model("demo").defaults.num_inference_steps == 25


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (with_value("version", 2), "version"),
        (with_value("default_model", "none"), "default_model"),
        (with_value("models", []), "models"),
        (with_value("pools", []), "pools"),
        (with_value("models.0.name", "Not A Name"), "models.0.name"),
        (with_value("models.0.name", "large"), "models: a name stands twice"),
        (with_value("pools.0.name", "long"), "pools: a name stands twice"),
        (with_value("models.1.revision", ""), "models.1.revision"),
        (without("models.0.licence"), "models.0.licence"),
        (without("models.0.revision"), "models.0.revision"),
        (without("models.0.seconds_per_megapixel_step"), "seconds_per_megapixel_step"),
        (with_value("models.0.seconds_per_megapixel_step", 0), "seconds_per_megapixel_step"),
        (with_value("models.0.dtype", "int8"), "models.0.dtype"),
        (with_value("models.0.kinds", ["video"]), "models.0.kinds"),
        (with_value("models.0.scheduler", "os.system"), "models.0.scheduler"),
        (with_value("models.0.surprise", 1), "models.0.surprise"),
        (with_value("models.0.limits", {"max_side": 256}), "limits.max_side (256)"),
        (with_value("models.0.limits", {"max_pixels": 1000}), "limits.max_pixels (1000)"),
        (with_value("models.0.limits", {"max_steps": 10}), "max_steps (10)"),
        (with_value("models.0.limits", {"max_images": 9}), "models.0.limits.max_images"),
        (with_value("models.0.defaults", {"width": 500}), "models.0.defaults.width"),
        (
            with_value("models.0.loras", [{"name": "ink", "source": "x", "sha256": "short"}]),
            "models.0.loras.0.sha256",
        ),
        (with_value("pools.0.models", ["none"]), "pool short: unknown model none"),
        (with_value("pools.0.models", []), "pools.0.models"),
        (with_value("pools.1.models", ["demo"]), "no pool serves model large"),
        (with_value("pools.0.max_gpu_seconds", 0), "pools.0.max_gpu_seconds"),
        (with_value("pools.0.replicas", {"min": 3, "max": 2}), "pools.0.replicas"),
        (with_value("pools.0.concurrency", 0), "pools.0.concurrency"),
        (with_value("pools.0.batch_speedup", 0.5), "pools.0.batch_speedup"),
        (with_value("pools.0.batch_speedup", 1.5), "batch_speedup (1.5) is over concurrency (1)"),
        (with_value("pools.0.price_per_hour_usd", -1), "pools.0.price_per_hour_usd"),
        ("[1, 2", "not a YAML map"),
        ("just text", "not a YAML map"),
        ("", "not a YAML map"),
        ("!!python/object/apply:os.getcwd []", "not a YAML map"),
    ],
    ids=str,
)
def test_a_catalog_that_cannot_work_is_refused_by_entry(
    tmp_path: Path, data: object, named: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load_catalog(write(tmp_path, data))
    assert named in refused.value.message
    assert "catalog.yaml" in refused.value.message


def test_a_catalog_that_is_missing_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        load_catalog(tmp_path / "none.yaml")
    assert refused.value.target == "DARKROOM_CATALOG"


@pytest.mark.parametrize(
    ("model", "gpu_seconds", "pool"),
    [("demo", 0.1, "short"), ("demo", 10, "short"), ("demo", 10.1, "long"), ("large", 1, "long")],
)
def test_a_job_goes_to_the_first_pool_that_takes_it(
    model: str, gpu_seconds: float, pool: str
) -> None:
    assert Catalog.model_validate(GOOD).route(model, gpu_seconds).name == pool


def test_a_job_too_long_for_every_pool_is_told_the_limit() -> None:
    with pytest.raises(NoPoolForJob, match=r"101 GPU seconds.*is 100"):
        Catalog.model_validate(GOOD).route("large", 101)


def test_an_unknown_model_is_told_which_there_are() -> None:
    with pytest.raises(UnknownModel, match="demo, large") as refused:
        Catalog.model_validate(GOOD).model("none")
    assert refused.value.target == "model"


def test_an_unknown_pool_is_told_which_there_are() -> None:
    with pytest.raises(SettingsError, match="short, long"):
        Catalog.model_validate(GOOD).pool("none")


def test_the_estimate_grows_with_pixels_steps_and_pictures() -> None:
    model = Catalog.model_validate(GOOD).model("demo")
    asked = {"width": 1000, "height": 1000, "num_inference_steps": 20, "num_images": 2}
    assert model.gpu_seconds(make_generation(**asked)) == pytest.approx(0.5 * 1 * 20 * 2)
    halved = make_generation(**{**asked, "width": 500})
    assert model.gpu_seconds(halved) == pytest.approx(10)


def test_gpu_seconds_cost_what_the_pool_costs() -> None:
    catalog = Catalog.model_validate(GOOD)
    assert catalog.pool("short").cost_usd(1_000) == pytest.approx(1.0)
    assert catalog.pool("long").cost_usd(1_000) == 0


def test_the_default_scheduler_is_always_allowed() -> None:
    data = with_value("models.0.schedulers", ["DDIMScheduler"])
    allowed = Catalog.model_validate(data).model("demo").schedulers_allowed()
    assert allowed == ("DPMSolverMultistepScheduler", "DDIMScheduler")
