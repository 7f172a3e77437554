"""Search for the chip that does given workloads best under constraints.

`space` reads what may vary, what must hold and what is wanted; `workloads` the operators that count; `simulation` asks
the cycle simulator about whole chips; `judging` fits the operators' forms to it and judges a candidate in milliseconds;
`search` has an optimiser (Optuna, the extra `explore`) propose candidates and keeps them on disk.
"""
