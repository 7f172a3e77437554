"""Compilation of a kernel in tile IR to a Program; `pipeline.compile_kernel` lists every pass in order."""
