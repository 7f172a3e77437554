"""The tile IR: a kernel as operations on scalars and tiles, imported from Triton's IR."""
