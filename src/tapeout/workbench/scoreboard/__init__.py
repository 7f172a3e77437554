"""Third-party programs on the chip: a verdict for each case, kept in a file, shown in a table.

A suite names its cases and judges one at a time (`operators`); `runner` has processes of their own do that, so that a
crash or a hang is one case's verdict and not the end; `verdicts` is what they give.
"""
