"""torch.distributed on the chip: the c10d back end "tccl", a rank a chip."""
