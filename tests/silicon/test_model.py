"""Laws of area, power, yield and cost; the model against published chips; bad figures refused by name."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.chip import inference, tiny, training
from tapeout.figures import Provenance, number
from tapeout.isa import Parameter, Program, assemble
from tapeout.silicon import activity, area, calibration, die, manufacturing, power, technology
from tapeout.silicon.activity import Activity
from tapeout.silicon.plausibility import implausible
from tapeout.silicon.technology import SiliconError, UnknownFigure
from tapeout.sim import timing
from tapeout.workbench import measured_activity
from tapeout.workbench.work import Work

FIGURES = technology.load()
AREAS = st.floats(20, 858)


def modelled(chip):
    contents = die.of_chip(chip)
    return contents, area.die_area(contents, FIGURES)


def mm2(value):
    return number(value, "mm²")


def yield_of(cores_mm2, rest_mm2, **counts):
    contents = replace(die.of_chip(inference), **counts)
    return manufacturing.die_yield(contents, mm2(cores_mm2), mm2(rest_mm2), FIGURES).value


@given(AREAS, AREAS, st.integers(0, 4))
def test_more_area_never_raises_yield_nor_dies_on_a_wafer(small, large, spare_count):
    small, large = sorted((small, large))
    yields = [yield_of(size / 2, size / 2, spare_core_count=spare_count) for size in (small, large)]
    dies = [manufacturing.dies_per_wafer(mm2(size), FIGURES).value for size in (small, large)]
    assert 1 >= yields[0] >= yields[1] > 0
    assert dies[0] >= dies[1] > 0


@given(AREAS, AREAS)
def test_without_spares_yield_is_the_negative_binomial(cores, rest):
    # N5: 0.1 defects a cm², clustering 3
    assert yield_of(cores, rest, spare_core_count=0) == pytest.approx((1 + (cores + rest) / 1000 / 3) ** -3)


@given(AREAS, AREAS, st.integers(0, 31))
def test_a_spare_core_never_lowers_yield(cores, rest, spare_count):
    fewer, more = (yield_of(cores, rest, spare_core_count=count) for count in (spare_count, spare_count + 1))
    assert fewer <= more * (1 + 1e-12)
    assert more <= (1 + rest / 1000 / 3) ** -3 * (1 + 1e-9)  # what lies outside the cores has no spare


def test_yield_with_one_spare_of_two_cores():
    # Defects are independent only at one density of them; the mean over the gamma distribution is 2 Y(1) - Y(2).
    single, both = ((1 + area_mm2 / 1000 / 3) ** -3 for area_mm2 in (100, 200))
    assert yield_of(200, 0, core_count=2, spare_core_count=1) == pytest.approx(2 * single - both)


def test_memory_counts_for_yield_by_what_repair_leaves():
    contents, size = modelled(inference)
    cores, rest = area.vulnerable_areas(contents, size, FIGURES)
    parts = {part.name: part.value for part in size.parts}
    repaired = 0.7 * (parts["scratchpads"] + parts["last-level SRAM"])
    assert cores.value + rest.value == pytest.approx(size.value - repaired)
    assert cores.value < sum(parts.get(name, 0.0) for name in area.CORE_BLOCKS)


@given(st.integers(1, 12), st.integers(1, 12))
def test_cost_grows_with_cores_and_price_falls_with_volume(few, many):
    few, many = sorted((few, many))
    made = []
    for count in (few, many):
        contents, size = modelled(dataclasses.replace(inference, core_count=4 * count))
        made.append(manufacturing.manufacture(contents, size, FIGURES, volume=100_000))
    assert made[0].cost.value <= made[1].cost.value
    contents, size = modelled(inference)
    prices = [
        manufacturing.manufacture(contents, size, FIGURES, volume=1000 * count).price.value for count in (few, many)
    ]
    assert prices[0] >= prices[1]


@given(st.sampled_from(["core_count", "clock_hz"]), st.integers(1, 8))
def test_more_of_anything_takes_more_power(field, factor):
    def watts(chip):
        contents, size = modelled(chip)
        return power.power(activity.at_tdp(contents), contents, size, FIGURES).value

    grown = dataclasses.replace(inference, **{field: getattr(inference, field) * factor // 4 or 1})
    if factor >= 4:
        assert watts(grown) >= watts(inference)
    else:
        assert watts(grown) <= watts(inference)


def test_parts_are_the_whole_and_the_weakest_tag_shows():
    contents, size = modelled(inference)
    assert sum(part.value for part in size.parts) == pytest.approx(size.value)
    assert size.provenance is Provenance.ASSUMED
    low, high = size.interval()
    assert low < size.value < high
    made = manufacturing.manufacture(contents, size, FIGURES, volume=100_000)
    assert sum(part.value for part in made.price.parts) == pytest.approx(made.price.value)
    assert sum(part.value for part in made.cost.parts) == pytest.approx(made.cost.value)


@pytest.mark.parametrize("chip", [training, inference], ids=lambda chip: chip.name)
def test_reference_chips_can_be_built(chip):
    contents, size = modelled(chip)
    manufacturing.check_reticle(contents, size, FIGURES)
    assert size.interval()[1] < 900  # the middle of the range fits; its end may not
    watts = power.power(activity.at_tdp(contents), contents, size, FIGURES).value
    assert watts < 1000  # what a cold plate takes from one package of Blackwell's class
    assert contents.memory_stack_count <= 8
    assert chip.hbm.bandwidth_bytes_per_s / chip.hbm.stack_count <= 1.2e12


def test_dies_on_a_wafer_of_a_known_size():
    assert manufacturing.dies_per_wafer(mm2(814), FIGURES).value == pytest.approx(63.5, abs=0.5)


def test_energy_is_power_times_time_and_adds_up():
    contents, size = modelled(inference)
    second = activity.at_tdp(contents)
    longer = dataclasses.replace(second, duration_s=2.0)
    assert power.power(second, contents, size, FIGURES).value == pytest.approx(
        power.energy(second, contents, size, FIGURES).value
    )
    assert power.power(longer, contents, size, FIGURES).value < power.power(second, contents, size, FIGURES).value


@given(st.floats(0, 1e15), st.sampled_from(["bfloat16", "float16", "float32", "float64", "float8", "int8"]))
def test_any_dtype_a_simulator_counts_has_an_energy(count, dtype):
    contents, size = modelled(inference)
    idle = power.energy(Activity(name="idle", duration_s=1.0), contents, size, FIGURES).value
    matrix = Activity(name="matrix", duration_s=1.0, multiply_accumulates={dtype: count})
    vector = Activity(name="vector", duration_s=1.0, vector_operations={dtype: count})
    assert power.energy(matrix, contents, size, FIGURES).value >= idle
    assert power.energy(vector, contents, size, FIGURES).value >= idle


@given(st.floats(1024, 1 << 22))
def test_larger_banks_never_cost_less_a_byte(bank_bytes):
    assert power.sram_energy(bank_bytes, FIGURES).value <= power.sram_energy(bank_bytes * 2, FIGURES).value


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"duration_s": 0}, "activity 'a': duration_s=0 is not positive"),
        (
            {"duration_s": 1, "bytes_moved": {"l2": 1}},
            "activity 'a': unknown level 'l2'; known: scratchpad, last_level, memory, link, host",
        ),
        (
            {"duration_s": 1, "multiply_accumulates": {"int4": 1}},
            "activity 'a': unknown dtype 'int4'; known: float64, float32, bfloat16, float16, float8, int8",
        ),
        ({"duration_s": 1, "bytes_moved": {"memory": -1}}, "activity 'a': memory=-1 is negative"),
    ],
)
def test_an_activity_nobody_could_count_is_refused(bad, message):
    with pytest.raises(SiliconError) as caught:
        Activity(name="a", **bad)
    assert str(caught.value) == message


def test_fitted_figures_are_those_of_the_fit():
    for name, value in calibration.fit().items():
        assert FIGURES[name].value == pytest.approx(value, rel=1e-3), name


def test_published_dies_are_met_within_the_stated_tolerance():
    checked = [row for row in calibration.rows() if not row.published.calibrates]
    too_large = [row.published.die.name for row in checked if row.area and not row.area.holds]
    assert too_large == ["Wormhole", "WSE-2", "WSE-3"]  # many small cores, to which the fit gives large ones' control
    missed = [row.published.die.name for row in checked if row.power and not row.power.holds]
    assert missed == ["MTIA v1", "TPU v4i", "Wormhole", "WSE-2"]
    assert all(row.published.remark for row in checked if row.published.die.name in missed)


def test_the_cost_of_an_h100_is_near_what_others_estimate():
    found = calibration.cost_check()
    assert found.holds
    assert found.modelled.interval()[0] < found.published < found.modelled.interval()[1]


def test_what_the_timing_simulator_counts_has_an_energy():
    text = "map1 function=neg dtype=f32 shape=1x1x1x64 a=@0x0{0,0,0,1} result=@0x400{0,0,0,1}\nhalt\n"
    program = Program("by_hand", tiny.name, assemble(text), (Parameter("memory", "*i8"),), 1 << 16)
    launch = timing.simulate(program, tiny, (1, 1, 1), (0,))
    done = measured_activity.of_timing("negate", launch)
    assert done.vector_operations == {"float32": 64}
    assert done.duration_s == launch.cycles / tiny.clock_hz
    contents, size = modelled(tiny)
    spent = {part.name: part.value for part in power.energy(done, contents, size, FIGURES).parts}
    lanes = FIGURES["energy.vector_lane_factor"].value * FIGURES["energy.multiply_accumulate.float32"].value
    supply = (0.7 + 0.3 * 1.0 / 1.4) ** 2  # tiny runs at 1 GHz in N7
    expected = 64e-12 * lanes * supply * FIGURES["power.activity_overhead"].value
    assert spent["vector engines"] == pytest.approx(expected)
    assert {"scratchpads", "clock and control", "leakage"} <= set(spent)


def test_matrix_products_keep_their_dtype_from_the_simulator_on():
    counted = replace(
        timing.simulate(Program("h", tiny.name, assemble("halt\n"), (), 1 << 16), tiny, (1, 1, 1), ()),
        multiply_accumulates={"bf16": 10, "f8e4m3": 3, "f8e5m2": 4},
    )
    assert measured_activity.of_timing("products", counted).multiply_accumulates == {"bfloat16": 10, "float8": 7}


def test_what_the_functional_simulator_counts_is_traffic():
    work = Work(hbm_read_bytes=1000, hbm_written_bytes=24)
    done = measured_activity.of_work("traffic", work, duration_s=1e-6)
    assert done.bytes_moved == {"memory": 1024}
    contents, size = modelled(inference)
    spent = {part.name: part.value for part in power.energy(done, contents, size, FIGURES).parts}
    assert spent["memory and its interfaces"] == pytest.approx(1024 * 8 * 2.75e-12)


def test_a_die_beyond_the_reticle_is_refused():
    contents, size = modelled(dataclasses.replace(training, core_count=96))
    with pytest.raises(SiliconError) as caught:
        manufacturing.manufacture(contents, size, FIGURES, volume=1000)
    assert str(caught.value) == (
        f"a die of {size.value:.0f} mm² is larger than the reticle, 858 mm²; describe fewer cores or less memory, "
        "or a denser process node"
    )


def test_a_node_without_prices_is_refused_by_name():
    contents, size = modelled(dataclasses.replace(inference, process_node="N6"))
    with pytest.raises(UnknownFigure) as caught:
        manufacturing.manufacture(contents, size, FIGURES, volume=1000)
    assert str(caught.value) == ("wafer_price.N6 is not known; add [wafer_price.N6] to a technology file of your own")


def test_a_volume_of_none_is_refused():
    contents, size = modelled(inference)
    with pytest.raises(SiliconError) as caught:
        manufacturing.manufacture(contents, size, FIGURES, volume=0)
    assert str(caught.value) == "volume=0 chips; the least is 1"


def test_a_price_nobody_knows_is_named_beside_those_that_are_known():
    contents, size = modelled(tiny)
    whole = {part.name: part.value for part in manufacturing.manufacture(contents, size, FIGURES, volume=9).cost.parts}
    gaps = ("dram_price.LPDDR5", "package_price.organic")
    with pytest.raises(manufacturing.UnknownCost) as caught:
        manufacturing.manufacture(contents, size, FIGURES.without(*gaps), volume=1000)
    assert str(caught.value) == (
        "dram_price.LPDDR5 is not known; add [dram_price.LPDDR5] to a technology file of your own"
    )
    assert caught.value.gaps == gaps
    assert [(part.name, part.value) for part in caught.value.known] == [("logic die", whole["logic die"])]


def test_memory_and_package_of_a_chip_without_stacks_are_priced():
    memory = dataclasses.replace(inference.hbm, kind="LPDDR5", bandwidth_bytes_per_s=200_000_000_000)
    on_board = dataclasses.replace(inference, hbm=memory)
    contents, size = modelled(on_board)
    dram = number(5, "USD/GB").called("dram_price.LPDDR5")
    package = number(0.1, "USD/mm²").called("package_price.organic")
    quoted = FIGURES.replacing({"dram_price.LPDDR5": dram, "package_price.organic": package})
    parts = {
        part.name: part.value for part in manufacturing.manufacture(contents, size, quoted, volume=1000).cost.parts
    }
    assert parts["memory, LPDDR5"] == pytest.approx(5 * inference.hbm.size_bytes / 1e9)
    assert parts["package"] == pytest.approx(0.1 * size.value)  # the memory's packages are on the board


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[wafer_price.N6]\nvalue = -1\nunit = "USD/wafer"\nprovenance = "assumed"\nsource = "me"\n',
            "own.toml:1: wafer_price.N6: value=-1 is negative",
        ),
        (
            '\n[wafer_price.N6]\nvalue = 1\nlow = 2\nunit = "USD/wafer"\nprovenance = "assumed"\nsource = "me"\n',
            "own.toml:2: wafer_price.N6: wafer_price.N6=1 is outside its own range, 2 to 1",
        ),
        (
            '[wafer_price.N6]\nvalue = 1\nunit = "USD/wafer"\nprovenance = "rumoured"\nsource = "me"\n',
            "own.toml:1: wafer_price.N6: unknown provenance 'rumoured'; choose from defined, measured, published, "
            "modelled, assumed",
        ),
        ('[wafer_price.N6]\nvalue = 1\nunit = "USD/wafer"\n', "own.toml:1: wafer_price.N6: provenance is missing"),
        (
            '[wafer_price.N6]\nvalue = "1"\nunit = "USD/wafer"\nprovenance = "assumed"\nsource = "me"\n',
            "own.toml:1: wafer_price.N6: value='1' is not a number",
        ),
        (
            '[wafer_price.N6]\nvalu = 1\nunit = "USD/wafer"\nprovenance = "assumed"\nsource = "me"\n',
            "own.toml:1: wafer_price.N6: unknown key 'valu'; a figure has value, low, high, unit, provenance, source",
        ),
        ("wafer_price = 1\n", "wafer_price is not in a table; write [wafer_price] and its value below"),
    ],
)
def test_a_bad_figure_is_refused_by_name_and_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(SiliconError) as caught:
        technology.load(tmp_path.joinpath("own.toml").relative_to(tmp_path))
    assert str(caught.value) == message


def test_a_figure_of_ones_own_replaces_the_shipped_one(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text(
        '[block_area.multiply_accumulate]\nvalue = 500\nunit = "µm²"\nprovenance = "measured"\nsource = "synthesis"\n'
    )
    contents = die.of_chip(training)
    assert area.die_area(contents, technology.load(own)).value > area.die_area(contents, FIGURES).value


def test_the_reference_chips_are_in_balance():
    for each in (training, inference, tiny):
        assert implausible(each, FIGURES) == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            replace(inference, hbm=replace(inference.hbm, bandwidth_bytes_per_s=4)),
            "1e-09 GB/s from each stack of HBM3e, which gives 1,200",
        ),
        (
            replace(inference, hbm=replace(inference.hbm, bandwidth_bytes_per_s=9_600_000_000_000)),
            "2,400 GB/s from each stack of HBM3e, which is made for 1,200",
        ),
        (
            replace(inference, core_count=8),
            "cores load 1,382 GB/s together, HBM3e gives 4,800: the rest is never used",
        ),
        (
            replace(inference, last_level_sram=replace(inference.last_level_sram, bytes_per_cycle_per_slice=8)),
            "last-level SRAM serves 691 GB/s, less than the 4,800 of the memory behind it",
        ),
    ],
)
def test_a_chip_out_of_balance_is_told_why(changed, sentence):
    assert sentence in implausible(changed, FIGURES)


@pytest.mark.parametrize("spare_count", [17, 40])
def test_the_sum_over_many_bad_cores_is_the_binomial_one(spare_count, monkeypatch):
    arguments = (200, spare_count, np.float64(30_000), np.float64(100), np.float64(0.1), np.float64(3))
    quick = manufacturing._yield(*arguments)
    monkeypatch.setattr(manufacturing, "FEW_SPARES", 100)
    assert quick == pytest.approx(manufacturing._yield(*arguments), rel=1e-12)
