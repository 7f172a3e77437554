"""The studio: a folder of runs and chips as pages in the browser, on this machine alone.

`library` reads the folder, as data; `trace` prepares a trace for drawing; `pages` makes pages of `tapeout.report`;
`server` answers on the loopback. Needs the extra `studio`.
"""
