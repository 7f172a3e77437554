"""Chips without DRAM or last level, and networks: the timing model in C++ against the one in Python, laws, and the
network against one that moves packets cycle by cycle."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tapeout import chip
from tapeout.chip import Network, Package
from tapeout.chip.layout import Layout
from tapeout.codegen.pipeline import compile_kernel
from tapeout.sim import timing
from tapeout.sim.state import Memory
from tapeout.sim.timing import fast, reference
from tapeout.sim.timing import network as timing_network
from tapeout.sim.timing.network import TICKS
from tapeout.testing.random_programs import random_case

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "passes")]
import kernels  # noqa: E402
from network_by_cycles import Packet, delivered  # noqa: E402

TINY = chip.load("tiny")
PLAIN = replace(TINY, core_count=8, core=replace(TINY.core, design="pipelined"))
MESH = Network(kind="mesh", column_count=4, hop_cycles=2, link_bytes_per_cycle=16)
RING = Network(kind="ring", hop_cycles=3, link_bytes_per_cycle=8)
TWO_DIES = Package(die_count=2, link_bytes_per_s=20_000_000_000, hop_cycles=9)
CHIPS = {
    "no DRAM": replace(PLAIN, hbm=None),
    "no last level": replace(PLAIN, last_level_sram=None),
    "mesh": replace(PLAIN, network=MESH),
    "mesh, memory at the edges, no last level": replace(
        PLAIN, network=replace(MESH, memory_place="edges"), last_level_sram=None
    ),
    "mesh of two dies": replace(PLAIN, network=MESH, package=TWO_DIES),
    "ring of two dies, no DRAM": replace(PLAIN, network=RING, package=TWO_DIES, hbm=None),
    "crossbar": replace(PLAIN, network=Network(kind="crossbar", hop_cycles=4, link_bytes_per_cycle=16)),
}


def timed(simulate, case, used, base=1 << 20):
    image = case.image.copy()
    workspace = base + len(image)
    image = np.concatenate([image, np.zeros(used.core_count * case.program.workspace_bytes, np.uint8)])
    places = {"memory_base": base, "workspace": workspace}
    trace = timing.record_trace(case.program, used, case.grid, (base,), Memory(base, image), workspace=workspace)
    return simulate(case.program, used, case.grid, (base,), data=trace, **places)


@pytest.mark.parametrize("name", CHIPS)
@pytest.mark.parametrize("seed", range(3))
def test_the_model_in_cpp_gives_the_same_cycles(name, seed):
    used = CHIPS[name]
    case = random_case(seed, used, instruction_count=20)
    plain, quick = timed(reference.simulate, case, used), timed(fast.simulate, case, used)
    assert plain.cycles == quick.cycles
    assert (plain.busy_cycles == quick.busy_cycles).all() and (plain.stall_cycles == quick.stall_cycles).all()
    for name in ("hbm_read_bytes", "hbm_written_bytes", "sram_read_bytes", "sram_written_bytes", "sram_hits"):
        assert getattr(plain, name) == getattr(quick, name), name
    if used.hbm is None:
        assert plain.hbm_read_bytes == plain.hbm_written_bytes == plain.sram_misses == 0


@pytest.mark.parametrize("name", [name for name, used in CHIPS.items() if used.network])
def test_every_route_leads_to_its_slice_over_as_many_links_as_it_has_hops(name):
    layout = Layout.of(CHIPS[name])
    numbers, total = set(), 0
    for core in range(layout.station_count):
        for number in range(layout.slice_count):
            there = [link for link, _ in layout.route(core, number, answer=False)]
            back = [link for link, _ in layout.route(core, number, answer=True)]
            assert len(there) == len(back) == layout.hops(core, number)
            assert len(set(there)) == len(there)
            total += len(there)
            numbers |= {*there, *back}
    assert max(numbers) < layout.link_numbers
    assert layout.mean_hops == pytest.approx(total / layout.station_count / layout.slice_count)


def test_hops_and_borders_take_time():
    """On a mesh of one die a program is not faster than on the chip without a network; with a border in it slower."""
    case = random_case(1, PLAIN, instruction_count=20)
    cycles = [timed(fast.simulate, case, used).cycles for used in (PLAIN, CHIPS["mesh"], CHIPS["mesh of two dies"])]
    assert cycles[0] < cycles[1] < cycles[2]


class Recorder:
    """Stands for the network of a launch: notes every packet, and delays it by what `latencies` says of it, else by
    what the model says. A packet is known by kind, core, slice, size and how many such came before."""

    def __init__(self, model, latencies):
        self.model, self.latencies = model, latencies
        self.packets, self.names, self.met = {"request": [], "answer": []}, {"request": [], "answer": []}, Counter()

    def _move(self, kind, time, core, number, size):
        count = self.met[kind, core, number, size]
        self.met[kind, core, number, size] += 1
        name = (kind, core, number, size, count)
        route = tuple(link for link, _ in self.model.layout.route(core, number, answer=kind == "answer"))
        self.packets[kind].append(Packet(-(-time // TICKS), route, size))
        self.names[kind].append(name)
        if name in self.latencies:
            return time + self.latencies[name] * TICKS
        return getattr(self.model, kind)(time, core, number, size)

    def request(self, *arguments):
        return self._move("request", *arguments)

    def answer(self, *arguments):
        return self._move("answer", *arguments)

    def by_cycles(self, used):
        """Latency of each packet when it is moved cycle by cycle."""
        found = {}
        for kind, packets in self.packets.items():
            ends = delivered(packets, used.network.hop_cycles, used.network.link_bytes_per_cycle)
            found |= {n: end - p.cycle for n, p, end in zip(self.names[kind], packets, ends, strict=True)}
        return found


GRID = replace(
    PLAIN,
    core_count=16,
    network=Network(kind="mesh", column_count=4, hop_cycles=2, link_bytes_per_cycle=32),
    last_level_sram=replace(PLAIN.last_level_sram, slice_count=8),
)


@pytest.mark.parametrize("place", ["spread", "edges"])
@pytest.mark.parametrize("link_bytes", [16, 32])
@pytest.mark.parametrize(("m", "k", "n", "block"), [(128, 64, 128, 32), (1, 128, 256, 16)], ids=["GEMM", "decode"])
def test_a_mesh_takes_the_time_of_one_that_is_moved_cycle_by_cycle(m, k, n, block, link_bytes, place, monkeypatch):
    """Within 10 %, where links have half of the rate of a core or all of it. The launch is repeated with the latencies
    that the cycle-level network gives to its packets, so that cores wait for them."""
    used = replace(GRID, network=replace(GRID.network, memory_place=place, link_bytes_per_cycle=link_bytes))
    text = kernels.ttir(kernels.matmul, "*fp16 *fp16 *fp32 i32 i32 i32 i32 i32 i32", BM=block, BN=block, BK=32)
    grid = (-(-m // block), n // block, 1)
    base = 1 << 20
    words = (base, base + 2 * m * k, base + 2 * m * k + 2 * k * n, m, n, k, k, n, n)
    program = compile_kernel(text, used)
    latencies, cycles = {}, []
    for _ in range(2):
        recorder = Recorder(timing_network.Network.of(used), latencies)
        monkeypatch.setattr(reference, "Network", SimpleNamespace(of=lambda _, recorder=recorder: recorder))
        cycles.append(reference.simulate(program, used, grid, words, memory_base=base).cycles)
        latencies = recorder.by_cycles(used)
    assert cycles[0] == fast.simulate(program, used, grid, words, memory_base=base).cycles
    assert cycles[0] == pytest.approx(cycles[-1], rel=0.1)
