"""Published runs, and a user's: a table of plans with the times that were measured, predicted row by row.

Takes rows with the columns of `data/training_runs.csv`; blanks are allowed. Each blank that the step needs is filled
with what its family's software did (`data/families.toml`) or a usual value, and named in `Replayed.assumed`.
"""

import csv
import hashlib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tapeout.accelerator import Accelerator
from tapeout.errors import TapeoutError
from tapeout.figures import Provenance, given
from tapeout.models.step import ModelShape
from tapeout.training import shapes
from tapeout.training.fleet import Cards, Fleet, cards_of, fleet_of
from tapeout.training.plan import RECOMPUTES, Plan, uniform
from tapeout.training.prediction import Step, predict
from tapeout.training.problems import TrainingError
from tapeout.training.software import fitted

CHIPS = {
    "A100": "A100-SXM4-80GB",
    "A100-80GB (Ampere)": "A100-SXM4-80GB",
    "TPU-v3": "",
    "TPU-v4": "TPU v4",
    "TPU-v5p": "TPU v5p",
    "TPU-v5e": "TPU v5e",
    "TPU-trillium": "TPU v6e Trillium",
    "TPU-v6e": "TPU v6e Trillium",
    "H800-SXM-80GB": "H800-SXM5-80GB",
    "NVIDIA H100-SXM5-80GB": "H100-SXM5-80GB",
    "H100-SXM5-96GB": "H100-SXM5-80GB",
    "V100": "V100-SXM2-16GB",
    "Tesla V100": "V100-SXM2-16GB",
    "Tesla T4": "T4",
}
"""Names that tables give to chips of the catalogue."""
BUILD = re.compile(r"(?P<name>[^(]*?-(?P<gb>\d+)GB)[^(]*\((?P<tb>[\d.]+) ?TB/s, (?P<watt>\d+) ?W cap\)")
"""A chip with other memory than the catalogue's, held below its power: name-96GB-kind(2.4TB/s, 500W cap)."""
CONTRADICTION = 0.12
"""How far layers may be from those that a row's count of parameters gives before the latter are taken."""
PRECISIONS = (
    ("fp4", "nvfp4"),
    ("mxfp8", "fp8"),
    ("fp8", "fp8"),
    ("float8", "fp8"),
    ("fp16", "float16"),
    ("tf32", "tfloat32"),
    ("fp32", "tfloat32"),
)


@dataclass(frozen=True)
class Run:
    """A row: its cells by column, blanks left out."""

    cells: Mapping[str, str]
    place: str

    @property
    def name(self) -> str:
        return self.cells.get("run_id", self.place)

    @property
    def family(self) -> str:
        return self.cells.get("group", "")

    def number(self, column: str) -> float | None:
        text = self.cells.get(column, "").strip()
        if not text:
            return None
        try:
            value = float(text.split("/")[0].replace(",", ""))
        except ValueError:
            raise TrainingError(f"{self.place}: {column}={text!r} is not a number") from None
        if not math.isfinite(value) or value < 0:
            raise TrainingError(f"{self.place}: {column}={text!r} is not a number of that kind")
        return value

    def count(self, column: str) -> int | None:
        value = self.number(column)
        if value is not None and value != int(value):
            raise TrainingError(f"{self.place}: {column}={value:g} is not a whole number")
        return int(value) if value else None


@dataclass(frozen=True)
class Replayed:
    """A row with its prediction. `measured_s` None where the table has no time; `reason` why there is none."""

    run: Run
    step: Step | None
    measured_s: float | None
    assumed: tuple[str, ...]
    reason: str = ""

    @property
    def error(self) -> float | None:
        """Predicted over measured, less one."""
        if self.step is None or self.measured_s is None:
            return None
        return self.step.seconds / self.measured_s - 1


