"""`python -m tapeout`: the command line."""

from tapeout.cli import app

app(prog_name="tapeout")
