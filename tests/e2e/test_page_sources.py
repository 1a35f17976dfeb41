"""What the page's files must not hold, whatever a browser makes of them."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "api" / "ui"
SOURCES = sorted(file for file in FOLDER.iterdir() if file.suffix in {".html", ".js", ".css"})
SVG_NAMESPACE = "http://www.w3.org/2000/svg"


@pytest.fixture(params=SOURCES, ids=lambda file: file.name)
def source(request: pytest.FixtureRequest) -> str:
    return str(request.param.read_text())


def test_markup_is_never_made_from_text(source: str) -> None:
    makers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|setHTMLUnsafe|DOMParser"
    assert re.findall(rf"{makers}|\beval\(|new Function", source) == []


def test_nothing_is_fetched_from_another_host(source: str) -> None:
    addresses = re.findall(r"""(?:https?:)?//[a-z0-9-]+\.[a-z]{2,}[^\s"')]*""", source)
    assert [address for address in addresses if address != SVG_NAMESPACE] == []


def test_nothing_stands_inline_that_the_content_policy_refuses(source: str) -> None:
    assert re.findall(r"<style|<script(?![^>]*\ssrc=)|\sstyle=|\son[a-z]+=", source) == []


def test_every_file_says_what_it_is_for() -> None:
    headers = {
        file.name: re.match(r"//|/\*|<!doctype html>\n<!--", file.read_text()) for file in SOURCES
    }
    assert [name for name, header in headers.items() if header is None] == []
