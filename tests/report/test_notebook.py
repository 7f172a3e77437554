"""What a notebook shows of a value."""

from types import SimpleNamespace
from xml.etree import ElementTree

from tapeout import accelerator, chip
from tapeout.chip import catalog
from tapeout.figures import Provenance, given, notebook
from tapeout.silicon import technology
from tapeout.silicon.datasheet import datasheet
from tapeout.workbench.profiling import KernelRow, Profile


def shown(value):
    """Caption and rows of the one table."""
    root = ElementTree.fromstring(value._repr_html_())
    return root.findtext("caption"), [[cell.text for cell in row] for row in root.iter("tr")]


def test_text_is_escaped():
    assert notebook.table("a & b", [("<b>",)]) == (
        "<table><caption>a &amp; b</caption><tbody><tr><td>&lt;b&gt;</td></tr></tbody></table>"
    )


def test_an_estimate_shows_its_range_and_where_it_comes_from():
    figure = given("die price", 100.0, "USD", Provenance.ASSUMED, low=80.0, high=120.0, source="a quote")
    name, rows = shown(figure)
    assert name == "die price" and rows[1:] == [["provenance", "assumed"], ["source", "a quote"]]
    assert rows[0][0] == "value" and rows[0][1].startswith("100 USD (8")


def test_chips_accelerators_and_datasheets_show_their_figures():
    inference = chip.load("inference")
    name, rows = shown(inference)
    assert (
        name == "inference"
        and ["memory", "96 GiB HBM3e, 4.8 TB/s"] in rows
        and ["peak bfloat16", "88.47 TFLOP/s"] in rows
    )
    _, rows = shown(chip.load("groq-like"))
    assert any(row[0] == "memory" and "SRAM" in row[1] for row in rows)
    name, rows = shown(accelerator.of_catalogued(catalog.find("H100 SXM", catalog.load())))
    assert "H100" in name and any(row[0] == "peak bfloat16" and float(row[1].split()[0]) > 0 for row in rows)
    name, rows = shown(datasheet(inference, technology.load(), volume=100_000))
    assert name == "inference: datasheet" and {"die area", "transistors", "TDP"} <= {row[0] for row in rows}


def test_a_profile_shows_its_kernels():
    row = KernelRow("softmax", "aten::softmax", 3, 2_500_000, 0.5, "HBM", {}, {}, 0.8, 0.0, 0, 0, 0)
    run = SimpleNamespace(chip="tiny", total_ps=5_000_000)
    name, rows = shown(Profile(run, "", (row,), (), (), 0, None, None))
    assert name == "tiny: 5 µs of simulated time"
    assert rows[1] == ["softmax", "3", "2.5 µs", "50.0%", "HBM"]
