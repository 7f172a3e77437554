"""Quantities read well and lose nothing that matters."""

import pytest

from tapeout.report.units import binary_bytes, decimal, significant


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "B", "0 B"),
        (999, "B", "999 B"),
        (1_350_000_000, "Hz", "1.35 GHz"),
        (88.4736e12, "FLOP/s", "88.5 TFLOP/s"),
        (999_999, "B", "1000 kB"),
        (1_000_000, "B", "1 MB"),
    ],
)
def test_decimal(value, unit, text):
    assert decimal(value, unit) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (2 << 20, "2 MiB"), (1536, "1.5 KiB"), (96 << 30, "96 GiB")])
def test_binary_bytes(value, text):
    assert binary_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (6.0, "6"), (1592.4, "1,592"), (0.5712, "0.571"), (27.06, "27.1"), (8298.6, "8,299"), (-0.25, "-0.250")],
)
def test_significant_digits_without_exponent(value, text):
    assert significant(value) == text
