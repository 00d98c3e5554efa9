"""The page in a browser: nothing in the console, nothing from the network, nothing wider than the screen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.browser import PROGRAM, Page, browser
from tests.report.records import mixed_record, uniform_record
from zeroq.report import RunRecord, render

PHONE, DESK = 390, 1280


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    """One headless Chromium for all tests of this file."""
    if PROGRAM is None:
        reason = "chromium is not installed: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with browser() as page:
        yield page


def long_names() -> RunRecord:
    """A record in which every name is longer than a phone is wide."""
    record = mixed_record(4, images=2, side=8)
    name = "a_backbone_of_many_words.stage_of_the_network.block_of_the_stage.branch.convolution_of_the_branch.weight"
    layers = [dict(layer, name=f"{name}.{layer['name']}") for layer in record.result["layers"]]
    warnings = [name * 3]
    return replace(
        record,
        run=dict(record.run, name=name, model=f"{name}.py:{name}", cpu=name),
        result=dict(
            record.result, layers=layers, warnings=warnings, cpu=name, not_quantized=[{"name": name, "reason": name}]
        ),
        ranges={"quantizers": {name + key: value for key, value in record.ranges["quantizers"].items()}},
        sensitivity={"measure": "kl", "widths": [], "layers": {}},
    )


RECORDS = {
    "mixed": mixed_record(images=6),
    "uniform": uniform_record(),
    "deep": mixed_record(160, images=2, side=8),
    "few": mixed_record(3, images=2, side=32),
    "names": long_names(),
}


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", RECORDS)
def test_page_is_quiet_alone_and_no_wider_than_the_screen(
    chromium: Page, name: str, width: int, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(render(RECORDS[name]), encoding="utf-8")
    chromium.open(path, width, dark=name == "mixed")
    chromium.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    assert chromium.evaluate("document.querySelectorAll('section').length") == 9
    assert chromium.complaints == []
    assert chromium.requests == []


def test_the_keyboard_reaches_everything(chromium: Page, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render(RECORDS["mixed"]), encoding="utf-8")
    chromium.open(path, DESK)
    reached = set()
    for _ in range(30):
        chromium.press("Tab", "\t", 9)
        reached.add(chromium.evaluate("document.activeElement.className || document.activeElement.tagName"))
    assert {"skip", "A", "SUMMARY", "scroll", "PRE", "wrap"} <= reached


def test_the_watch_notices_what_it_is_there_for(chromium: Page, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        "<meta name=viewport content='width=device-width'><img src='http://127.0.0.1:9/a.png'>"
        "<script>console.error('seen')</script><p style='width: 900px'>wide</p>"
    )
    chromium.open(path, PHONE)
    assert any("seen" in complaint for complaint in chromium.complaints)
    assert chromium.requests == ["http://127.0.0.1:9/a.png"]
    assert chromium.evaluate("document.documentElement.scrollWidth") > PHONE
