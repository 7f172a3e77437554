"""Tapeout: everything an AI accelerator needs around it, from one description."""
