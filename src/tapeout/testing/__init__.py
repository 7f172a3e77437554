"""What tests and benchmarks share: random programs."""
