"""`do_bench` on the chip: one run in virtual time, because a second one would take the same time to the picosecond."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from tapeout.runtime import session


def milliseconds(launch: Callable[[], Any]) -> float:
    """The chip's time from the submission of the first launch to the end of the last, which find nothing in the
    last-level SRAM. Turns the clock on."""
    now = session.turn_on()
    now.synchronize()
    now.empty_sram()  # as Triton clears a GPU's cache
    before = now.moment()
    launch()
    now.synchronize()
    after = now.moment()
    if after.unknown_count > before.unknown_count:
        warnings.warn(
            f"{after.unknown_count - before.unknown_count} operators of what is measured ran on the host: their time "
            "is unknown, and the measured time, which leaves them out, is a lower bound",
            stacklevel=2,
        )
    return (after.time_ps - before.time_ps) / 1e9


def do_bench(
    fn: Callable[[], Any],
    warmup: int = 25,
    rep: int = 100,
    grad_to_none: Any = None,
    quantiles: Sequence[float] | None = None,
    return_mode: str = "mean",
) -> Any:
    """`triton.testing.do_bench` for the chip. `warmup`, `rep`: accepted and not needed."""
    fn()  # what compiles or allocates at first use does so before the measured run
    for tensor in grad_to_none or ():
        tensor.grad = None
    time_ms = milliseconds(fn)
    if quantiles is not None:
        return time_ms if len(quantiles) == 1 else [time_ms] * len(quantiles)
    return [time_ms] if return_mode == "all" else time_ms


def install(is_chip_active: Callable[[], bool]) -> None:
    """Runs when the device wakes: `triton.testing.do_bench` is then ours while the chip is the active device."""
    import triton.testing

    everywhere_else = triton.testing.do_bench

    def do_bench_where_active(fn: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        return (do_bench if is_chip_active() else everywhere_else)(fn, *args, **kwargs)

    do_bench_where_active.__doc__ = everywhere_else.__doc__
    triton.testing.do_bench = do_bench_where_active
