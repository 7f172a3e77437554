"""Tools around a run on the chip: scripts, profiles, annotations, a language model, the scoreboard."""
