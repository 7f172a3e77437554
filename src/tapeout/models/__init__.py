"""Times of operators on an accelerator: physical forms, parameters fitted to measured rows, ranges.

Takes an `Accelerator` and operators (one, or a table of them), gives seconds with range, what bounds them, and where
the answer comes from. `tables` says what operators there are, `forms/` how each one's time depends on a machine,
`trees` and `neighbours` what a form leaves over, `fitting` and `parameters` how the files in `data/` come about,
`timers` puts them together.
"""
