"""Tapeout: everything an AI accelerator needs around it, from one description.

Importing this registers the device `chip` with torch if torch is imported; torch registers it if it is imported
later (pytorch/registration.py). Nothing else happens here: Triton imports this package to find its back end.
"""

import importlib
import importlib.metadata
import sys
from typing import Any

if hasattr(sys.modules.get("torch"), "_import_device_backends"):
    from tapeout.pytorch.registration import register

    register()


def __getattr__(name: str) -> Any:
    """The version, and the modules of the workbench that user programs import from here, loaded at first use."""
    if name == "__version__":
        return importlib.metadata.version("tapeout")
    if name in ("language_model", "work"):
        return importlib.import_module(f"tapeout.workbench.{name}")
    raise AttributeError(f"module 'tapeout' has no attribute {name!r}")
