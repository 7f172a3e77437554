"""Measurements of Tapeout against its alternatives, both sides in one run. `make bench` runs them all."""
