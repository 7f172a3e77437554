"""Tapeout as a Triton back end (entry point `triton.backends`)."""
