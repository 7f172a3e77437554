"""Differences of profiles and of chips: nothing is lost, the largest change comes first, bad files are named."""

import copy
import dataclasses

import pytest

from tapeout.chip import inference
from tapeout.errors import TapeoutError
from tapeout.report import differences as report
from tapeout.report.page import to_text
from tapeout.silicon import technology
from tapeout.workbench import differences

FIGURES = technology.load()


def kernel(name, total_ps, bound="HBM", launches=1):
    return {
        "name": name,
        "total_ps": total_ps,
        "bound": bound,
        "launches": launches,
        "operations": 8,
        "hbm_bytes": 100,
        "sram_bytes": 200,
    }


PROFILE = {
    "format": 1,
    "run": {"total_ps": 3_000_000},
    "cores_idle_ps": 0,
    "kernels": [kernel("mm", 2_000_000, "matrix"), kernel("relu", 1_000_000)],
    "operators": [{"name": "aten::mm", "total_ps": 2_000_000}, {"name": "aten::relu", "total_ps": 1_000_000}],
    "engines": [{"name": "matrix", "busy": 0.5}],
    "energy": {"total_j": 2.0},
    "at_work": {"area_share": 0.2},
}


def test_a_profile_against_itself_changes_nothing():
    found = differences.of_profiles(PROFILE, PROFILE, ("a", "b"))
    assert all(change.ratio in (1, None) and not change.note for rows in found.changes.values() for change in rows)


def test_changes_by_kernel_bound_and_byte():
    after = copy.deepcopy(PROFILE)
    after["run"]["total_ps"] = 2_500_000
    after["kernels"] = [kernel("mm", 500_000, "HBM", 2), kernel("gelu", 2_000_000)]
    found = differences.of_profiles(PROFILE, after, ("a", "b"))
    kernels = {change.name: change for change in found.changes["kernels"]}
    assert [change.name for change in found.changes["kernels"]] == ["gelu", "mm", "relu"]
    assert kernels["mm"].note == "matrix-bound, now HBM-bound; 1 launches, now 2"
    assert kernels["mm"].ratio == 0.25
    assert kernels["gelu"].before is None and kernels["relu"].after is None
    bounds = {change.name: (change.before, change.after) for change in found.changes["time of kernels by bound"]}
    assert bounds == {"matrix": (2e-6, None), "HBM": (1e-6, pytest.approx(2.5e-6))}
    shown = to_text(report.page(found))
    assert "b takes 0.833 times the simulated time of a." in shown and "500 ns" in shown


def test_chips_differ_by_their_fields_and_their_silicon():
    dense = dataclasses.replace(inference, name="dense", core_count=40)
    found = differences.of_chips(inference, dense, FIGURES)
    assert [(each.name, each.before, each.after, each.note) for each in found.changes["description"]] == [
        ("name", None, None, "inference, now dense"),
        ("core_count", 32, 40, ""),
    ]
    rates = {each.name: each.ratio for each in found.changes["rates"]}
    assert rates["peak bfloat16"] == 1.25
    silicon = {each.name: each.ratio for each in found.changes["silicon, 100,000 made"]}
    assert 1 < silicon["die area"] < 1.25 and 1 < silicon["price"] < 1.25
    assert not differences.of_chips(inference, inference, FIGURES).changes["description"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no '{file}'; `tapeout profile -o {folder} script.py` writes one"),
        ("{", "{file}: is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[]", "{file}: is not a profile of this version; make it again with `tapeout profile -o`"),
    ],
)
def test_a_file_that_is_no_profile_is_named(tmp_path, text, message):
    file = tmp_path / "profile.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(TapeoutError) as caught:
        differences.read_profile(tmp_path)
    assert str(caught.value) == message.format(file=file, folder=tmp_path)
