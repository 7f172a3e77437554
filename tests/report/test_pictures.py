"""Pictures of training: lanes of a pipeline, parts beside each other, scatters over linear axes."""

import itertools
import json
import re
from xml.etree import ElementTree

import pytest

from tapeout.report import training
from tapeout.report.page import Dot, Page, Scatter, to_csv, to_html, to_json, to_markdown
from tapeout.report.pictures import Lanes, Span, Stack, Stacks
from tapeout.training import fleet_of, model_of, predict, uniform

LANES = Lanes(
    "a step",
    "seconds",
    ["0 <one>", "1"],
    ["forward", "backward"],
    [Span(0, 0.0, 1.0, 0), Span(0, 1.0, 2.0, 1), Span(1, 1.0, 2.0, 0, "late & last")],
)
STACKS = Stacks("parts", ["work", "wait"], [Stack("a", [1.0, 1.0], "2 s"), Stack("b", [4.0, 0.0], "4 s")])
SCATTER = Scatter("plans", "seconds", "dollars", [Dot("p", 7.6, 0.97), Dot("q", 8.2, 0.91)], linear=True)
PAGE = Page("pictures", [LANES, STACKS, SCATTER])


def drawn(page):
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", to_html(page), re.S)]


def test_a_picture_is_well_formed_and_draws_every_span():
    lanes, stacks, scatter = drawn(PAGE)
    name = "{http://www.w3.org/2000/svg}"
    spans = [each for each in lanes.iter(f"{name}rect") if each.find(f"{name}title") is not None]
    assert len(spans) == len(LANES.spans)
    widths = [float(each.get("width")) for each in spans]
    assert widths == pytest.approx([375, 375, 375])
    bars = [each for each in stacks.iter(f"{name}rect") if each.find(f"{name}title") is not None]
    assert [float(each.get("width")) for each in bars] == pytest.approx([140, 140, 560])
    across = [float(each.get("cx")) for each in scatter.iter(f"{name}circle")]
    assert across[1] - across[0] > 300  # linear axes lie around the dots


def test_where_there_is_no_picture_shares_are_told():
    assert "| 1 | 50% | 0% | 50% |" in to_markdown(PAGE)
    assert "a,2 s,50%,50%" in to_csv(PAGE)
    section = json.loads(to_json(PAGE))["sections"][0]
    assert len(section["lanes"][0]["spans"]) == 3 and section["stacks"][0]["names"] == ["work", "wait"]


def test_a_scatter_whose_figures_stand_elsewhere_is_only_drawn():
    page = Page("plans", [Scatter("plans", "x", "y", SCATTER.dots, only_drawn=True)])
    assert "<circle" in to_html(page)
    assert to_markdown(page) == "# plans\n" and to_csv(page) == ""


def test_a_timeline_holds_every_pass_of_every_stage():
    fleet = fleet_of("H100:8")
    step = predict(model_of("llama-3.1-8b"), fleet, uniform("H100", cards=8, batch=16, sequence=2048, pp=4))
    lanes = training.timeline(step)
    assert len(lanes.lanes) == 4 and len(lanes.spans) == 4 * 8 * 2
    assert max(span.end for span in lanes.spans) == step.timelines[0].makespan
    for lane in range(4):
        mine = sorted((span.start, span.end) for span in lanes.spans if span.lane == lane)
        assert all(first[1] <= then[0] + 1e-12 for first, then in itertools.pairwise(mine))
