"""A fleet's plan as manifests for Kubernetes: Kueue, Volcano or Ray hold each workload to the cards it was given.

Takes a `FleetPlan`; gives documents (mappings) and their YAML. The schedulers decide by queue, not by cost: the plan
decides, and they enforce it.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tapeout.errors import TapeoutError
from tapeout.fleet.manifests import kueue, ray, volcano
from tapeout.fleet.placing import FleetPlan

Document = Mapping[str, Any]

WRITERS: dict[str, Callable[[FleetPlan], list[Document]]] = {
    "kueue": kueue.documents,
    "volcano": volcano.documents,
    "ray": ray.documents,
}


def to_yaml(documents: Sequence[Document]) -> str:
    """The documents as one YAML stream. Raises TapeoutError without PyYAML."""
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        raise TapeoutError(
            "writing manifests needs PyYAML; in Tapeout's source folder: pip install --editable '.[plan]'"
        ) from None
    return str(yaml.safe_dump_all(documents, sort_keys=False, explicit_start=True, width=120))
