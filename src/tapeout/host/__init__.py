"""The machine that simulates: its CPU, what is built for it once, and the cache where that is kept."""