def read(path: Path) -> tuple[Run, ...]:
    """Rows of a CSV file. Raises TrainingError for a file without the columns that a run needs."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path}: not a readable table: {error}") from None
    if not rows:
        raise TrainingError(f"{path}: has no rows; the columns are {', '.join(COLUMNS)}")
    if "chip" not in rows[0]:
        raise TrainingError(f"{path}: has no column 'chip'; the columns are {', '.join(COLUMNS)}")
    return tuple(
        Run(
            {name: cell.strip() for name, cell in row.items() if name and isinstance(cell, str) and cell.strip()},
            f"{path.name}:{line}",
        )
        for line, row in enumerate(rows, 2)
    )


COLUMNS = (
    "run_id",
    "group",
    "model",
    "arch",
    "params_b",
    "layers",
    "hidden",
    "heads",
    "kv_heads",
    "ffn",
    "vocab",
    "seq",
    "global_batch_seqs",
    "micro_batch",
    "grad_accum",
    "chips",
    "chip",
    "chips_per_node",
    "tp",
    "pp",
    "dp",
    "cp",
    "ep",
    "vpp",
    "fsdp",
    "zero",
    "recompute",
    "seq_parallel",
    "precision",
    "step_time_s",
    "tokens_per_s",
    "tokens_per_s_chip",
    "tflops_per_chip",
    "flops_kind",
    "peak_tflops_used",
    "mfu_pct",
    "hfu_pct",
    "mem_gb_per_chip",
    "metric_note",
)


@cache
def families() -> tuple[dict[str, Any], ...]:
    path = resources.files("tapeout.training") / "data" / "families.toml"
    return tuple(tomllib.loads(path.read_text("utf-8"))["family"])


def family_of(run: Run) -> Mapping[str, Any]:
    """The family of a row: the first whose group, chip and model agree."""
    chip, model = run.cells.get("chip", ""), run.cells.get("model", "")
    return next(
        each
        for each in families()
        if any(run.family.startswith(start) for start in each["match"])
        and each.get("chip", "") in chip
        and each.get("model", "") in model
        and run.cells.get("metric_note", "").startswith(each.get("note", ""))
    )


class _Filling:
    """A row whose blanks are filled, and what they were filled with."""

    def __init__(self, run: Run):
        self.run = run
        self.usual = family_of(run)
        self.assumed: list[str] = []

    def assume(self, what: str, value: Any) -> Any:
        self.assumed.append(f"{what} {value}")
        return value

    def count(self, column: str, default: int) -> int:
        found = self.run.count(column)
        return found if found is not None else self.assume(column, default)


def replay(run: Run) -> Replayed:
    """Predict one row. A row that cannot be predicted says why; nothing is raised for it."""
    filling = _Filling(run)
    try:
        model = _model(filling)
        if "+" in run.cells.get("chip", ""):
            return _mixed(filling, model)
        cards = _cards(filling)
        if run.count("tp") or run.count("pp"):
            plan = _plan(filling, model, cards)
            step = predict(model, Fleet(cards=(cards,)), plan)
        else:
            plan, step = _fastest(filling, model, cards)
    except TapeoutError as error:
        return Replayed(run, None, None, tuple(filling.assumed), str(error))
    return Replayed(run, step, _measured_s(run, model, plan, cards), tuple(filling.assumed))


def _mixed(filling: _Filling, model: ModelShape) -> Replayed:
    """A row of several kinds, as in `12xV100+4xT4`: ranks in that order, stages outermost, then replicas, then tp."""
    run = filling.run
    kinds = []
    for word in run.cells["chip"].split("+"):
        cards, times, name = word.strip().partition("x")
        if not times or not cards.isdigit() or not name:
            raise TrainingError(f"{run.place}: chip={run.cells['chip']!r}; kinds are written 12xV100+4xT4")
        cells = {**run.cells, "chip": name, "chips": cards}
        kinds.append(_cards(_Filling(Run(cells, run.place))))
    filling.assume("software", kinds[0].software.name)
    count = sum(each.count for each in kinds)
    one = Run({**run.cells, "chips": str(count), "heterogeneous": "0"}, run.place)
    trial = _Filling(one)
    base = _plan(trial, model, replace(kinds[0], count=count))
    filling.assumed += trial.assumed
    whole = base.pipelines[0]
    mesh, layers = whole.meshes[0], whole.layers(model)
    names = [each.name for each in kinds for _ in range(each.count)]
    order = [each.name for each in kinds]
    alike: dict[tuple[str, ...], int] = {}
    for replica in range(whole.replicas):
        stages = []
        for stage in range(mesh.stages):
            first = (stage * whole.replicas + replica) * mesh.tp
            group = names[first : first + mesh.tp]
            stages.append(max(group, key=order.index))  # a group of two kinds goes as its last one does
        alike[tuple(stages)] = alike.get(tuple(stages), 0) + 1
    pipelines = tuple(
        replace(
            whole,
            replicas=replicas,
            batch=whole.batch // whole.replicas * replicas,
            meshes=tuple(
                replace(mesh, kind=kind, stages=1, layers=(layers[stage],)) for stage, kind in enumerate(stages)
            ),
        )
        for stages, replicas in alike.items()
    )
    plan = replace(base, pipelines=pipelines)
    taken = [replace(each, count=max(each.count, plan.cards.get(each.name, 0))) for each in kinds]
    step = predict(model, Fleet(cards=tuple(taken)), plan)
    return Replayed(run, step, _measured_s(run, model, plan, replace(kinds[0], count=count)), tuple(filling.assumed))


def _fastest(filling: _Filling, model: ModelShape, cards: Cards) -> tuple[Plan, Step]:
    """Of a row that states no split, the fastest of tensor-parallel ones."""
    fleet = Fleet(cards=(cards,))
    best: tuple[Plan, Step] | None = None
    for tp in (1, 2, 4, 8, 16, 32):
        if model.heads % tp or cards.count % tp:
            continue
        given = {"tp": str(tp), "pp": "1"}
        trial = _Filling(Run({**filling.run.cells, **given}, filling.run.place))
        plan = _plan(trial, model, cards)
        step = predict(model, fleet, plan)
        if best is None or step.seconds < best[1].seconds:
            best, kept = (plan, step), trial.assumed
            chosen = tp
    if best is None:
        raise TrainingError(f"{filling.run.place}: states no split, and none is found for {model.heads} heads")
    filling.assumed += [*kept, f"tp {chosen}, the fastest"]
    return best


def _model(filling: _Filling) -> ModelShape:
    run = filling.run
    named = _public(run.cells.get("model", ""))
    hidden = run.count("hidden") or (named.hidden if named else None)
    if hidden is None and run.number("params_b"):
        hidden = filling.assume("hidden", _usual_hidden(run.number("params_b") or 0.0))
    if hidden is None:
        raise TrainingError(f"{run.place}: {run.cells.get('model', 'the model')} has no hidden size and no public name")
    is_gated = (
        named.gated if named else "gpt" not in run.cells.get("arch", "gpt") or "llama" in run.cells.get("arch", "")
    )
    vocabulary = run.count("vocab") or (named.vocabulary if named else 0)
    if not vocabulary:
        vocabulary = filling.assume("vocab", filling.usual.get("vocabulary", 51200))
    heads = run.count("heads") or (named.heads if named else 0) or filling.assume("heads", _usual_heads(hidden))
    ffn = run.count("ffn") or (named.intermediate if named else 0) or filling.assume("ffn", 4 * hidden)
    layers = run.count("layers") or (named.layers if named else 0)
    billions = run.number("params_b")
    each = (4 + (3 if is_gated else 2) * ffn / hidden) * hidden**2
    of_size = max(round(((billions or 0) * 1e9 - vocabulary * hidden) / each), 1)
    if not layers:
        if billions is None:
            raise TrainingError(f"{run.place}: neither layers nor params_b is given")
        layers = filling.assume("layers", of_size)
    elif billions and not named and abs(of_size / layers - 1) > CONTRADICTION and layers > 8:
        layers = filling.assume(f"layers (not {layers}, which contradict params_b)", of_size)
    kept = run.count("kv_heads") or (named.key_value_heads if named else heads)
    base = named or ModelShape(
        name="",
        layers=1,
        hidden=hidden,
        heads=heads,
        key_value_heads=heads,
        head_size=1,
        intermediate=ffn,
        vocabulary=vocabulary,
    )
    if named is not None and named.experts:
        return named
    return replace(
        base,
        name=run.cells.get("model", "model"),
        layers=layers,
        hidden=hidden,
        heads=heads,
        key_value_heads=kept,
        head_size=named.head_size if named and named.heads == heads else max(hidden // heads, 1),
        intermediate=ffn,
        vocabulary=vocabulary,
        gated=is_gated,
        tied=named.tied if named else not is_gated,
    )


def _usual_hidden(billions: float) -> int:
    """The width of a model of so many parameters whose layers are a 128th of it, as widely trained ones are."""
    width_in_128s: int = round((billions * 1e9 * 128 / 12) ** (1 / 3) / 128)
    return 128 * max(width_in_128s, 1)


def _usual_heads(hidden: int) -> int:
    return next(heads for heads in (hidden // 128, 64, 32, 16, 8, 4, 2, 1) if heads and hidden % heads == 0)


def _public(name: str) -> ModelShape | None:
    """The public model that a table's spelling means."""

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9.]", "", text.casefold()).replace("llama31", "llama3.1")

    wanted = plain(name)
    aliases = {
        "llama3.18b": "llama-3.1-8b",
        "llama38b": "llama-3.1-8b",
        "llama370b": "llama-3.1-70b",
        "llama3405b": "llama-3.1-405b",
        "llama270b": "llama-2-70b",
        "llama27b": "llama-2-7b",
        "qwen330b": "qwen3-30b-a3b",
        "qwen3235b": "qwen3-235b-a22b",
        "gptoss": "gpt-oss-120b",
        "deepseekv3": "deepseek-v3",
        "kimik2": "kimi-k2",
        "gpt3": "gpt-175b",
    }
    for known in shapes.MODELS.values():
        if plain(known.name) == wanted:
            return known
    for start, known_name in sorted(aliases.items(), key=lambda item: -len(item[0])):
        if (
            wanted.startswith(start)
            and known_name in shapes.MODELS
            and (start != "gpt3" or "175" in wanted or wanted == start)
        ):
            return shapes.MODELS[known_name]
    return None


