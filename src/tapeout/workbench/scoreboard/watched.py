"""`python -m tapeout.workbench.scoreboard.watched RESULT PROGRAM ARGUMENTS`: a program that names the chip itself.

It runs as Python would run it, with the clock on and nothing else changed; RESULT gets its `RunTime` as JSON.
"""

import runpy
import sys
from pathlib import Path

from tapeout.runtime import session
from tapeout.workbench import script


def main() -> None:
    result, program, *arguments = sys.argv[1:]
    script.import_torch()
    session.turn_on(only=False)
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")
    Path(result).write_text(script.time_so_far(timing_only=False).to_json(), "utf-8")


if __name__ == "__main__":
    main()
