"""The parameters that ship: fitted to the campaigns of `data/campaigns.toml`, and the priors over chips.

`fit_campaign` makes one file, `fit_priors` the file for chips that nobody measured. A prior leaves out whole families
of chips in turn; its ranges come from the families it did not see.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tapeout.accelerator import Accelerator
from tapeout.models import measured, parameters
from tapeout.models.fitting import Fitted, bounds_of, fit, least_squares, ranged, seconds_of
from tapeout.models.forms import FORMS, Form, form_of
from tapeout.models.forms.gemm import CALLED
from tapeout.models.law import is_lowered_better
from tapeout.models.machine import Machine, machine
from tapeout.models.tables import COLLECTIVES, DTYPE_BYTES, Array, Table
from tapeout.silicon import technology
from tapeout.silicon.naming import accelerator

FAMILIES = {
    "A100-SXM4-80GB": "ampere",
    "H100-SXM5-80GB": "hopper",
    "H200-SXM-141GB": "hopper",
    "B200-SXM": "blackwell",
    "B300-SXM": "blackwell",
    "GB200-NVL72 (per GPU)": "blackwell",
    "L40S-48GB": "ada",
    "Arc Pro B60": "xe2",
}
"""The family of each measured chip: what `--without-family` leaves out together."""
PRIOR_CAMPAIGNS = (
    "a100-vllm-0.14.0",
    "h100-vllm-0.24.0",
    "h200-vllm-0.24.0",
    "b200-vllm-0.24.0",
    "gb200-vllm-0.24.0",
    "b300-vllm-0.24.0",
    "l40s-vllm-0.24.0",
    "b60-vllm-0.20.0",
)
PRIOR_ROWS = 400
PRIOR_STEPS = 30
PRIOR_HOLD = 0.6
"""How strongly constants are held to the form's usual ones, for those that no measured family tells apart."""
PRIOR_CLIP = 0.25
_EXPERTS = ("bfloat16", "fp8_block", "nvfp4", "w4a8_mxfp4_mxfp8")
POOLS: dict[str, dict[str, tuple[str, ...]]] = {
    "gemm": {"fp8_block": ("fp8",), "nvfp4": ("fp8",)},
    "moe": {**dict.fromkeys(_EXPERTS, _EXPERTS), **dict.fromkeys(("fp8", "int4_wo", "w4a16_mxfp4"), _EXPERTS)},
}
"""Element types whose rows give the constants of another, where that one's own rows carry over worse: too few families
were measured with it, or with another library each. Its own rows give its ranges. All others give their own."""
WITH_CLASSES = ("gemm",)
"""Operators whose form has constants of its own for each class of chip, so that all chips are fitted together."""


def _sets(campaign: measured.Campaign) -> dict[str, list[tuple[Machine, Table]]]:
    """The campaign's rows to fit, by subject."""
    chip = accelerator(campaign.chip, technology.load())
    found: dict[str, list[tuple[Machine, Table]]] = {}
    for table in measured.tables_of(campaign):
        rows = measured.split(table)[0]
        if len(rows) and table.dtype in DTYPE_BYTES:
            subject = parameters.subject_of(table.kind.name, table.dtype)
            found.setdefault(subject, []).append((machine(chip, table.dtype, table.kind.name, assume=True), rows))
    return found


def _fit(sets: list[tuple[Machine, Table]]) -> Fitted:
    fitted = fit(sets)
    return replace(fitted, lowers=is_lowered_better(form_of(sets[0][1].kind.name, sets[0][0]), fitted, sets))


def fit_campaign(name: str) -> parameters.Parameters:
    """Everything that ships of one campaign."""
    campaign = measured.campaigns()[name]
    sets = _sets(campaign)
    return parameters.Parameters(
        campaign=name,
        chip=campaign.chip,
        framework=campaign.framework,
        version=campaign.version,
        fitted={subject: _fit(rows) for subject, rows in sets.items()},
        rows_sha256={subject: parameters.hash_of_rows([table for _, table in rows]) for subject, rows in sets.items()},
        note=campaign.source,
    )


def prior_names(kind: str, dtype: str, chip: Accelerator) -> list[str]:
    """Names of constants for an operator and element type on a chip, the nearest first. Chips with stacked memory have
    their own where the form does not tell them apart."""
    memory = chip.dram.kind
    stacked = memory is not None and memory.value.upper().startswith("HBM") and kind not in WITH_CLASSES
    subject = kind if kind in ("collective", *COLLECTIVES) else f"{kind}|{dtype}"
    return [f"{subject} hbm", subject] if stacked else [subject]


@dataclass(frozen=True)
class _Set:
    family: str
    machine: Machine
    rows: Table

    @property
    def group(self) -> tuple[str, str]:
        """What counts alike: the chips of one family with rows of one element type."""
        return self.family, self.rows.dtype

    def few(self, count: int) -> Table:
        return self.rows.take(np.sort(np.random.default_rng(0).permutation(len(self.rows))[:count]))