def _cards(filling: _Filling) -> Cards:
    run = filling.run
    text = run.cells.get("chip", "")
    text = re.sub(r"^\d+x", "", text)
    text = CHIPS.get(text, text)
    build = BUILD.fullmatch(text)
    if build:
        text = CHIPS.get(build["name"], build["name"])
    if text == "GH-96":
        text = filling.assume("chip GH200 as", "H100-SXM5-80GB")
    if not text:
        raise TrainingError(
            f"{run.place}: no catalogue has figures of {run.cells.get('chip', 'a chip without a name')}"
        )
    chips = run.count("chips")
    if chips is None:
        raise TrainingError(f"{run.place}: chips is blank")
    software = filling.usual["software"]
    if "software" in run.cells:
        software = run.cells["software"]
    else:
        filling.assume("software", software)
    found = fleet_of(f"{text}:{chips}", software=software, assume=True).cards[0]
    nic = filling.usual.get("nic_gb_per_s")
    node = run.count("chips_per_node")
    if node and found.node > node and ("NVL" in found.chip.name or "TPU" in found.chip.name):
        node = found.node  # hosts of a rack or of a pod share its links
    chip = found.chip
    if build:
        chip = _build_of(chip.name, float(build["gb"]), float(build["tb"]), float(build["watt"]))
        filling.assume("clock at that power", f"{_clock_share(found.chip, float(build['watt'])):.2f} of full")
    if nic or node or build:
        found = cards_of(
            chip,
            chips,
            name=found.name,
            software=software,
            assume=True,
            nic_bytes_per_s=nic * 1e9 if nic else None,
            node=node,
        )
    return found


