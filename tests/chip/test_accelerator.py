"""One view of any chip: figures with unit and provenance, or absent with a reason."""

import dataclasses

import pytest

from tapeout import accelerator
from tapeout.accelerator import MissingFigure
from tapeout.chip import catalog, inference, tiny
from tapeout.chip.catalog import COLUMNS, CONFIDENCES
from tapeout.figures import Estimate, Provenance
from tapeout.silicon import technology
from tapeout.silicon.described import of_chip

FIGURES = technology.load()
ALL = [accelerator.of_catalogued(chip) for chip in catalog.shipped()]


def test_every_cell_of_the_catalog_arrives_with_its_value_and_provenance():
    for row, chip in zip(catalog.shipped(), ALL, strict=True):
        numeric = {name for name in row.facts if COLUMNS[name].numeric}
        assert set(chip.known) == numeric
        for name in numeric:
            figure = chip.figure(name)
            assert figure.value == pytest.approx(row.facts[name].value)
            assert figure.provenance is CONFIDENCES[row.facts[name].confidence] and figure.source


def test_a_described_chip_offers_what_the_description_says_in_the_same_units():
    chip = of_chip(inference, FIGURES)
    assert chip.peak["bfloat16"].to("op/s").value == pytest.approx(inference.peak_flops_per_s("bfloat16"))
    assert chip.dram.size.to("B").value == inference.hbm.size_bytes
    assert chip.compute_units.value == inference.core_count
    assert chip.boost_clock.to("MHz").value == inference.clock_hz / 1e6
    assert chip.peak["bfloat16"].provenance is Provenance.DEFINED and chip.tdp.provenance >= Provenance.MODELLED
    assert chip.design is inference and not any(each.design for each in ALL)


def test_an_accelerator_is_frozen_and_its_figures_are_estimates():
    chip = of_chip(inference, FIGURES)
    with pytest.raises(dataclasses.FrozenInstanceError):
        chip.tdp = None
    with pytest.raises(TypeError):
        chip.peak["bfloat16"] = None
    for name, figure in chip.known.items():
        assert isinstance(figure, Estimate) and figure.value > 0, name


@pytest.mark.parametrize(
    ("chip", "column", "message"),
    [
        (
            of_chip(tiny, FIGURES.without("dram_price.LPDDR5")),
            "price_usd",
            "tiny: dram_price.LPDDR5 is not known; add [dram_price.LPDDR5] to a technology file of your own",
        ),
        (
            accelerator.of_catalogued(catalog.find("Kunlun P800", catalog.shipped())),
            "memory_gb_per_s",
            "Kunlun P800 (XPU-P, 3rd gen) has no memory_gb_per_s in the catalog; add it in a table of your own",
        ),
    ],
)
def test_a_missing_figure_says_why(chip, column, message):
    assert chip.figure(column) is None
    with pytest.raises(MissingFigure) as caught:
        chip.require(column)
    assert str(caught.value) == message


def test_the_columns_that_models_need_are_filled_for_the_chips_people_compare():
    rows = {row.name: row for row in catalog.shipped()}
    for name in ("A100-SXM4-80GB", "H100-SXM5-80GB", "H200-SXM-141GB", "B200-SXM", "MI300X", "L40S-48GB"):
        for column in ("compute_units", "last_level_mb", "async_copy", "peer_to_peer", "matrix_tile"):
            assert column in rows[name].facts, (name, column)
