"""Serving: vLLM on the chip, and vLLM's scheduler in virtual time over a trace of requests."""
