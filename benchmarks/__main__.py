"""Run the benchmarks named on the command line, or all: `python -m benchmarks [name ...]`.

After `tpuv3` may come workloads: `python -m benchmarks tpuv3 gemm_1024x1024x1024 resnet50`.
"""

import importlib
import sys

BENCHMARKS = (
    "functional_simulator",
    "host_speed",
    "language",
    "compile_time",
    "first_token",
    "language_model_rate",
    "code_quality",
    "timing_speed",
    "tpuv3",
    "virtual_time",
    "pytorch",
    "cosimulation",
    "random_kernels",
    "many_chips",
    "collectives",
    "fleet",
    "ranking_service",
    "planner",
    "planner_brute_force",
)


def main(names: list[str]) -> None:
    if names[:1] == ["tpuv3"] and len(names) > 1 and names[1] not in BENCHMARKS:
        importlib.import_module("benchmarks.tpuv3").main(names[1:])
        return
    if names[:1] == ["random_kernels"] and "".join(names[1:2]).startswith("-"):
        importlib.import_module("benchmarks.random_kernels").main(names[1:])
        return
    if names == ["collectives", "--write"]:
        importlib.import_module("benchmarks.collectives").main(names[1:])
        return
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        raise SystemExit(f"unknown benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    for name in names or BENCHMARKS:
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main(sys.argv[1:])
