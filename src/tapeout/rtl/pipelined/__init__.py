"""The pipelined core: instructions overlap in each engine; array and common functions give a result a cycle."""
