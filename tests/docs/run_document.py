"""Runs a Markdown document's code: `python run_document.py DOCUMENT`, in the directory it may write to.

Python blocks run in order and share their names. A block with title="name" is written to that file instead.
A `text` block after a Python block is its output, to the letter. Console blocks are for the reader. Exits
with the first difference or error, naming the document's line.
"""

import contextlib
import io
import re
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r'^```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<body>.*?)^```$', re.M | re.S)


@dataclass(frozen=True)
class Block:
    language: str
    title: str | None
    body: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("body")) + 1
        yield Block(match["language"], match["title"], match["body"], line)


def run(document: Path) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    printed = ""
    for block in blocks(document.read_text("utf-8")):
        place = f"{document}:{block.line}"
        if block.title:
            Path(block.title).write_text(block.body)
        elif block.language == "text":
            if printed != block.body:
                sys.exit(f"{place}: the document says\n{block.body}\nthe program says\n{printed}")
        elif block.language == "python":
            output = io.StringIO()
            source = block.body
            # Triton reads a kernel's source from a file, so each block is one.
            file = Path(f"block_{block.line}.py")
            file.write_text("\n" * (block.line - 1) + source)
            try:
                with contextlib.redirect_stdout(output):
                    exec(compile(file.read_text(), str(file), "exec"), names)
            except Exception:
                traceback.print_exc()
                sys.exit(f"{place}: the block failed")
            printed = output.getvalue()


if __name__ == "__main__":
    sys.path.insert(0, ".")
    run(Path(sys.argv[1]))
