"""Arithmetic of tile sizes."""


def ceil_div(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def power_of_two_at_least(value: int) -> int:
    """The smallest power of two that is not smaller: what a tile's side may be."""
    return 1 << (max(value, 1) - 1).bit_length()
