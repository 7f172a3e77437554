"""The example chips: their files load, their datasheets are made and hold what is known of the chips they are like."""

import pytest

from tapeout.chip import EXAMPLE_CHIPS, REFERENCE_CHIPS, load
from tapeout.report import datasheet as report
from tapeout.report.page import to_markdown
from tapeout.silicon import datasheet, technology
from tapeout.silicon.card_class import card_class

FIGURES = technology.load()
PUBLISHED_AREA_MM2 = {"groq-like": 725, "tenstorrent-like": 670, "wafer-like": 46_225, "gpu-like": 814}


@pytest.mark.parametrize("name", EXAMPLE_CHIPS)
def test_a_datasheet_is_made_and_every_limit_holds(name):
    sheet = datasheet.datasheet(load(name), FIGURES, volume=100_000)
    assert all(limit.holds for limit in sheet.limits), [limit for limit in sheet.limits if not limit.holds]
    assert not sheet.implausible
    assert sheet.manufacturing is not None or sheet.no_manufacturing
    text = to_markdown(report.page(sheet))
    assert load(name).process_node in text


@pytest.mark.parametrize("name", PUBLISHED_AREA_MM2)
def test_the_area_is_near_that_of_the_chip_it_is_like(name):
    sheet = datasheet.datasheet(load(name), FIGURES, volume=100_000)
    assert sheet.area.value == pytest.approx(PUBLISHED_AREA_MM2[name], rel=0.2)


def test_without_dram_nothing_of_it_is_bought_powered_or_placed():
    sheet = datasheet.datasheet(load("groq-like"), FIGURES, volume=100_000)
    assert sheet.manufacturing is not None
    names = [part.name for figure in (sheet.area, sheet.tdp, sheet.manufacturing.cost) for part in figure.parts]
    assert not [name for name in names if name.startswith("memory")]


def test_a_card_is_for_training_or_has_reasons_why_not():
    classes = {name: card_class(load(name)) for name in (*REFERENCE_CHIPS, *EXAMPLE_CHIPS)}
    training = {name for name, found in classes.items() if found.name == "training card"}
    assert training == {"training", "gpu-like", "tpu-like"}
    assert classes["inference"].reasons == ("18 bfloat16 operations a byte of memory, below 100",)
    assert classes["groq-like"].reasons == ("no DRAM", "less memory than 32 GiB")
