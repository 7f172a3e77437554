"""What a planner is asked: the model, the batch, and which settings it may try.

Takes what the user says; gives a `Question`, which refuses what no plan could do.
"""

from dataclasses import dataclass

from tapeout.models.step import ModelShape
from tapeout.training.fleet import Fleet
from tapeout.training.plan import Mesh, Pipeline, Plan
from tapeout.training.problems import TrainingError

TENSOR = (1, 2, 4, 8, 16)
MICRO_BATCHES = (1, 2, 4, 8)
RECOMPUTES = ("none", "full")
SCHEDULES = ("1f1b", "zero-bubble")
"""Schedules whose pipelines are searched; 1F1B's plans are tried with virtual stages too."""
LONG_SEQUENCE = 32768
"""From this length on, context parallelism is tried without being asked for."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A batch of `batch` sequences of `sequence` tokens in each step. Empty settings: the planner's choice.
    `one_pipeline`: no kinds with pipelines of their own."""

    model: ModelShape
    fleet: Fleet
    batch: int
    sequence: int
    dtype: str = "bfloat16"
    zero: int = 1
    schedule: str = "1f1b"
    tp: tuple[int, ...] = ()
    cp: tuple[int, ...] = ()
    ep: tuple[int, ...] = ()
    stages: int | None = None
    micro_batch: tuple[int, ...] = ()
    recompute: tuple[str, ...] = ()
    one_pipeline: bool = False

    def __post_init__(self) -> None:
        if self.stages is not None and self.stages > self.model.layers:
            raise TrainingError(
                f"{self.stages} stages for the {self.model.layers} layers of {self.model.name}; "
                f"use at most {self.model.layers} stages"
            )
        if self.micro_batch and not any(self.batch % each == 0 for each in self.micro_batch):
            share = self.micro_batch[0]
            lower, upper = self.batch // share * share, -(-self.batch // share) * share
            would = " or ".join(str(each) for each in (lower, upper) if each)
            raise TrainingError(f"a batch of {self.batch} does not divide into micro-batches of {share}; {would} does")
        for tp in self.tp:
            if self.model.heads % tp:
                fits = [each for each in TENSOR if self.model.heads % each == 0]
                raise TrainingError(
                    f"{self.model.name} has {self.model.heads} heads, which do not divide over tp {tp}; {fits} do"
                )
        if self.schedule not in SCHEDULES:
            raise TrainingError(
                f"plans are searched with {' or '.join(SCHEDULES)}, not {self.schedule!r}; "
                "`tapeout cluster --schedule` times the others for a plan that is given"
            )
        _ = self.base  # refuses types, schedules and the like that there are not

    @property
    def base(self) -> Plan:
        """A plan with what holds for all plans; its pipeline says nothing."""
        kind = self.fleet.cards[0].name
        nothing = Pipeline(meshes=(Mesh(kind=kind),), batch=1)
        return Plan(
            pipelines=(nothing,), sequence=self.sequence, dtype=self.dtype, zero=self.zero, schedule=self.schedule
        )

    @property
    def least_layers(self) -> int:
        """Layers that a stage has at least: a number of stages that is given is kept, others may lose idle ones."""
        return 1 if self.stages is not None else 0

    def tensor_sizes(self, kind: str) -> tuple[int, ...]:
        """Sizes of tensor parallelism on a kind: within a node, as the heads divide."""
        node = self.fleet[kind].node
        return tuple(
            size for size in self.tp or TENSOR if size <= node and not self.model.heads % size and self._divides(size)
        )

    def _divides(self, tp: int) -> bool:
        return not self.sequence % tp

    @property
    def context_sizes(self) -> tuple[int, ...]:
        if self.cp:
            return self.cp
        return (1, 2, 4, 8) if self.sequence >= LONG_SEQUENCE else (1,)

    @property
    def expert_sizes(self) -> tuple[int, ...]:
        if self.ep:
            return self.ep
        if not self.model.experts:
            return (1,)
        return tuple(size for size in (1, 2, 4, 8, 16, 32, 64) if not self.model.experts % size)

    @property
    def micro_batches(self) -> tuple[int, ...]:
        return tuple(size for size in self.micro_batch or MICRO_BATCHES if not self.batch % size)

    @property
    def recomputes(self) -> tuple[str, ...]:
        return self.recompute or RECOMPUTES

    def replica_counts(self, micro_batch: int) -> list[int]:
        """Replicas over which the micro-batches of a step divide."""
        count = self.batch // micro_batch
        most = min(count, self.fleet.count)
        return [each for each in range(1, most + 1) if not count % each]
