"""Each option of a catalog entry is really applied: the modules tell."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.attention_processor import SlicedAttnProcessor

from darkroom.errors import ModelUnavailable
from tests.worker.engines.asking import ask, farthest, run
from tests.worker.engines.conftest import make_model, no_loras
from tests.worker.engines.tiny_families import save_tiny
from worker.engines.diffusers import DiffusersEngine
from worker.engines.diffusers_options import denoiser, place
from worker.engines.diffusers_pipelines import load_pipeline
from worker.engines.diffusers_sizes import exact_footprint, expected_footprint

CPU = torch.device("cpu")
STAND_IN = torch.device("meta")
"""An accelerator for machines without one: weights can be sent there, and nothing computed."""


@pytest.fixture(scope="module")
def flux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("flux", tmp_path_factory.mktemp("flux"))


def loaded(folder: Path, **options: Any) -> Any:
    return load_pipeline(make_model(options=options), folder, CPU)


def test_without_options_nothing_is_changed(tiny_folder: Path) -> None:
    pipeline = loaded(tiny_folder)
    weights = pipeline.unet.conv_in.weight
    assert weights.is_contiguous()
    assert not pipeline.vae.use_tiling
    assert not pipeline.vae.use_slicing
    assert pipeline.unet._compiled_call_impl is None
    assert not any(isinstance(one, SlicedAttnProcessor) for one in _processors(pipeline))


def _processors(pipeline: Any) -> list[Any]:
    return list(pipeline.unet.attn_processors.values())


def test_the_convolutions_of_denoiser_and_autoencoder_lie_with_channels_last(
    tiny_folder: Path,
) -> None:
    pipeline = loaded(tiny_folder, channels_last=True)
    for part in (pipeline.unet, pipeline.vae):
        weights = part.conv_in.weight if hasattr(part, "conv_in") else part.encoder.conv_in.weight
        assert weights.is_contiguous(memory_format=torch.channels_last)
        assert not weights.is_contiguous()


def test_the_autoencoder_works_in_tiles_and_slices(tiny_folder: Path) -> None:
    tiled = loaded(tiny_folder, vae_tiling=True)
    sliced = loaded(tiny_folder, vae_slicing=True)
    assert (tiled.vae.use_tiling, tiled.vae.use_slicing) == (True, False)
    assert (sliced.vae.use_tiling, sliced.vae.use_slicing) == (False, True)


def test_every_attention_of_the_denoiser_is_sliced(tiny_folder: Path) -> None:
    processors = _processors(loaded(tiny_folder, attention_slicing=True))
    assert processors
    assert all(isinstance(one, SlicedAttnProcessor) for one in processors)


def test_a_u_net_is_compiled_as_a_whole_and_a_transformer_by_its_blocks(
    tiny_folder: Path, flux_folder: Path
) -> None:
    unet = loaded(tiny_folder, compile=True).unet
    assert unet._compiled_call_impl is not None
    transformer = loaded(flux_folder, compile=True).transformer
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    assert all(block._compiled_call_impl is not None for block in blocks)


def test_pictures_hardly_depend_on_the_options(tiny_folder: Path) -> None:
    engine = DiffusersEngine("cpu", no_loras)
    options = {"channels_last": True, "attention_slicing": True, "vae_slicing": True}
    engine.load(make_model(name="plain"), tiny_folder)
    engine.load(make_model(name="slow", options=options), tiny_folder)
    ((plain,),) = run(engine, ask(model="plain"))
    ((slow,),) = run(engine, ask(model="slow"))
    assert farthest(plain, slow) <= 2


def test_an_option_that_the_pipeline_does_not_offer_is_unavailable(flux_folder: Path) -> None:
    with pytest.raises(
        ModelUnavailable, match=r"options\.attention_slicing is not offered by Flux"
    ):
        loaded(flux_folder, attention_slicing=True)


@pytest.mark.parametrize("option", ["vae_tiling", "vae_slicing"])
def test_an_autoencoder_without_tiles_or_slices_is_unavailable(
    tiny_folder: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = option.replace("vae_", "enable_")
    monkeypatch.setattr(diffusers.AutoencoderKL, method, None)
    with pytest.raises(ModelUnavailable, match=option):
        loaded(tiny_folder, **{option: True})


def test_a_model_offloaded_by_its_parts_rests_on_the_host_behind_their_hooks(
    flux_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "meta", torch.cpu, raising=False)  # asked to empty its cache
    pipeline = loaded(flux_folder)
    place(pipeline, make_model(options={"cpu_offload": "model"}), STAND_IN)
    for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder):
        assert type(part._hf_hook).__name__ == "CpuOffload"
        assert {one.device.type for one in part.parameters()} == {"cpu"}


def test_a_model_offloaded_by_its_layers_has_a_hook_on_each(flux_folder: Path) -> None:
    pipeline = loaded(flux_folder)
    place(pipeline, make_model(options={"cpu_offload": "sequential"}), STAND_IN)
    for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder):
        layers = [one for one in part.modules() if list(one.parameters(recurse=False))]
        assert {type(one._hf_hook).__name__ for one in layers} == {"AlignDevicesHook"}
        assert all(one._hf_hook.offload for one in layers)


def test_offloaded_weights_take_of_the_device_what_their_largest_part_takes(
    flux_folder: Path,
) -> None:
    model = make_model(options={"cpu_offload": "model"}, dtype="float32")
    pipeline = loaded(flux_folder)
    whole = exact_footprint(pipeline, make_model(), CPU).device_bytes
    offloaded = exact_footprint(pipeline, model, STAND_IN)
    largest = max(
        sum(one.nbytes for one in (*part.parameters(), *part.buffers()))
        for part in pipeline.components.values()
        if isinstance(part, torch.nn.Module)
    )
    assert (offloaded.device_bytes, offloaded.host_bytes) == (largest, whole)
    expected = expected_footprint(model, flux_folder, STAND_IN)
    assert expected.host_bytes == pytest.approx(whole, rel=0.001)


def test_on_a_cpu_nothing_is_offloaded(flux_folder: Path) -> None:
    pipeline = loaded(flux_folder, cpu_offload="model")
    assert not hasattr(denoiser(pipeline), "_hf_hook")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_on_a_gpu_an_offloaded_model_makes_the_same_picture_and_leaves_the_device(
    tiny_folder: Path, offload: str
) -> None:
    engine = DiffusersEngine("cuda", no_loras)
    engine.load(make_model(name="plain"), tiny_folder)
    ((plain,),) = run(engine, ask(model="plain"))
    engine.unload("plain")
    engine.load(make_model(name="slow", options={"cpu_offload": offload}), tiny_folder)
    ((slow,),) = run(engine, ask(model="slow"))
    assert farthest(plain, slow) <= 1
    assert engine.memory().used_bytes < engine.footprint("slow").host_bytes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_compiled_model_makes_nearly_the_same_picture(tiny_folder: Path) -> None:
    engine = DiffusersEngine("cuda", no_loras)
    engine.load(make_model(name="plain"), tiny_folder)
    engine.load(make_model(name="fast", options={"compile": True}), tiny_folder)
    ((plain,),) = run(engine, ask(model="plain"))
    ((fast,),) = run(engine, ask(model="fast"))
    assert farthest(plain, fast) <= 2
