"""Where weights are looked for."""

from pathlib import Path

import pytest

from darkroom.catalog import Catalog, LoraSource, load_catalog
from darkroom.errors import ModelUnavailable
from tests.worker.site import write_catalog
from worker.models import locate, locate_lora


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return load_catalog(write_catalog(tmp_path))


def test_a_source_is_a_folder_beside_the_catalog(catalog: Catalog) -> None:
    assert locate(catalog.models[0], catalog) == catalog.folder / "weights"


@pytest.mark.parametrize("source", ["gone", "nobody/nothing"])
def test_a_source_that_is_not_on_this_machine_is_unavailable(catalog: Catalog, source: str) -> None:
    model = catalog.models[0].model_copy(update={"source": source})
    with pytest.raises(ModelUnavailable, match=source):
        locate(model, catalog)


def test_a_lora_is_a_file_or_a_named_file_in_a_folder(catalog: Catalog) -> None:
    file = catalog.folder / "loras" / "ink.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    alone = LoraSource(name="ink", source="loras/ink.safetensors")
    inside = LoraSource(name="ink", source="loras", weight_name="ink.safetensors")
    assert locate_lora(alone, catalog) == locate_lora(inside, catalog) == file
    with pytest.raises(ModelUnavailable, match="no such file"):
        locate_lora(inside.model_copy(update={"weight_name": "gone"}), catalog)
