"""The page as text: whole, self-contained, equal for equal records, and safe with any name."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from tests.report.records import mixed_record, uniform_record
from zeroq.options import Options
from zeroq.report import RunRecord, render
from zeroq.report.page import checks, figures, remarks
from zeroq.report.words import SPACE

SECTIONS = ["reached", "frontier", "layers", "ranges", "images", "time", "float", "warnings", "use", "again"]
VOID = {"meta", "link", "img", "br"}


class Outline(HTMLParser):
    """Notes ids, text, and that every element is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(str(value))
            if name in ("src", "href"):
                self.addresses.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_data(self, data: str) -> None:
        self.text += data.replace(SPACE, " ")


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    assert parser.open == []
    return parser


@pytest.mark.parametrize("record", [mixed_record(), mixed_record(3), mixed_record(160, side=16), uniform_record()])
def test_every_section_is_there_and_nothing_is_fetched(record: RunRecord) -> None:
    page = outline(render(record))
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    assert len(page.ids) == len(set(page.ids))
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert "<script" not in render(record)
    for layer in record.result["layers"]:
        assert layer["name"] in page.text


def test_equal_records_give_equal_pages() -> None:
    assert render(mixed_record()) == render(mixed_record())


def test_figures_that_were_reached() -> None:
    text = outline(render(mixed_record())).text
    for words in ("98.4 %", "7.63 times smaller", "3.98", "8.05×", "3 min 11 s", "held-out", "--average-bits"):
        assert words in text


def test_a_uniform_run_says_why_it_has_no_frontier() -> None:
    text = outline(render(uniform_record())).text
    assert "nothing to choose" in text
    assert "Nothing: every layer with weights was quantized." in text
    assert "sensitivity" not in text.partition("ranges as a table")[0].partition("layers as a table")[0].lower()


def test_what_counts_of_a_sensitivity_is_said_where_it_is_a_part() -> None:
    record = mixed_record(4)
    text = render(record)
    assert "from 22 % for a layer that all others see to 100 % for the last" in text
    assert all(f'<td class="n">{share}</td>' in text for share in (22, 37, 61, 100))
    whole = {**record.frontier, "left_over": dict.fromkeys(record.frontier["left_over"], 1.0)}
    for frontier in (whole, {key: value for key, value in whole.items() if key != "left_over"}):
        assert "Counts, %" not in render(replace(record, frontier=frontier))


def test_names_cannot_become_markup() -> None:
    record = copy.deepcopy(mixed_record(3))
    evil = '<script>alert("x")</script>&\''
    record.run.update(name=evil, model=evil, cpu=evil)  # type: ignore[attr-defined]
    record.result["layers"][0].update(name=evil, operator=evil, rounding=evil)
    record.result.update(  # type: ignore[attr-defined]
        cpu=evil, warnings=[evil], not_quantized=[{"name": evil, "reason": evil}], float_nodes={evil: 1}
    )
    record.ranges["quantizers"][evil] = {"low": -1.0, "high": 1.0, "bits": 8, "source": "distilled"}
    for setting in record.frontier["candidates"]:
        setting["name"] += evil
    page = render(record)
    assert "<script" not in page
    assert evil in outline(page).text


def test_images_that_were_not_kept() -> None:
    assert "were not kept" in render(replace(mixed_record(3), images=None))


def test_pictures_of_the_user_are_named_as_such() -> None:
    record = mixed_record(3)
    run = dict(record.run, options=Options.of(calibration="pictures").to_dict())
    text = outline(render(replace(record, run=run))).text
    assert "24 pictures of those you gave, as the network sees them." in text


def test_a_forecast_comes_first_where_there_is_one() -> None:
    record = mixed_record(3)
    forecast = {"metric": "top1", "drop": 0.004, "low": -0.001, "high": 0.009}
    result = dict(record.result, forecast=forecast)
    first = figures(result, "KL divergence")[0]
    assert (first.value, first.label) == ("0.4", "points of top1 lost")
    assert first.note == "to expect, −0.1 to 0.9: a forecast from the divergence; labelled pictures measure it"
    assert first.note in outline(render(replace(record, result=result))).text
    assert "a forecast" not in render(record)


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection", "regression", None])
def test_every_task_says_what_agreement_counts(task: str | None) -> None:
    record = mixed_record(3)
    assert "agreement" in render(replace(record, result=dict(record.result, task=task)))


