"""From a kernel in tile IR to a Program: passes in the order of `pipeline.compile_kernel`."""
