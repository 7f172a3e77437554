"""Plans written for those who run them: FlagScale, Megatron, torchtitan, and a script of torch.distributed.

Takes what the planner found; writes files into a folder. A framework cannot express every plan: the best that it can
is written, and where it can express none, the reason is told.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tapeout.planning.emit import flagscale, megatron, torch_script, torchtitan
from tapeout.planning.planner import Planned
from tapeout.training.problems import TrainingError

WRITERS: dict[str, Callable[[Planned], dict[str, str]]] = {
    "flagscale": flagscale.files,
    "megatron": megatron.files,
    "torchtitan": torchtitan.files,
    "torch": torch_script.files,
}


def files(framework: str, planned: Planned) -> tuple[int, dict[str, str]]:
    """The best plan that the framework can express: its place in the list, from 0, and the text of each file by name.
    Raises TrainingError, the best plan's, if there is none."""
    first: TrainingError | None = None
    for place, ranked in enumerate(planned.plans):
        try:
            return place, WRITERS[framework](replace(planned, plans=(ranked,)))
        except TrainingError as error:
            first = first or error
    assert first is not None, "a planner's answer has a plan"
    raise first


def write(framework: str, planned: Planned, folder: Path) -> tuple[int, list[Path]]:
    """Write those files; return the plan's place in the list and the paths."""
    place, texts = files(framework, planned)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in texts.items():
        path = folder / name
        path.write_text(text, "utf-8")
        paths.append(path)
    return place, paths
