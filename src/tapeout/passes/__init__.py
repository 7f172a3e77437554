"""Passes over the tile IR, in the order of `tapeout.codegen.pipeline.TILE_PASSES`."""
