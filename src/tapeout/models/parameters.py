"""Files of fitted parameters: one for each campaign, made by a command from measured rows, byte for byte the same.

A file says what each set was fitted to (rows, and the hash of their keys and times) beside the form's parameters, the
hull, the ranges and the residual. `priors.toml` holds parameters fitted to many chips together, for chips nobody
measured, and the same with each family of chips left out.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from tapeout.chip.description import shown_path
from tapeout.models.fitting import Fitted
from tapeout.models.neighbours import Neighbours
from tapeout.models.tables import COLLECTIVES, ModelError, Table
from tapeout.models.trees import Trees

SIMULATED = "tapeout"
"""The framework of rows that our timing simulator measured; their version is the description's fingerprint."""


def subject_of(kind: str, dtype: str) -> str:
    """The name under which an operator and element type is fitted: collectives share one fit."""
    return "collective" if kind in COLLECTIVES else f"{kind}|{dtype}"


@dataclass(frozen=True)
class Parameters:
    """Everything fitted to one campaign, by subject. `checks`: errors on check rows, by subject and region."""

    campaign: str
    chip: str
    framework: str
    version: str
    fitted: Mapping[str, Fitted]
    rows_sha256: Mapping[str, str]
    note: str = ""


def hash_of_rows(tables: list[Table]) -> str:
    """Digest of the keys and times of rows, in order of keys."""
    lines = sorted(
        f"{key} {seconds!r}"
        for table in tables
        if table.seconds is not None
        for key, seconds in zip(table.keys(), table.seconds.tolist(), strict=True)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def written(parameters: Parameters) -> str:
    """Return the parameters as TOML, the same bytes for the same parameters."""
    lines = [
        "# Fitted by `tapeout models fit`; do not edit.",
        f'campaign = "{parameters.campaign}"',
        f'chip = "{parameters.chip}"',
        f'framework = "{parameters.framework}"',
        f'version = "{parameters.version}"',
        f'note = "{parameters.note}"',
    ]
    for subject, fitted in sorted(parameters.fitted.items()):
        lines += ["", f'[subject."{subject}"]', f"rows = {fitted.row_count}"]
        lines.append(f'rows_sha256 = "{parameters.rows_sha256[subject]}"')
        lines.append(f"error = {fitted.error!r}")
        lines.append(f"outside = {_list(fitted.outside)}")
        lines.append(f"reach = [{', '.join(_list(each) for each in fitted.reach)}]")
        lines.append(f"spreads = [{', '.join(_list(spread) for spread in fitted.spreads)}]")
        if fitted.lowers:
            lines.append("lowers = true")
        if fitted.known:
            lines.append(f"known = [{', '.join(_list(each) for each in fitted.known)}]")
        lines.append(f'[subject."{subject}".parameters]')
        lines += [f"{name} = {value!r}" for name, value in fitted.parameters.items()]
        lines.append(f'[subject."{subject}".hull]')
        lines += [f"{name} = {_list(ends)}" for name, ends in fitted.hull.items()]
        if fitted.residual is not None:
            kept = fitted.residual.to_dict()
            lines.append(f'[subject."{subject}".{_RESIDUAL_OF[type(fitted.residual)]}]')
            edges = kept.pop("edges", None)
            if isinstance(edges, list):
                lines.append(f"edges = [{', '.join(_list(each) for each in edges)}]")
            lines += [f"{name} = {value!r}".replace("'", '"') for name, value in kept.items()]
    return "\n".join(lines) + "\n"


_RESIDUAL_OF = {Trees: "trees", Neighbours: "neighbours"}


def _residual(table: Mapping[str, dict[str, object]]) -> Trees | Neighbours | None:
    if "trees" in table:
        return Trees.from_dict(table["trees"])
    return Neighbours.from_dict(table["neighbours"]) if "neighbours" in table else None


def _list(values: object) -> str:
    assert isinstance(values, list | tuple)
    return "[" + ", ".join(repr(float(value)) for value in values) + "]"


def read(text: str, where: str) -> Parameters:
    """Read parameters from TOML. Raises ModelError that names the place for a file that is not one of parameters."""
    try:
        kept = tomllib.loads(text)
        fitted = {
            subject: Fitted(
                parameters=table["parameters"],
                residual=_residual(table),
                hull={name: (ends[0], ends[1]) for name, ends in table["hull"].items()},
                spreads=tuple((spread[0], spread[1], spread[2]) for spread in table["spreads"]),
                outside=(table["outside"][0], table["outside"][1]),
                error=table["error"],
                row_count=table["rows"],
                reach=tuple((each[0], each[1], each[2]) for each in table["reach"]),
                known=tuple(tuple(each) for each in table.get("known", ())),
                lowers=bool(table.get("lowers", False)),
            )
            for subject, table in kept["subject"].items()
        }
        return Parameters(
            campaign=kept["campaign"],
            chip=kept["chip"],
            framework=kept["framework"],
            version=kept["version"],
            fitted=fitted,
            rows_sha256={subject: table["rows_sha256"] for subject, table in kept["subject"].items()},
            note=kept.get("note", ""),
        )
    except (tomllib.TOMLDecodeError, KeyError, ValueError, IndexError, AttributeError) as error:
        raise ModelError(f"{where}: is not a file of fitted parameters: {error!r}") from None


def load(path: Path) -> Parameters:
    """A user's file."""
    try:
        return read(path.read_text("utf-8"), shown_path(str(path)))
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{shown_path(str(path))}: cannot be read: {error}") from None


@cache
def shipped() -> Mapping[str, Parameters]:
    """Parameters that come with Tapeout, by campaign; read when first asked for."""
    folder = resources.files("tapeout.models") / "data" / "parameters"
    found = {}
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        if file.name.endswith(".toml"):
            kept = read(file.read_text("utf-8"), file.name)
            found[kept.campaign] = kept
    return found


@cache
def priors() -> Mapping[str, Mapping[str, Fitted]]:
    """Parameters for chips without any of their own, by the family left out ("" for none) and by kind."""
    text = (resources.files("tapeout.models") / "data" / "priors.toml").read_text("utf-8")
    return {
        without: {
            kind: Fitted(
                parameters=table["parameters"],
                residual=None,
                hull={},
                spreads=tuple((each[0], each[1], each[2]) for each in table["spreads"]),
                outside=(table["outside"][0], table["outside"][1]),
                error=table["error"],
                row_count=table["rows"],
            )
            for kind, table in kinds.items()
        }
        for without, kinds in tomllib.loads(text).items()
    }


def written_priors(found: Mapping[str, Mapping[str, Fitted]]) -> str:
    lines = ["# Fitted to measured chips together, and with each family left out, by `tapeout models fit --priors`."]
    for without, kinds in found.items():
        for kind, fitted in kinds.items():
            lines += ["", f'["{without}"."{kind}"]', f"rows = {fitted.row_count}", f"error = {fitted.error!r}"]
            lines.append(f"outside = {_list(fitted.outside)}")
            lines.append(f"spreads = [{', '.join(_list(spread) for spread in fitted.spreads)}]")
            lines.append(f'["{without}"."{kind}".parameters]')
            lines += [f"{name} = {value!r}" for name, value in fitted.parameters.items()]
    return "\n".join(lines) + "\n"
