"""The throughput of a run that was recorded, or why it has none."""

import pytest

from tapeout.errors import TapeoutError
from tapeout.workbench.script import RunTime


def simulated(**changes):
    facts = {"chip": "inference", "total_ps": 2_000_000_000, "status": 0, "timing_only": False}
    empty = {name: {} for name in ("busy_ps", "counts", "host_operators", "untimed_kernels", "assumptions")}
    return RunTime(**(facts | empty | changes))


def test_a_simulated_run_has_a_throughput():
    assert simulated().items_per_s(5, "inference") == pytest.approx(2500)


@pytest.mark.parametrize(
    ("run", "items", "message"),
    [
        (simulated(chip="training"), 5, "the run was on the chip training, not inference"),
        (
            simulated(host_operators={"aten::sort": 3}),
            5,
            "the run's time leaves out aten::sort, so it has no throughput",
        ),
        (simulated(), 0, "0 items in 0.002 s are no throughput"),
    ],
)
def test_a_run_that_has_no_throughput_is_refused(run, items, message):
    with pytest.raises(TapeoutError) as caught:
        run.items_per_s(items, "inference")
    assert str(caught.value) == message