def test_what_does_not_hold_is_marked() -> None:
    result = dict(mixed_record(3).result)
    result["verification"] = {
        "largest_steps": 3, "share_over_one_step": 0.2, "agreement": 0.97, "optimised_equals_plain": 0.98,
    }  # fmt: skip
    result |= {"integer_share": 0.4, "not_quantized": []}
    found = checks(result)
    assert [check.holds for check in found] == [False] * 4
    assert found[0].text.replace(SPACE, " ") == (
        "Operators of the file are up to 3 steps off the simulation, 20 % of their values by more than one."
    )
    assert all(check.holds for check in checks(mixed_record(3).result))


def test_a_file_that_was_not_verified_says_so() -> None:
    record = mixed_record(3)
    assert "was not compared with its simulation" in render(
        replace(record, result=dict(record.result, verification={}))
    )


def test_a_file_larger_than_the_float_network_is_no_error() -> None:
    record = mixed_record(3)
    page = render(replace(record, result=dict(record.result, float_bytes=1000)))
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", page)]
    assert max(widths) <= 100
    assert "times smaller</span>" not in page


def test_images_must_be_pixels() -> None:
    record: dict[str, Any] = {name: {} for name in ("run", "result", "ranges", "sensitivity", "frontier")}
    with pytest.raises(ValueError, match="not uint8"):
        RunRecord(**record, images=np.zeros((1, 3, 8, 8), np.float32))


def test_a_limit_of_memory_stands_beside_what_was_taken_and_older_runs_have_none() -> None:
    older = uniform_record()
    assert "were predicted" not in render(older)
    run = {**older.run, "options": {**older.run["options"], "memory_limit": 4.0}}
    limited = replace(older, run=run, result={**older.result, "predicted_memory_mb": 3100.0})
    assert f"were predicted, for a limit of 4{SPACE}GB)" in render(limited).replace("4.00", "4").replace("4.0", "4")
    run = {**older.run, "options": {**older.run["options"], "memory_limit": None}}
    assert "were predicted, to fit what was free)" in render(replace(limited, run=run))


@pytest.mark.parametrize("weighed", [True, False])
def test_what_errors_of_values_count_by_is_said(weighed: bool) -> None:
    record = mixed_record()
    text = outline(render(replace(record, ranges={**record.ranges, "weighed": weighed}))).text
    assert ("Within it, errors count by what they do to the network's output" in text) == weighed
    assert ("Within it, all errors count alike" in text) != weighed


def test_sensitivities_that_follow_from_others_are_said_to() -> None:
    assert remarks({"measure": "rounded", "derived": [5, 8]}) == (
        ", at 5 and 8 bits from the squared errors of the layer's output"
    )
    assert remarks({"measure": "kl", "derived": []}) == ", rounded to nearest"
    assert remarks({"measure": "rounded", "derived": [8], "coarse": [2]}) == (
        ", at 8 bits from the squared errors of the layer's output, at 2 bits computed in bf16"
    )
    assert remarks({"measure": "rounded"}) == ""  # of an older run


@pytest.mark.parametrize(
    ("task", "of"), [("classification", "of the images."), ("segmentation", "of the pixels."), (None, "variance.")]
)
def test_file_and_simulation_agree_on_what_the_task_counts(task: str | None, of: str) -> None:
    record = mixed_record(3)
    found = checks(dict(record.result, task=task, integer_nodes={"QLinearConv": 1}))
    assert found[1].text.endswith(of)
    assert "1 operator runs in integers" in found[3].text.replace(SPACE, " ")


def test_loading_the_file_is_no_stage() -> None:
    record = mixed_record(3)
    page = render(replace(record, result=dict(record.result, seconds={"distill": 2.0, "load": 60.0})))
    assert f"2{SPACE}s in all; the file loads in 1{SPACE}min" in page


def test_without_iterations_nothing_was_made_from_statistics() -> None:
    """Also where the BatchNorms say how far a range reaches."""
    record = uniform_record()
    sources = {each["source"] for each in record.ranges["quantizers"].values()}
    noise = replace(record, run=record.run | {"options": record.run["options"] | {"iterations": 0}})
    assert "distilled" in sources
    assert "distilled from the network itself" in outline(render(record)).text
    text = outline(render(noise)).text
    assert "distilled from the network itself" not in text and "noise with the spectrum of natural pictures" in text
