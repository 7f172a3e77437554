"""The parameters that ship: fitted to the campaigns of `data/campaigns.toml`, and the priors over chips.

`fit_campaign` makes one file, `fit_priors` the file for chips that nobody measured. A prior leaves out whole families
of chips in turn; its ranges come from the families it did not see.
"""

from collections.abc import Mapping

import numpy as np

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
    "l40s-vllm-0.24.0",
    "b60-vllm-0.20.0",
)
PRIOR_ROWS = 150
PRIOR_STEPS = 8
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


def fit_priors() -> Mapping[str, Mapping[str, Fitted]]:
    """One form for all measured chips, and one for all but each family; ranges from families left out."""
    by_kind: dict[str, list[tuple[str, Machine, Table]]] = {}
    for name in PRIOR_CAMPAIGNS:
        campaign = measured.campaigns()[name]
        for subject, pairs in _sets(campaign).items():
            kind = "collective" if subject == "collective" else subject.partition("|")[0]
            if kind.endswith("mla"):
                continue
            family = FAMILIES[campaign.chip]
            chosen = [(family, of, table) for of, table in pairs if table.dtype in PRIOR_DTYPES]
            by_kind.setdefault(kind, []).extend(chosen)
    found: dict[str, dict[str, Fitted]] = {}
    for kind, sets in by_kind.items():
        form = FORMS[COLLECTIVES[0] if kind == "collective" else kind]
        families = sorted({family for family, _, _ in sets})
        errors, sizes = [], []
        for without in families:
            seen = [(of, table) for family, of, table in sets if family != without]
            if not seen:
                continue
            values = fit_form(form, seen, rows=PRIOR_ROWS, steps=PRIOR_STEPS)
            for family, of, table in sets:
                if family == without:
                    few = table.take(np.arange(len(table))[:: max(1, len(table) // 400)])
                    assert few.seconds is not None
                    formed = form.time(of, values, few).seconds
                    errors.append(np.log(few.seconds / formed))
                    sizes.append(formed)
            found.setdefault(without, {})[kind] = Fitted(values, None, {}, (), (1.0, 1.0), 0.0, len(seen))
        everything = fit_form(form, [(of, table) for _, of, table in sets], rows=PRIOR_ROWS, steps=PRIOR_STEPS)
        found.setdefault("", {})[kind] = Fitted(everything, None, {}, (), (1.0, 1.0), 0.0, len(sets))
        for kinds in found.values():
            if kind in kinds:
                kinds[kind] = ranged(kinds[kind], np.concatenate(errors), np.concatenate(sizes))
    return {without: found[without] for without in sorted(found)}
