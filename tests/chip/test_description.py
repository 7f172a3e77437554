"""The description refuses impossible chips, and says what would be possible."""

import dataclasses
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.chip import REFERENCE_CHIPS, Chip, Hbm, Links, MiB, Scratchpad, inference, tiny, training
from tapeout.chip.description import BITS_OF_DTYPE, Part
from tapeout.errors import ChipError


def parts_of(part: Part):
    yield part
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Part):
            yield from parts_of(value)


def refusal(construct) -> ChipError:
    with pytest.raises(ChipError) as caught:
        construct()
    return caught.value


def test_illegal_scratchpad_names_the_file_the_line_and_the_remedy(tmp_path, monkeypatch):
    mine = tmp_path / "chips" / "mine.py"
    mine.parent.mkdir()
    mine.write_text(
        "from tapeout.chip import Scratchpad\n"
        "\n"
        "scratchpad = Scratchpad(\n"
        "    bank_count=16,\n"
        "    size_bytes=10001,\n"
        "    port_width_bytes=4,\n"
        ")\n"
    )
    monkeypatch.chdir(tmp_path)
    error = refusal(lambda: exec(compile(mine.read_text(), str(mine), "exec")))
    expected = "chips/mine.py:5: scratchpad.size_bytes=10001 does not divide into 16 banks; 9984 does"
    assert str(error) == expected
    assert error.field == "size_bytes"


def test_a_memory_has_its_kinds_times_unless_the_description_says_other():
    given = {"stack_count": 1, "size_bytes": 64 * MiB, "bandwidth_bytes_per_s": 10**9, "channel_count": 1}
    memory = Hbm(kind="GDDR6", write_to_read_ns=0, **given)
    assert (memory.refresh_interval_ns, memory.bank_refresh_ns, memory.write_to_read_ns) == (1900, 60, 0)
    for kind in Hbm.__dataclass_fields__["kind"].metadata["choices"]:
        assert Hbm(kind=kind, **given).bank_refresh_ns > 0


def test_replacing_a_field_is_checked_at_the_line_of_the_replacement():
    error = refusal(lambda: dataclasses.replace(tiny.core.vector, lane_count=24))
    assert error.sentence == "vector.lane_count=24 is not a power of two; 16 is"
    assert "test_description.py:" in error.where


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        (tiny, {"core_count": 0}, "core_count=0 is too small; the least is 1"),
        (tiny, {"clock_hz": 1.5e9}, "clock_hz=1500000000.0 is not a whole number; write 1500000000"),
        (tiny, {"core_count": True}, "core_count=True is not a whole number"),
        (tiny, {"core_count": "2"}, "core_count='2' is not a whole number"),
        (
            tiny,
            {"name": "my chip"},
            "name='my chip' may hold letters, digits, '-', '_' and '.'; 'my-chip' does",
        ),
        (
            tiny,
            {"process_node": "5nm"},
            "process_node='5nm' is not known; choose from N28, N16, N14, N12, N7, N6, N5, N4, N3, N2",
        ),
        (tiny, {"core": tiny}, "core=Chip(...) is not a Core(...)"),
        (
            tiny.core.scratchpad,
            {"size_bytes": 256 * MiB},
            "scratchpad.size_bytes=268435456 is too large; the most is 134217728",
        ),
        (
            tiny.core.scratchpad,
            {"size_bytes": 131080},
            "scratchpad.size_bytes=131080 is not a whole number of rows of 8 banks x 64 bytes; 131072 is",
        ),
        (
            tiny.core.scratchpad,
            {"port_width_bytes": 24, "size_bytes": 96 * 1024},
            "scratchpad.port_width_bytes=24 is not a power of two; 16 is",
        ),
        (tiny.core, {"semaphore_count": 128}, "core.semaphore_count=128 is too large; the most is 64"),
        (
            tiny.core.vector,
            {"special_rate": 0},
            "vector.special_rate=0 leaves the chip without exp2 and reciprocal; the slowest choice is 0.015625",
        ),
        (
            tiny.core.matrix,
            {"float8_rate": 3},
            "matrix.float8_rate=3 is not a rate; allowed are 0 and the powers of two from 1/64 to 4",
        ),
        (tiny.core.matrix, {"row_count": 12}, "matrix.row_count=12 is not a power of two; 8 is"),
        (
            tiny.last_level_sram,
            {"size_bytes": 500_000},
            "last_level_sram.size_bytes=500000 is not a whole number of sets (2 slices x 8 ways x 64 bytes); 499712 is",
        ),
        (
            inference.hbm,
            {"bank_refresh_ns": 3870},
            "hbm.refresh_interval_ns=3900 leaves a bank no time between refreshes of 3870 ns",
        ),
        (
            inference.hbm,
            {"channel_count": 130},
            "hbm.channel_count=130 does not divide into 4 stacks; 128 does",
        ),
        (
            inference.hbm,
            {"kind": "DDR3"},
            "hbm.kind='DDR3' is not known; choose from HBM2e, HBM3, HBM3e, HBM4, LPDDR5, GDDR6, GDDR7, 3D-DRAM",
        ),
    ],
)
def test_a_refusal_teaches(part, change, sentence):
    error = refusal(lambda: dataclasses.replace(part, **change))
    expected = (
        sentence or "hbm.kind='DDR3' is not known; choose from HBM2e, HBM3, HBM3e, HBM4, LPDDR5, GDDR6, GDDR7, 3D-DRAM"
    )
    assert error.sentence == expected


