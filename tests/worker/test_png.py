"""PNG files that carry their parameters and say that a machine made them."""

import io
import json
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from tests.samples import make_generation
from worker.engines.fake import fake_picture
from worker.png import DIGITAL_SOURCE_TYPE, encode

IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"


def written(index: int = 0, **fields: object) -> tuple[bytes, Image.Image]:
    asked = make_generation(width=64, height=64, **fields)
    picture = fake_picture(asked.prompt, asked.seeds[index], 64, 64)
    png = encode(picture, asked, index, "rev-1")
    return png, Image.open(io.BytesIO(png))


def test_the_pixels_come_back_as_they_were() -> None:
    _, picture = written(prompt="a boat", seed=3)
    assert np.array_equal(np.asarray(picture), np.asarray(fake_picture("a boat", 3, 64, 64)))


def test_the_parameters_stand_in_the_form_that_other_tools_read() -> None:
    _, picture = written(
        prompt="ein Leuchtturm, München ☾", negative_prompt="fog", num_inference_steps=20, seed=7
    )
    first, second, third = picture.info["parameters"].split("\n")
    assert first == "ein Leuchtturm, München ☾"
    assert second == "Negative prompt: fog"
    facts = dict(fact.split(": ", 1) for fact in third.split(", "))
    assert facts["Steps"] == "20"
    assert (facts["Seed"], facts["Size"], facts["CFG scale"]) == ("7", "64x64", "7.5")
    assert (facts["Sampler"], facts["Model"]) == ("DDIMScheduler", "demo")


def test_the_json_chunk_makes_this_one_picture_again() -> None:
    _, picture = written(index=2, num_images=4, seed=10, strength=None)
    asked = json.loads(picture.info["darkroom"])
    assert (asked["seed"], asked["num_images"]) == (12, 1)
    assert asked.pop("model_revision") == "rev-1"
    assert make_generation(**asked).prompt == "a lighthouse at dusk"


def test_the_xmp_packet_marks_the_picture_as_made_by_a_trained_model() -> None:
    _, picture = written()
    packet = ElementTree.fromstring(picture.info["XML:com.adobe.xmp"].strip("\ufeff"))
    (description,) = packet.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    assert description.attrib[f"{IPTC}DigitalSourceType"] == DIGITAL_SOURCE_TYPE
    assert DIGITAL_SOURCE_TYPE.endswith("/trainedAlgorithmicMedia")


def test_the_same_pixels_and_parameters_make_the_same_file() -> None:
    assert written(seed=5)[0] == written(seed=5)[0]
    assert written(seed=5)[0] != written(seed=6)[0]
    assert written(prompt="a boat")[0] != written(prompt="a ship")[0]


def test_a_picture_with_a_decoders_grain_is_no_larger_than_by_the_slower_default() -> None:
    rows = np.linspace(0, 200, 256)
    waves = 30 * np.sin(np.outer(rows, rows) / 9000)
    smooth = rows[:, None] + waves
    grain = np.random.default_rng(0).normal(0, 1.5, (256, 256, 3))
    pixels = np.stack([smooth, smooth.T, 255 - smooth], axis=-1) + grain
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    plain = io.BytesIO()
    picture.save(plain, "PNG", compress_level=4)
    ours = encode(picture, make_generation(width=256, height=256), 0, "rev-1")
    assert len(ours) < len(plain.getvalue()) * 1.02
