"""Chips unlike the reference chips: memories in a list or none, networks, several dies, analogue engines."""

from dataclasses import replace

import pytest

from tapeout import chip
from tapeout.chip import GiB, Hbm, Network, Package, inference, tiny
from tapeout.errors import ChipError

FILE = 'based_on = "inference"\nname = "mine"\n'


def loaded(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(FILE + text)
    return chip.load("mine.toml")


def test_without_dram_tensors_live_in_the_last_level(tmp_path, monkeypatch):
    mine = loaded(tmp_path, monkeypatch, "memories = []\n")
    assert mine.memories == () and mine.hbm is None
    memory = mine.global_memory
    assert (memory.name, memory.size_bytes) == ("last-level SRAM", inference.last_level_sram.size_bytes)
    assert memory.bandwidth_bytes_per_s == 64 * 64 * inference.clock_hz
    assert memory.latency_ns == 0
    (tmp_path / "copy.toml").write_text(chip.writing.commented_toml(mine))
    assert chip.load("copy.toml") == mine


def test_a_list_of_one_memory_is_the_main_memory(tmp_path, monkeypatch):
    text = '[[memories]]\nkind = "GDDR6"\nstack_count = 12\nsize_bytes = 25769803776\n'
    text += "bandwidth_bytes_per_s = 768_000_000_000\nchannel_count = 24\nprice_usd_per_gb = 5\n"
    mine = loaded(tmp_path, monkeypatch, text)
    assert mine.hbm == Hbm(
        kind="GDDR6",
        stack_count=12,
        size_bytes=24 * GiB,
        bandwidth_bytes_per_s=768_000_000_000,
        channel_count=24,
        price_usd_per_gb=5,
    )
    assert mine.hbm.where == "beside" and inference.hbm.where == "on package"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("memories = 3\n", "mine.toml:3: memories is not a list of tables; [[memories]] opens each, [] is none"),
        (
            "[[memories]]\n[hbm]\n",
            "mine.toml:3: memories and hbm both describe the main memory; leave one of them out",
        ),
        (
            "[[memories]]\n[[memories]]\n",
            "mine.toml:3: 2 memories: a program sees one address space at one rate. Describe them as one, or the "
            "nearer one as last_level_sram",
        ),
        (
            'memories = []\nlast_level_sram = "none"\n',
            "mine.toml:3: hbm=None leaves no memory for tensors, as there is no last_level_sram; describe one of the "
            "two",
        ),
        ('hbm = "absent"\n', "mine.toml:3: hbm='absent' is not a table"),
    ],
)
def test_a_file_that_describes_no_possible_memory_is_refused(tmp_path, monkeypatch, text, sentence):
    with pytest.raises(ChipError) as refused:
        loaded(tmp_path, monkeypatch, text)
    assert str(refused.value) == sentence


def test_without_a_last_level_requests_meet_the_controllers_buffers():
    bare = replace(inference, last_level_sram=None)
    assert bare.last_level_bytes == 0
    assert bare.on_chip_sram_bytes == 32 * inference.core.scratchpad.size_bytes
    buffers = bare.memory_side
    assert buffers.slice_count == inference.hbm.channel_count and buffers.line_bytes == 64
    assert (
        buffers.slice_count * buffers.bytes_per_cycle_per_slice * bare.clock_hz >= inference.hbm.bandwidth_bytes_per_s
    )
    assert inference.memory_side is inference.last_level_sram


PIPELINED = replace(tiny, core=replace(tiny.core, design="pipelined"))
MESH = Network(kind="mesh", column_count=2, hop_cycles=1, link_bytes_per_cycle=32)
DIES = Package(die_count=2, link_bytes_per_s=10**11, hop_cycles=10)


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        (tiny, {"hbm": None}, "hbm=None is needed by a microcoded core; core.design='pipelined' runs without DRAM"),
        (
            tiny,
            {"network": MESH},
            "network=Network(...) is not in a microcoded core's RTL; core.design='pipelined' may have one",
        ),
        (PIPELINED, {"network": replace(MESH, column_count=4)}, "core_count=2 does not fill a mesh of 4 columns"),
        (
            PIPELINED,
            {"package": DIES},
            "package=Package(...) needs a network whose links can cross from die to die; a mesh or a ring does",
        ),
        (
            PIPELINED,
            {"network": MESH, "package": replace(DIES, die_count=3)},
            "core_count=2 does not divide into 3 dies",
        ),
        (MESH, {"kind": "ring"}, "network.column_count=2 is for a mesh; a ring has 1"),
        (
            tiny.core.matrix,
            {"operand_bits": 6},
            "matrix.operand_bits=6 is for kind='analogue' only",
        ),
        (
            tiny.core.matrix,
            {"kind": "analogue"},
            "matrix.operand_bits=None is missing: an analogue engine needs it",
        ),
        (
            tiny.core,
            {"matrix": replace(tiny.core.matrix, kind="systolic")},
            "core.design='microcoded' needs matrix.kind='outer-product', not 'systolic'; 'pipelined' does not",
        ),
    ],
)
def test_impossible_combinations_are_refused(part, change, sentence):
    with pytest.raises(ChipError) as refused:
        replace(part, **change)
    assert refused.value.sentence == sentence


def test_younger_fields_at_their_default_leave_the_fingerprint_alone():
    assert inference.fingerprint() == "9f1216919570001d"
    assert "network" not in inference.to_dict() and "place" not in inference.to_dict()["hbm"]
    for changed in (replace(PIPELINED, network=MESH), replace(PIPELINED, hbm=None)):
        assert changed.fingerprint() != PIPELINED.fingerprint()
