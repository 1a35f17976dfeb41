"""The unmodified JS client, as a second opinion on the wire."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from emulators.azurite import install_npm, tools_folder
from emulators.certificates import self_signed
from emulators.service_bus.server import Options

from .conftest import BenchMaker


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js with npm")
async def test_the_js_client_does_everything_too(make_bench: BenchMaker, tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node is not None
    modules = tools_folder() / "service-bus-js"
    await asyncio.to_thread(install_npm, modules, "@azure/service-bus", "7.9.5")
    pair = self_signed(tmp_path)
    options = Options(admin_tls_cert=pair.certificate, admin_tls_key=pair.key)
    async with make_bench(options) as bus:
        process = await asyncio.create_subprocess_exec(
            node,
            Path(__file__).with_name("service_bus_client.cjs"),
            modules,
            bus.endpoints.connection_string,
            bus.endpoints.admin_connection_string,
            "from-js",
            env={"NODE_EXTRA_CA_CERTS": str(pair.certificate)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, errors = await asyncio.wait_for(process.communicate(), 60)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, errors.decode()
    bodies = ["one", "two", "three", "four", "five"]
    assert json.loads(out) == {
        "created": 2,
        "peeked": [*bodies, "later"],
        "received": bodies,
        "property": 1,
        "renewed": True,
        "again": ["two", 1],
        "dead": [["three", "why"], ["two", "MaxDeliveryCountExceeded"]],
        "counts": [0, 1, 2],
        "missing": "MessagingEntityNotFound",
    }
