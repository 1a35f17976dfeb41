"""What a catalog entry may ask of its family."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from darkroom.catalog import LoraSource, Model, ModelDefaults, ModelLimits, ModelOptions
from darkroom.families import FAMILIES, FLOW_SCHEDULERS, FamilyName

DOCS = Path(__file__).resolve().parents[2] / "docs" / "models.md"
FLOW = "FlowMatchEulerDiscreteScheduler"


def entry(**fields: Any) -> Model:
    base = {"name": "m", "source": "m", "revision": "1", "licence": "MIT"}
    return Model.model_validate({**base, "seconds_per_megapixel_step": 1.0, **fields})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"family": "stable-cascade"}, "family"),
        ({"family": "flux", "scheduler": "DDIMScheduler"}, "DDIMScheduler cannot run flux"),
        ({"family": "flux", "schedulers": ["DDIMScheduler"]}, "DDIMScheduler cannot run flux"),
        ({"family": "flux", "schedulers": ["FlowMatchHeunDiscreteScheduler"]}, "cannot run flux"),
        ({"family": "stable-diffusion", "schedulers": [FLOW]}, "cannot run stable-diffusion"),
        ({"family": "z-image", "defaults": {"width": 520}}, "defaults.width must be a multiple"),
        ({"family": "flux", "options": {"attention_slicing": True}}, "options.attention_slicing"),
        ({"family": "qwen-image", "options": {"channels_last": True}}, "options.channels_last"),
        ({"options": {"compile": True, "cpu_offload": "sequential"}}, "compile does not go"),
        ({"options": {"cpu_offload": "disk"}}, "cpu_offload"),
        ({"options": {"turbo": True}}, "turbo"),
    ],
    ids=str,
)
def test_an_entry_that_its_family_cannot_do_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        entry(**fields)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_entry_without_a_scheduler_gets_one_of_its_familys(family: FamilyName) -> None:
    is_flow = FAMILIES[family].is_flow
    assert entry(family=family).scheduler == (FLOW if is_flow else "DPMSolverMultistepScheduler")


def test_an_entry_without_a_family_takes_whatever_its_files_are() -> None:
    model = entry(scheduler=FLOW, schedulers=["DDIMScheduler"])
    assert model.side_multiple == 8
    assert model.options.cpu_offload == "none"


def test_every_field_and_family_is_documented() -> None:
    told = DOCS.read_text()
    entries = (Model, ModelDefaults, ModelLimits, ModelOptions, LoraSource)
    fields = {name for entry in entries for name in entry.model_fields}
    for name in (*fields, *FAMILIES, *FLOW_SCHEDULERS):
        assert f"`{name}" in told, f"docs/models.md says nothing of {name}"
