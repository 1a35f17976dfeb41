"""One Chromium and one Darkroom on the fake engine for the tests of the page; a fresh page each.

The fake engine draws noise, a step every few hundredths of a second; one test alone, in
test_page.py, takes the model that ships.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from playwright.sync_api import Browser, expect

from api.auth.api_keys import digest, new_key
from darkroom.clock import SystemClock
from tests.e2e.browser import Visit, chromium, visit
from tests.e2e.page_stack import running_darkroom

FOLDER = "weights"  # an empty folder: enough for the fake engine
_DEMO = {
    "name": "demo",
    "title": "All kinds",
    "source": FOLDER,
    "revision": "1",
    "kinds": ["text_to_image", "image_to_image", "inpainting"],
    "scheduler": "DDIMScheduler",
    "defaults": {"width": 128, "height": 128, "num_inference_steps": 20},
    "limits": {"max_side": 512, "max_pixels": 262144},
    "seconds_per_megapixel_step": 1.0,
    "licence": "MIT",
}
CATALOG = {
    "version": 1,
    "default_model": "demo",
    "models": [
        _DEMO,
        {**_DEMO, "name": "words-only", "title": "Words only", "kinds": ["text_to_image"]},
        {**_DEMO, "name": "broken", "title": "Whose weights are missing", "source": "no/such/one"},
    ],
    "pools": [
        {"name": "local", "models": ["demo", "words-only", "broken"], "max_gpu_seconds": 3600}
    ],
}


@pytest.fixture(scope="package")
def fake_engine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a Darkroom that needs no torch, with models of every kind."""
    catalog: Path = tmp_path_factory.mktemp("catalog") / "catalog.yaml"
    (catalog.parent / FOLDER).mkdir()
    catalog.write_text(yaml.safe_dump(CATALOG))
    return {
        "DARKROOM_CATALOG": str(catalog),
        "DARKROOM_WORKER_ENGINE": "fake",
        "DARKROOM_WORKER_FAKE_STEP_SECONDS": "0.04",
    }


@pytest.fixture(scope="package")
def darkroom(
    tmp_path_factory: pytest.TempPathFactory, fake_engine: dict[str, str]
) -> Iterator[str]:
    with running_darkroom(tmp_path_factory.mktemp("darkroom"), **fake_engine) as address:
        yield address


@pytest.fixture(scope="package")
def keys() -> dict[str, str]:
    """API keys by what is the matter with them."""
    return {name: new_key() for name in ("good", "expired", "submit-only", "newcomer")}


@pytest.fixture(scope="package")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, fake_engine: dict[str, str], keys: dict[str, str]
) -> Iterator[str]:
    """The address of a Darkroom that asks for keys."""
    folder = tmp_path_factory.mktemp("guarded")
    file = _write_keys(folder, keys)
    variables = {"DARKROOM_API_AUTH": "api_keys", "DARKROOM_API_KEYS_FILE": str(file)}
    with running_darkroom(folder, **fake_engine, **variables) as address:
        yield address


def _write_keys(folder: Path, keys: dict[str, str]) -> Path:
    yesterday = (SystemClock().now() - timedelta(days=1)).isoformat()
    changes: dict[str, dict[str, object]] = {
        "expired": {"expires_at": yesterday},
        "submit-only": {"roles": ["Jobs.Submit"]},
        "newcomer": {"tenant": "newcomer"},
    }
    entries = [
        {"name": name, "tenant": "acme", "sha256": digest(key), **changes.get(name, {})}
        for name, key in keys.items()
    ]
    file = folder / "keys.yaml"
    file.write_text(yaml.safe_dump({"keys": entries}))
    return file


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def seen(browser: Browser, darkroom: str) -> Iterator[Visit]:
    """The page, ready; afterwards nothing must have gone to another host or raised."""
    with visit(browser, darkroom) as seen:
        expect(seen.page.locator("#model")).to_have_value("demo")
        yield seen
        assert seen.complaints == []
        hosts = {urlsplit(url).netloc for url in seen.requests if not url.startswith("blob:")}
        assert hosts == {urlsplit(darkroom).netloc}
