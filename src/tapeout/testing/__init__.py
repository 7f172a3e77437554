"""Common code of tests and benchmarks: random programs."""