def _fit_families(
    form: Form, sets: list[_Set], *, start: Mapping[str, float] | None = None, free: Sequence[str] = ()
) -> dict[str, float]:
    """One set of constants for chips of several families, each family and element type counting alike. Errors above
    `PRIOR_CLIP` (as a logarithm) count linearly. With `start` and `free` only those constants move."""
    first, low, high = bounds_of(form)
    every = list(form.parameters)
    fixed = dict(start or {})
    moving = np.array([name in free if free else True for name in every])
    names = [name for name, moves in zip(every, moving, strict=True) if moves]
    first, low, high = first[moving], low[moving], high[moving]
    counts = Counter(each.group for each in sets)
    parts = []
    for each in sets:
        few = each.few(PRIOR_ROWS)
        weight = 20 / np.sqrt(len(few) * counts[each.group] * len(counts))
        parts.append((each.machine, few, np.log(seconds_of(few)), weight))

    def residual(at: Array) -> Array:
        values = fixed | dict(zip(names, np.exp(at), strict=True))
        found = [weight * (np.log(form.time(of, values, few).seconds) - known) for of, few, known, weight in parts]
        return np.concatenate([*found, PRIOR_HOLD * (at - first)])

    clip = PRIOR_CLIP * 20 / np.sqrt(sum(len(few) for _, few, _, _ in parts))
    fitted = least_squares(residual, first, low, high, steps=PRIOR_STEPS // 2, clip=4 * clip)
    fitted = least_squares(residual, fitted, low, high, steps=PRIOR_STEPS, clip=clip)
    return fixed | {name: float(f"{value:.4g}") for name, value in zip(names, np.exp(fitted), strict=True)}


def _host_call(form: Form, sets: list[_Set], values: Mapping[str, float]) -> float:
    """µs in which a host starts a kernel, where it starts each: the mean, as a logarithm, of the form's usual value and
    each family's. It belongs to the host and its software, so a few families say little about the next."""
    found = [np.log(form.parameters["call"][0])]
    for family in sorted({each.family for each in sets}):
        of_family = [each for each in sets if each.family == family]
        found.append(np.log(_fit_families(form, of_family, start=values, free=("call",))["call"]))
    return float(f"{np.exp(np.mean(found)):.4g}")


def _pool(kind: str, dtype: str) -> tuple[str, ...]:
    return POOLS.get(kind, {}).get(dtype, (dtype,))


def fit_priors() -> Mapping[str, Mapping[str, Fitted]]:
    """Constants of each form and element type over measured chips, and over all but each family; ranges from families
    left out."""
    by_name: dict[str, list[_Set]] = {}
    givers: dict[str, list[_Set]] = {}
    for campaign_name in PRIOR_CAMPAIGNS:
        campaign = measured.campaigns()[campaign_name]
        chip = accelerator(campaign.chip, technology.load())
        for subject, pairs in _sets(campaign).items():
            kind = "collective" if subject == "collective" else subject.partition("|")[0]
            if kind.endswith("mla"):
                continue
            for of, table in pairs:
                each = _Set(FAMILIES[campaign.chip], of, table)
                for place in prior_names(kind, table.dtype, chip):
                    by_name.setdefault(place, []).append(each)
                receivers = [table.dtype] if table.dtype in _pool(kind, table.dtype) else []
                receivers += [other for other in POOLS.get(kind, {}) if other != table.dtype]
                for dtype in receivers:
                    if table.dtype in _pool(kind, dtype):
                        for place in prior_names(kind, dtype, chip):
                            givers.setdefault(place, []).append(each)
    fits: dict[tuple[int, ...], dict[str, float]] = {}

    def constants(form: Form, seen: list[_Set], own: list[_Set]) -> dict[str, float]:
        key = tuple(map(id, seen))
        if key not in fits:
            fits[key] = _fit_families(form, seen)
        called = [each for each in own if each.rows.kind.name == "gemm" and each.rows.dtype in CALLED]
        return fits[key] | ({"call": _host_call(form, called, fits[key])} if called else {})

    found: dict[str, dict[str, Fitted]] = {}
    for name, sets in sorted(by_name.items()):
        form = FORMS[sets[0].rows.kind.name]
        giving = givers.get(name, [])
        families = sorted({each.family for each in (*sets, *giving)})
        if len({each.family for each in giving}) < 2:
            continue
        errors, sizes = [], []
        for without in families:
            seen = [each for each in giving if each.family != without]
            values = constants(form, seen, [each for each in sets if each.family != without])
            for each in sets:
                if each.family == without:
                    few = each.few(PRIOR_ROWS)
                    formed = form.time(each.machine, values, few).seconds
                    errors.append(np.log(seconds_of(few) / formed))
                    sizes.append(formed)
            found.setdefault(without, {})[name] = Fitted(values, None, {}, (), (1.0, 1.0), 0.0, len(seen))
        everything = constants(form, giving, sets)
        found.setdefault("", {})[name] = Fitted(everything, None, {}, (), (1.0, 1.0), 0.0, len(giving))
        for kinds in found.values():
            if name in kinds:
                kinds[name] = ranged(kinds[name], np.concatenate(errors), np.concatenate(sizes))
    return {without: found[without] for without in sorted(found)}
