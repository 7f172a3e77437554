"""A plan of training: which cards hold which layers, and how a step's sequences go through them.

A `Plan` is a list of `Pipeline`s, which hold copies of the model and share the batch. A pipeline is a list of `Mesh`es
in the order of the layers: cards of one kind that split their layers in one way. A homogeneous plan is one pipeline of
one mesh (`uniform`). Cards of a mesh: stages x tp x cp x replicas; experts are spread over the replicas' cards (`ep`).
"""

from dataclasses import dataclass, replace

from tapeout.models.step import ModelShape
from tapeout.training.problems import TrainingError

SCHEDULES = ("1f1b", "interleaved", "zero-bubble", "dualpipe", "gpipe")
RECOMPUTES = ("none", "selective", "products", "full")
"""What a backward pass computes again: nothing; attention where its scores are not kept on the chip (Korthikanti et al.
2022); every second product, and what lies between (torchtitan's selective mode); a whole layer."""
DTYPES = ("bfloat16", "float16", "tfloat32", "int8", "fp8", "nvfp4")


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Neighbouring stages on one kind of card. `layers`: of each stage, in order; empty: the even share."""

    kind: str
    stages: int = 1
    tp: int = 1
    cp: int = 1
    ep: int = 1
    layers: tuple[int, ...] = ()
    recompute: str = "none"

    def __post_init__(self) -> None:
        for name in ("stages", "tp", "cp", "ep"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name}={getattr(self, name)} on {self.kind}; the least is 1")
        if self.recompute not in RECOMPUTES:
            raise TrainingError(f"unknown recompute {self.recompute!r}; choose from {', '.join(RECOMPUTES)}")
        if self.layers and len(self.layers) != self.stages:
            raise TrainingError(f"{len(self.layers)} counts of layers for the {self.stages} stages on {self.kind}")

    @property
    def cards_of_replica(self) -> int:
        return self.stages * self.tp * self.cp


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A copy of the model, `replicas` times, that does `batch` sequences of each step (all replicas together)."""

    meshes: tuple[Mesh, ...]
    replicas: int = 1
    batch: int
    micro_batch: int = 1

    def __post_init__(self) -> None:
        if not self.meshes:
            raise TrainingError("a pipeline has at least one mesh of cards")
        if min(self.replicas, self.batch, self.micro_batch) < 1:
            raise TrainingError(
                f"replicas={self.replicas}, batch={self.batch}, micro-batch={self.micro_batch}: the least of each is 1"
            )
        share = self.replicas * self.micro_batch
        if self.batch % share:
            lower, upper = self.batch // share * share, -(-self.batch // share) * share
            would = " or ".join(str(each) for each in (lower, upper) if each)
            raise TrainingError(
                f"a batch of {self.batch} does not divide over {self.replicas} replicas and micro-batches of "
                f"{self.micro_batch}; {would} does"
            )

    @property
    def stages(self) -> int:
        return sum(mesh.stages for mesh in self.meshes)

    @property
    def micro_batches(self) -> int:
        """How many micro-batches a replica works off in a step."""
        return self.batch // (self.replicas * self.micro_batch)

    @property
    def cards(self) -> dict[str, int]:
        """Cards of each kind that it takes."""
        taken: dict[str, int] = {}
        for mesh in self.meshes:
            taken[mesh.kind] = taken.get(mesh.kind, 0) + mesh.cards_of_replica * self.replicas
        return taken

    def layers(self, model: ModelShape) -> tuple[int, ...]:
        """Layers of each stage. Meshes that do not say share what is left evenly, the first stages taking the rest.
        Raises TrainingError if they do not add up to the model's."""
        fixed = sum(sum(mesh.layers) for mesh in self.meshes)
        open_stages = sum(mesh.stages for mesh in self.meshes if not mesh.layers)
        left = model.layers - fixed
        if self.stages > model.layers:
            raise TrainingError(
                f"{self.stages} stages for the {model.layers} layers of {model.name}; use at most {model.layers} stages"
            )
        if (left and not open_stages) or left < open_stages:
            raise TrainingError(
                f"the stages hold {fixed} layers, {model.name} has {model.layers}; make them add up to {model.layers}"
            )
        found: list[int] = []
        seen = 0
        for mesh in self.meshes:
            if mesh.layers:
                found += mesh.layers
                continue
            for _ in range(mesh.stages):
                found.append(left // open_stages + (1 if seen < left % open_stages else 0))
                seen += 1
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`zero`: 0 nothing, 1 optimizer state, 2 and gradients, 3 and weights are split over replicas.

    `virtual_stages`: chunks of layers on each card (interleaved). `sequence_parallel`: norms and dropout are split over
    tp. `fused_attention`: scores stay on the chip. `overlap_gradients`: their reduction runs beside the last backward
    passes, and the gathering of new weights beside the first forward ones. `gradient_bytes`: of one gradient that is
    kept and reduced. `dropout`: whether models without gates, which are of the time of dropout, keep its masks.
    """

    pipelines: tuple[Pipeline, ...]
    sequence: int
    schedule: str = "1f1b"
    virtual_stages: int = 1
    zero: int = 1
    dtype: str = "bfloat16"
    sequence_parallel: bool = True
    fused_attention: bool = True
    overlap_gradients: bool = True
    gradient_bytes: int = 4
    dropout: bool = True

    def __post_init__(self) -> None:
        if not self.pipelines:
            raise TrainingError("a plan has at least one pipeline")
        if self.schedule not in SCHEDULES:
            raise TrainingError(f"unknown schedule {self.schedule!r}; choose from {', '.join(SCHEDULES)}")
        if self.dtype not in DTYPES:
            raise TrainingError(f"unknown element type {self.dtype!r}; choose from {', '.join(DTYPES)}")
        if self.zero not in (0, 1, 2, 3):
            raise TrainingError(f"zero={self.zero}; it is 0, 1, 2 or 3")
        if self.sequence < 1 or self.virtual_stages < 1:
            raise TrainingError(f"sequence={self.sequence}, virtual stages={self.virtual_stages}: the least is 1")
        if self.virtual_stages > 1 and self.schedule not in ("interleaved", "zero-bubble"):
            raise TrainingError(f"virtual stages belong to the interleaved schedule, not to {self.schedule}")

    @property
    def batch(self) -> int:
        """Sequences of a step."""
        return sum(pipeline.batch for pipeline in self.pipelines)

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.batch * self.sequence

    @property
    def cards(self) -> dict[str, int]:
        """Cards of each kind that it takes."""
        taken: dict[str, int] = {}
        for pipeline in self.pipelines:
            for kind, count in pipeline.cards.items():
                taken[kind] = taken.get(kind, 0) + count
        return taken

    def check(self, model: ModelShape) -> None:
        """Raise TrainingError if the model cannot be split like this."""
        for pipeline in self.pipelines:
            pipeline.layers(model)
            for mesh in pipeline.meshes:
                _check_mesh(self, pipeline, mesh, model)
            if self.schedule == "dualpipe" and (pipeline.stages % 2 or pipeline.micro_batches % 2):
                raise TrainingError(
                    f"DualPipe sends micro-batches from both ends: {pipeline.stages} stages and "
                    f"{pipeline.micro_batches} micro-batches must both be even"
                )
            if self.schedule == "dualpipe" and pipeline.micro_batches < 2 * pipeline.stages:
                raise TrainingError(
                    f"DualPipe needs at least {2 * pipeline.stages} micro-batches for {pipeline.stages} stages, "
                    f"not {pipeline.micro_batches}"
                )
            chunks = pipeline.stages * self.virtual_stages
            if self.virtual_stages > 1 and pipeline.micro_batches % pipeline.stages:
                raise TrainingError(
                    f"the interleaved schedule takes micro-batches in groups of {pipeline.stages} stages; "
                    f"{pipeline.micro_batches} do not divide"
                )
            if self.virtual_stages > 1 and chunks > model.layers:
                raise TrainingError(
                    f"{pipeline.stages} stages of {self.virtual_stages} chunks for the {model.layers} layers of "
                    f"{model.name}; use at most {model.layers // pipeline.stages} chunks"
                )


def _check_mesh(plan: Plan, pipeline: Pipeline, mesh: Mesh, model: ModelShape) -> None:
    if model.heads % mesh.tp:
        fits = [tp for tp in (1, 2, 4, 8, 16) if model.heads % tp == 0]
        raise TrainingError(f"{model.name} has {model.heads} heads, which do not divide over tp {mesh.tp}; {fits} do")
    if plan.sequence % (mesh.cp * (mesh.tp if plan.sequence_parallel else 1)):
        raise TrainingError(f"a sequence of {plan.sequence} does not divide over cp {mesh.cp} and tp {mesh.tp}")
    if mesh.ep > 1:
        if not model.experts:
            raise TrainingError(f"{model.name} has no experts, so ep must be 1, not {mesh.ep}")
        ranks = mesh.tp * mesh.cp * pipeline.replicas
        if model.experts % mesh.ep or ranks % mesh.ep:
            raise TrainingError(
                f"ep {mesh.ep} must divide the {model.experts} experts of {model.name} and the {ranks} cards of a stage"
            )


def uniform(
    kind: str,
    *,
    cards: int,
    batch: int,
    sequence: int,
    tp: int = 1,
    pp: int = 1,
    cp: int = 1,
    ep: int = 1,
    micro_batch: int = 1,
    layers: tuple[int, ...] = (),
    recompute: str = "none",
    schedule: str = "",
    virtual_stages: int = 1,
    zero: int = 1,
    dtype: str = "bfloat16",
    sequence_parallel: bool = True,
    fused_attention: bool = True,
    overlap_gradients: bool = True,
    gradient_bytes: int = 4,
    dropout: bool = True,
) -> Plan:
    """The plan of one kind: replicas take all `cards`. Raises TrainingError if they do not divide."""
    if min(tp, pp, cp, ep, cards, batch, micro_batch) < 1:
        raise TrainingError("tp, pp, cp, ep, cards, batch and micro-batch are at least 1")
    of_replica = tp * pp * cp
    if cards % of_replica:
        raise TrainingError(
            f"{cards} cards do not divide into replicas of tp {tp} x pp {pp} x cp {cp} = {of_replica}; "
            f"{cards // of_replica * of_replica or of_replica} do"
        )
    mesh = Mesh(kind=kind, stages=pp, tp=tp, cp=cp, ep=ep, layers=layers, recompute=recompute)
    pipeline = Pipeline(meshes=(mesh,), replicas=cards // of_replica, batch=batch, micro_batch=micro_batch)
    return Plan(
        pipelines=(pipeline,),
        sequence=sequence,
        schedule=schedule or ("interleaved" if virtual_stages > 1 else "1f1b"),
        virtual_stages=virtual_stages,
        zero=zero,
        dtype=dtype,
        sequence_parallel=sequence_parallel,
        fused_attention=fused_attention,
        overlap_gradients=overlap_gradients,
        gradient_bytes=gradient_bytes,
        dropout=dropout,
    )


def with_recompute(plan: Plan, recompute: str) -> Plan:
    """The same plan with every mesh recomputing like that."""
    return replace(
        plan,
        pipelines=tuple(
            replace(each, meshes=tuple(replace(mesh, recompute=recompute) for mesh in each.meshes))
            for each in plan.pipelines
        ),
    )
