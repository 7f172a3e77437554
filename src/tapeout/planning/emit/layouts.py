"""What the frameworks' files have in common: chunks of layers in order, and the one mesh that some can express."""

from tapeout.models.step import ModelShape
from tapeout.training.plan import Mesh, Pipeline, Plan
from tapeout.training.problems import TrainingError


def chunks(model: ModelShape, plan: Plan, pipeline: Pipeline) -> list[int]:
    """Layers of each chunk in the order of the layers: with virtual stages stage after stage, round after round, dealt
    as `training.predict` deals them."""
    counts, virtual = pipeline.layers(model), plan.virtual_stages
    return [count // virtual + (1 if part < count % virtual else 0) for part in range(virtual) for count in counts]


def only_pipeline(plan: Plan, framework: str) -> Pipeline:
    if len(plan.pipelines) > 1:
        raise TrainingError(
            f"{framework} has no pipelines with shares of the batch of their own; plan with --one-pipeline"
        )
    return plan.pipelines[0]


def only_mesh(plan: Plan, framework: str) -> Mesh:
    """The way in which all stages are split. Raises TrainingError if they are split in several."""
    meshes = only_pipeline(plan, framework).meshes
    for name, word in (("tp", "--tp"), ("cp", "--cp"), ("ep", "--ep"), ("recompute", "--recompute")):
        values = sorted({getattr(mesh, name) for mesh in meshes})
        if len(values) > 1:
            raise TrainingError(
                f"{framework} has one {name} for all stages, the plan has {values}; plan with {word} {values[-1]}, "
                "or --emit flagscale"
            )
    return meshes[0]


def check_known(model: ModelShape, framework: str) -> None:
    if model.windowed_share:
        raise TrainingError(
            f"{framework} is told of full attention only, {model.name} has windows; write its layers by hand"
        )