def test_links_need_bandwidth():
    error = refusal(lambda: Links(link_count=4, bandwidth_bytes_per_s=0, latency_ns=500))
    assert error.sentence == "links.bandwidth_bytes_per_s=0 leaves 4 links idle; give a bandwidth, or no link"


@given(size_bytes=st.integers(4096, 1 << 20), bank_count=st.sampled_from([1, 2, 4, 8, 16, 32]))
def test_the_remedy_a_scratchpad_refusal_names_is_legal(size_bytes, bank_count):
    try:
        Scratchpad(size_bytes=size_bytes, bank_count=bank_count, port_width_bytes=16)
    except ChipError as error:
        remedy = int(error.sentence.split("; ")[1].split()[0])
        Scratchpad(size_bytes=remedy, bank_count=bank_count, port_width_bytes=16)


def test_a_chip_is_frozen_and_hashable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny.core_count = 4
    assert {tiny: 1}[dataclasses.replace(tiny)] == 1


def test_fingerprint_changes_with_every_field_and_only_then():
    assert dataclasses.replace(tiny).fingerprint() == tiny.fingerprint()
    seen = {chip.fingerprint() for chip in REFERENCE_CHIPS.values()}
    assert len(seen) == len(REFERENCE_CHIPS)
    for field, value in (("core_count", 3), ("clock_hz", 999_999_999), ("name", "other")):
        assert dataclasses.replace(tiny, **{field: value}).fingerprint() not in seen
    deeper = dataclasses.replace(tiny, core=dataclasses.replace(tiny.core, queue_depth=5))
    assert deeper.fingerprint() not in seen


def test_every_field_says_what_it_means():
    for part in parts_of(training):
        for field in dataclasses.fields(part):
            assert field.metadata["meaning"], f"{part.label}.{field.name}"


def test_peak_rates_count_a_multiply_accumulate_twice():
    assert tiny.peak_flops_per_s("bfloat16") == 2 * 8 * 8 * 2 * 1_000_000_000
    assert tiny.peak_flops_per_s("float32") == 2 * 16 * 2 * 1_000_000_000  # 8 x 8 / 4 products, 16 lanes: equal
    assert tiny.peak_flops_per_s("float64") == 0
    assert training.peak_flops_per_s("float64") == 2 * 256 / 16 * 64 * 1_600_000_000
    with pytest.raises(ChipError, match="no peak rate for dtype 'int4'; known: float64, float32"):
        tiny.peak_flops_per_s("int4")


def test_inference_stays_below_every_export_threshold_that_needs_no_die_area():
    assert 1500 < inference.total_processing_performance < 1600
    by_matrix_alone = max(inference.peak_flops_per_s(d) * bits / 1e12 for d, bits in BITS_OF_DTYPE.items())
    assert by_matrix_alone < inference.total_processing_performance


def test_only_tiny_lacks_float64():
    assert [chip.name for chip in REFERENCE_CHIPS.values() if not chip.core.vector.float64] == ["tiny"]


@pytest.mark.parametrize("chip", REFERENCE_CHIPS.values(), ids=lambda chip: chip.name)
def test_reference_chips_are_balanced(chip: Chip):
    """The scratchpad feeds its engines at peak, and the cores together can ask for all of HBM's bandwidth."""
    core = chip.core
    matrix_operands = 2 * (core.matrix.row_count + core.matrix.column_count)
    vector_operands = 3 * 4 * core.vector.lane_count
    dma = core.load_dma.bytes_per_cycle + core.store_dma.bytes_per_cycle
    assert matrix_operands + vector_operands + dma <= core.scratchpad.bandwidth_bytes_per_cycle
    cores_can_load = chip.core_count * core.load_dma.bytes_per_cycle * chip.clock_hz
    assert cores_can_load >= chip.hbm.bandwidth_bytes_per_s
    in_flight_needed = Fraction(chip.hbm.bandwidth_bytes_per_s * chip.hbm.latency_ns, chip.core_count * 10**9)
    assert core.load_dma.outstanding_bytes >= in_flight_needed
