"""The parameters that ship: fitted to the campaigns of `data/campaigns.toml`, and the priors over chips.

`fit_campaign` makes one file, `fit_priors` the file for chips that nobody measured. A prior leaves out whole families
of chips in turn; its ranges come from the families it did not see.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tapeout.accelerator import Accelerator
from tapeout.models import measured, parameters
from tapeout.models.fitting import Fitted, fit, fit_form, ranged
from tapeout.models.forms import FORMS
from tapeout.models.machine import Machine, machine
from tapeout.models.tables import COLLECTIVES, DTYPE_BYTES, Table
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
PRIOR_STEPS = 16
PRIOR_DTYPES = ("bfloat16", "fp8", "half")
"""Element types that the constants over chips are fitted to; the others use the same forms."""


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


def fit_campaign(name: str) -> parameters.Parameters:
    """Everything that ships of one campaign."""
    campaign = measured.campaigns()[name]
    sets = _sets(campaign)
    return parameters.Parameters(
        campaign=name,
        chip=campaign.chip,
        framework=campaign.framework,
        version=campaign.version,
        fitted={subject: fit(rows) for subject, rows in sets.items()},
        rows_sha256={subject: parameters.hash_of_rows([table for _, table in rows]) for subject, rows in sets.items()},
        note=campaign.source,
    )


def prior_name(kind: str, chip: Accelerator) -> str:
    """The name of the constants for an operator on a chip: chips with stacked memory have their own."""
    memory = chip.dram.kind
    return f"{kind} hbm" if memory is not None and memory.value.upper().startswith("HBM") else kind


@dataclass(frozen=True)
class _Set:
    family: str
    machine: Machine
    rows: Table


def fit_priors() -> Mapping[str, Mapping[str, Fitted]]:
    """Constants of each form over measured chips, and over all but each family; ranges from families left out."""
    by_name: dict[str, list[_Set]] = {}
    for name in PRIOR_CAMPAIGNS:
        campaign = measured.campaigns()[name]
        chip = accelerator(campaign.chip, technology.load())
        for subject, pairs in _sets(campaign).items():
            kind = "collective" if subject == "collective" else subject.partition("|")[0]
            if kind.endswith("mla"):
                continue
            for of, table in pairs:
                if table.dtype in PRIOR_DTYPES:
                    for place in dict.fromkeys((kind, prior_name(kind, chip))):
                        by_name.setdefault(place, []).append(_Set(FAMILIES[campaign.chip], of, table))
    found: dict[str, dict[str, Fitted]] = {}
    for name, sets in by_name.items():
        kind = name.removesuffix(" hbm")
        form = FORMS[COLLECTIVES[0] if kind == "collective" else kind]
        errors, sizes = [], []
        for without in sorted({each.family for each in sets}):
            seen = [(each.machine, each.rows) for each in sets if each.family != without]
            if not seen:
                continue
            values = fit_form(form, seen, rows=PRIOR_ROWS, steps=PRIOR_STEPS)
            for each in sets:
                if each.family == without:
                    few = each.rows.take(np.arange(len(each.rows))[:: max(1, len(each.rows) // 400)])
                    assert few.seconds is not None
                    formed = form.time(each.machine, values, few).seconds
                    errors.append(np.log(few.seconds / formed))
                    sizes.append(formed)
            found.setdefault(without, {})[name] = Fitted(values, None, {}, (), (1.0, 1.0), 0.0, len(seen))
        pairs = [(each.machine, each.rows) for each in sets]
        everything = fit_form(form, pairs, rows=PRIOR_ROWS, steps=PRIOR_STEPS)
        found.setdefault("", {})[name] = Fitted(everything, None, {}, (), (1.0, 1.0), 0.0, len(sets))
        for kinds in found.values():
            if name in kinds:
                kinds[name] = ranged(kinds[name], np.concatenate(errors), np.concatenate(sizes))
    return {without: found[without] for without in sorted(found)}