def _clock_share(chip: Accelerator, watt: float) -> float:
    """Clock of the multipliers at a cap on power, over that at full power: its square root, between the linear law of
    frequency alone and the cube root of frequency and voltage."""
    full = chip.require("tdp_w").to("W").value
    return float(min(watt / full, 1.0) ** 0.5)


@cache
def _build_of(name: str, size_gb: float, rate_tb_per_s: float, watt: float) -> Accelerator:
    chip = fleet_of(f"{name}:1", assume=True).cards[0].chip
    share = _clock_share(chip, watt)
    size = given("memory", size_gb, "GB", Provenance.PUBLISHED, "the table")
    rate = given("memory rate", rate_tb_per_s * 1e12, "B/s", Provenance.PUBLISHED, "the table")
    peak = {dtype: figure * share for dtype, figure in chip.peak.items()}
    return replace(chip, peak=MappingProxyType(peak), dram=replace(chip.dram, size=size, bandwidth=rate))


def _plan(filling: _Filling, model: ModelShape, cards: Cards) -> Plan:
    run, usual = filling.run, filling.usual
    if run.cells.get("heterogeneous", "0") not in ("0", ""):
        raise TrainingError(f"{run.place}: a mixed fleet is no row of one kind")
    tp, pp = filling.count("tp", 1), filling.count("pp", 1)
    cp, ep = run.count("cp") or 1, run.count("ep") or 1
    sequence = filling.count("seq", 4096)
    if cards.count % (tp * pp * cp):
        raise TrainingError(f"{run.place}: {cards.count} chips are no multiple of tp {tp} x pp {pp} x cp {cp}")
    replicas = cards.count // (tp * pp * cp)
    micro = run.count("micro_batch")
    accumulation = run.count("grad_accum")
    batch = run.count("global_batch_seqs")
    note = run.cells.get("metric_note", "")
    of_replica = re.search(r"local batch (\d+)", note)
    if batch is None and of_replica:
        batch = replicas * int(of_replica[1])
    if micro is None and batch and usual.get("micro_batches") == "stages" and batch % (replicas * pp) == 0:
        micro = filling.assume("micro_batch", batch // (replicas * pp))
    if micro is None:
        micro = filling.assume("micro_batch", usual.get("micro_batch", 1))
    if batch is None:
        batch = filling.assume(
            "global_batch_seqs", replicas * micro * (accumulation or max(1, 4 * pp if pp > 1 else 1))
        )
    if batch % (replicas * micro):
        micro_fits = next((each for each in range(min(micro, batch), 0, -1) if batch % (replicas * each) == 0), 0)
        if micro_fits:
            micro = filling.assume("micro_batch", micro_fits)
        else:
            batch = filling.assume("global_batch_seqs", -(-batch // (replicas * micro)) * replicas * micro)
    virtual = run.count("vpp")
    if virtual is None and pp > 1 and ("interleaved" in note.casefold() or "virtual_stages" in usual):
        virtual = filling.assume("vpp", usual.get("virtual_stages", 2))
    virtual = virtual or 1
    if pp == 1 or (batch // (replicas * micro)) % pp or virtual * pp > model.layers:
        virtual = 1
    recompute = run.cells.get("recompute", "")
    if recompute not in RECOMPUTES:
        recompute = filling.assume("recompute", usual["recompute"])
    elif recompute == "selective":
        recompute = usual.get("selective", recompute)
    zero = int(run.number("zero") or 0) if "zero" in run.cells else None
    if run.cells.get("fsdp", "0") not in ("", "0"):
        zero = 3
    if zero is None:
        zero = filling.assume("zero", usual.get("zero", 1))
    precision = run.cells.get("precision", "").casefold()
    dtype = next((name for word, name in PRECISIONS if word in precision), "bfloat16")
    if not precision or ";" in precision or " or " in precision:  # blank, or one label for rows of several
        dtype = filling.assume("precision", usual.get("dtype", "bfloat16"))
    parallel = run.cells.get("seq_parallel", "")
    is_parallel = parallel.casefold() in ("1", "true", "yes") if parallel else usual["sequence_parallel"]
    return uniform(
        cards.name,
        cards=cards.count,
        batch=batch,
        sequence=sequence,
        tp=tp,
        pp=pp,
        cp=cp,
        ep=ep,
        micro_batch=micro,
        recompute=recompute,
        virtual_stages=virtual,
        zero=zero,
        dtype=dtype,
        sequence_parallel=is_parallel and tp > 1 and sequence % (cp * tp) == 0,
        fused_attention=usual["fused_attention"],
        overlap_gradients=usual.get("overlap_gradients", True),
        gradient_bytes=usual.get("gradient_bytes", 4),
        dropout=usual.get("dropout", True),
    )


def _measured_s(run: Run, model: ModelShape, plan: Plan, cards: Cards) -> float | None:
    """Seconds of a step as the table states them, or as they follow from what it states."""
    seconds = run.number("step_time_s")
    if seconds:
        return seconds
    tokens = plan.tokens
    rate = run.number("tokens_per_s")
    if rate:
        return tokens / rate
    each = run.number("tokens_per_s_chip")
    if each:
        return tokens / (each * cards.count)
    kind = run.cells.get("flops_kind", "")
    flops = run.number("tflops_per_chip")
    if flops and "hardware" in kind:
        return _megatron_flops(model, plan, 96.0) / (flops * 1e12 * cards.count)
    if flops:
        return _megatron_flops(model, plan, 72.0) / (flops * 1e12 * cards.count)
    peak, share = run.number("peak_tflops_used"), run.number("mfu_pct")
    if peak and share:
        return _megatron_flops(model, plan, 72.0) / (peak * 1e12 * share / 100 * cards.count)
    return None


def _megatron_flops(model: ModelShape, plan: Plan, factor: float) -> float:
    """Operations of a step as Megatron counts them: 96 with recomputation, 72 without, attention not halved
    (Narayanan et al. 2021, equation 3), for layers of four and eight hidden squares."""
    hidden, layers, sequence = model.hidden, model.layers, plan.sequence
    inner = 1 + sequence / (6 * hidden) + model.vocabulary / (16 * layers * hidden)
    if model.gated:
        return factor / 72 * shapes.flops_of_token(model, sequence) * plan.tokens
    return factor * plan.batch * sequence * layers * hidden**2 * inner


def bundled() -> tuple[Run, ...]:
    """The published runs that come with the package."""
    with resources.as_file(resources.files("tapeout.training") / "data" / "runs.csv") as path:
        return read(path)


def is_fitted(run: Run) -> bool:
    """Whether a row's time went into the numbers of its era."""
    return f"{run.family}|{run.name}" in _fitted_rows()


@cache
def _fitted_rows() -> frozenset[str]:
    return frozenset(row for era in fitted().values() for row in era["rows"])


def share_of(run: Run) -> float:
    """Return where a row lies between 0 and 1 by the hash of its family and number, the same for everybody."""
    key = f"{run.family}|{run.name}"
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32


def mean_error(rows: Sequence[Replayed]) -> float | None:
    """The mean of the errors' sizes."""
    errors = [abs(row.error) for row in rows if row.error is not None]
    return sum(errors) / len(errors) if errors else None
