"""Imports go down: each folder of the package has a floor and imports only from floors below it."""

import ast
from pathlib import Path

import tapeout

FLOORS = (
    ("errors",),
    ("host", "numerics", "figures"),
    ("chip",),
    ("isa", "accelerator", "cluster"),
    ("tile", "sim", "silicon"),
    ("passes.math", "runtime", "testing", "models"),
    ("passes", "rtl", "training"),
    ("codegen", "fleet", "planning"),
    ("triton_backend",),
    ("pytorch",),
    ("workbench", "serving"),
    ("exploration",),
    ("report",),
    ("studio",),
    ("cli",),
    ("tapeout",),
)
"""From the ground up. "tapeout": the package's own two files; importing it registers the device with PyTorch."""

EXECUTE = {"tile", "sim", "passes.math", "passes", "codegen", "testing", "runtime", "rtl", "triton_backend", "pytorch"}
ESTIMATE = {"accelerator", "silicon", "models", "training", "fleet", "planning"}
"""The two towers, which do not know each other: what runs programs, and what plans with figures of chips."""

ROOT = Path(tapeout.__file__).parent
FLOOR_OF = {folder: floor for floor, row in enumerate(FLOORS) for folder in row}


def folder_of(parts):
    """The entry of FLOORS of a module, by its name without the package's."""
    return next((name for name in (".".join(parts[:2]), *parts[:1]) if name in FLOOR_OF), "tapeout")


def imported(tree):
    """The module names, without the package's, that a file imports from it at any place."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are written out"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1:] for name in names if name.split(".")[0] == "tapeout")


def test_every_folder_has_a_floor():
    found = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found - {"__init__", "__main__"} == {name for name in FLOOR_OF if "." not in name} - {"tapeout"}


def test_imports_go_down():
    wrong = []
    for path in ROOT.rglob("*.py"):
        inside = path.relative_to(ROOT)
        here = folder_of(inside.with_suffix("").parts)
        for there in {folder_of(parts) for parts in imported(ast.parse(path.read_text()))} - {here}:
            if FLOOR_OF[there] >= FLOOR_OF[here]:
                wrong.append(f"{inside}: {here} imports {there}, which is not below it")
            if {here, there} & EXECUTE and {here, there} & ESTIMATE:
                wrong.append(f"{inside}: {here} and {there} are of different towers")
    assert not wrong, "\n".join(wrong)
