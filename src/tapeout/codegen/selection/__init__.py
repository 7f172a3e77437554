"""Instruction selection by subject: each module has the operations of one, in a table `HANDLERS` by name."""
