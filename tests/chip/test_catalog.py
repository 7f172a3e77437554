"""The catalog: every cell has a source, unknown stays unknown, a bad table is refused by name and line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.chip import catalog
from tapeout.chip.catalog import COLUMNS, CONFIDENCES, CatalogError

CHIPS = catalog.shipped()


def test_every_cell_has_a_source_and_a_confidence():
    assert len(CHIPS) >= 70
    for chip in CHIPS:
        for fact in chip.facts.values():
            assert fact.source and fact.confidence in CONFIDENCES


def test_the_vendors_people_ask_for_are_there():
    vendors = " ".join(chip.text("vendor") for chip in CHIPS)
    named = "NVIDIA AMD Intel Google Huawei Baidu Alibaba Tencent Cambricon Hygon Biren Moore Iluvatar Enflame CL"
    for name in [*named.split(), "Groq", "Etched", "OpenAI", "ByteDance", "Meta"]:
        assert name in vendors


def test_what_nobody_published_is_absent():
    chip = catalog.find("Kunlun P800", CHIPS)
    assert chip.figure("memory_gb_per_s") is None
    assert "memory_gb_per_s" not in chip.facts


def test_a_recalled_cell_says_so_among_cells_that_do_not():
    chip = catalog.find("H20", CHIPS)
    assert chip.facts["die_area_mm2"].confidence == "recalled"
    assert chip.facts["half_tflops"].confidence == "datasheet"
    assert chip.facts["price_usd"].confidence == "press"


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("H20", "H20-SXM-96GB"),
        ("h100", "H100-SXM5-80GB"),
        ("4090", "RTX-4090"),
        ("kunlun p800", "Kunlun P800 (XPU-P, 3rd gen)"),
        ("MTIA v2", "MTIA 2i (MTIA 200)"),
        ("TPU v4", "TPU v4"),
        ("Siyuan", "Siyuan 590 (MLU590)"),
    ],
)
def test_chips_are_found_by_what_people_call_them(query, name):
    assert catalog.find(query, CHIPS).name == name


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("910B", "'910B' fits several chips: Ascend 910B1, Ascend 910B2, Ascend 910B3, Ascend 910B4"),
        (
            "Gaudi4",
            "no chip 'Gaudi4' in the catalog; did you mean 'Gaudi2'? `tapeout chips` lists all of them",
        ),
        ("???", "no chip '???' in the catalog. `tapeout chips` lists all of them"),
    ],
)
def test_a_name_that_fits_none_or_several_is_refused(query, message):
    with pytest.raises(CatalogError) as caught:
        catalog.find(query, CHIPS)
    assert str(caught.value) == message


@given(st.sampled_from([name for name, column in COLUMNS.items() if column.numeric]))
def test_sorting_puts_the_largest_first_and_the_unknown_last(column):
    figures = [chip.figure(column) for chip in catalog.select(CHIPS, sort=column)]
    known = [figure for figure in figures if figure is not None]
    assert known == sorted(known, reverse=True)
    assert figures == known + [None] * (len(figures) - len(known))


@given(st.floats(0, 500))
def test_a_condition_and_its_opposite_part_the_known(threshold):
    above = catalog.select(CHIPS, conditions=[f"memory_gb>={threshold}"])
    below = catalog.select(CHIPS, conditions=[f"memory_gb<{threshold}"])
    known = [chip for chip in CHIPS if chip.figure("memory_gb") is not None]
    assert len(above) + len(below) == len(known)
    assert not {chip.name for chip in above} & {chip.name for chip in below}


def test_conditions_and_vendors_narrow_together():
    found = catalog.select(CHIPS, vendor="amd", conditions=["memory_gb>=192", "memory_kind=HBM3e"])
    assert [chip.name for chip in found] == ["MI325X", "MI355X"]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("memory_gb", "'memory_gb' is not a condition; write one like memory_gb>=96 or vendor=AMD"),
        ("memory_gb>=lots", "'memory_gb>=lots': 'lots' is not a number"),
        ("vendor>AMD", "'vendor>AMD': vendor is text; only = compares it"),
    ],
)
def test_a_condition_nobody_understands_is_refused(condition, message):
    with pytest.raises(CatalogError) as caught:
        catalog.select(CHIPS, conditions=[condition])
    assert str(caught.value) == message


HEADER = "name,memory_gb,tdp_w,all_in_kw,measured_half_tflops,half_tflops,recalled_fields,confidence,source\n"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Mine,many,,,,,,press,me", "mine.csv:2: Mine.memory_gb='many' is not a number"),
        ("Mine,-96,,,,,,press,me", "mine.csv:2: Mine.memory_gb=-96 is not a quantity; it cannot be below zero"),
        (
            "Mine,96,,,,,,rumour,me",
            "mine.csv:2: Mine.confidence='rumour' is not known; choose from design, datasheet, modelled, press, "
            "recalled, estimate",
        ),
        ("Mine,96,,,,,,press,", "mine.csv:2: Mine has no source; a figure nobody can look up is not a fact"),
        ("Mine,96,,,,,press,me", "mine.csv:2: 8 cells where the header has 9"),
        (",96,,,,,,press,me", "mine.csv:2: a chip without a name"),
        ("Mine,96,700,0.5,,,,press,me", "mine.csv:2: Mine: tdp_w=700 contradicts all_in_kw=0.5"),
        (
            "Mine,96,,,500,400,,press,me",
            "mine.csv:2: Mine: measured_half_tflops=500 contradicts half_tflops=400",
        ),
        ("Mine,96,,,,,,press,me\nMine,96,,,,,,press,me", "mine.csv:3: Mine is in the table twice"),
    ],
)
def test_a_bad_cell_is_refused_by_name_and_line(tmp_path, monkeypatch, row, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text(HEADER + row + "\n")
    with pytest.raises(CatalogError) as caught:
        catalog.load(tmp_path / "mine.csv")
    assert str(caught.value) == message


def test_a_column_nobody_knows_is_refused_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text("name,memory_gib,confidence,source\nMine,96,press,me\n")
    with pytest.raises(CatalogError) as caught:
        catalog.load(tmp_path / "mine.csv")
    assert str(caught.value).startswith(
        "mine.csv:1: unknown column 'memory_gib'; did you mean 'memory_gb'? Known: year, die_area_mm2"
    )


def test_a_table_of_ones_own_adds_and_replaces(tmp_path):
    own = tmp_path / "mine.csv"
    own.write_text(HEADER + "Mine,64,,,,,,press,me\nRTX-4090,48,,,,,,press,a modified card\n")
    chips = catalog.load(own)
    assert len(chips) == len(CHIPS) + 1
    assert catalog.find("Mine", chips).figure("memory_gb") == 64
    assert catalog.find("RTX-4090", chips).figure("memory_gb") == 48
