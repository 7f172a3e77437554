"""Folders with runs, made by hand."""

import json
import shutil
from importlib import resources

SAMPLES = resources.files("tapeout.studio") / "sample"


def run_folder(root, name, sample="two-layers-on-tiny"):
    """A copy of a sample run."""
    made = root / name
    shutil.copytree(SAMPLES / sample, made)
    return made


def edited(folder, file, change):
    """A run's JSON file with a change."""
    data = json.loads((folder / file).read_text())
    change(data)
    (folder / file).write_text(json.dumps(data))
