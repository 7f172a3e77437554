"""Counters that several givers and takers change in a cycle: none is lost, taken twice or taken before it was given."""

import random

from amaranth.sim import Simulator

from tapeout.rtl.pipelined.queues import Semaphores

SEMAPHORES, TAKERS, GIVERS, CYCLES = 8, 3, 2, 400


def test_counts_are_what_was_given_less_what_was_taken():
    unit = Semaphores(SEMAPHORES, TAKERS, GIVERS)
    source = random.Random(0)
    counts = [0] * SEMAPHORES
    moved = {"given": 0, "taken": 0}

    async def bench(ctx):
        for _ in range(CYCLES):
            for port in (*unit.givers, *unit.takers):
                ctx.set(port.valid, source.random() < 0.7)
                ctx.set(port.a, source.randrange(SEMAPHORES))
                ctx.set(port.b, source.randrange(SEMAPHORES))
            before = list(counts)
            assert ctx.get(unit.all_zero) == (sum(counts) == 0)
            for side, sign, kind in ((unit.takers, -1, "taken"), (unit.givers, 1, "given")):
                touched = set()
                for port in side:
                    names = [n for n in (ctx.get(port.a), ctx.get(port.b)) if n]
                    if not ctx.get(port.valid & port.ready):
                        continue
                    assert not touched & set(names)
                    touched |= set(names)
                    for n in names:
                        counts[n] += sign
                        moved[kind] += 1
                if kind == "taken":
                    assert all(0 <= now <= was for now, was in zip(counts, before, strict=True))
            await ctx.tick()

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert moved["given"] > CYCLES / 2 and moved["taken"] > CYCLES / 4
    assert sum(counts) == moved["given"] - moved["taken"]
