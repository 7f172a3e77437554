"""The functional simulator: a Program as machine code of this host, bit-identical with the reference evaluator."""
