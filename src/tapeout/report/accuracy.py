"""Errors of the operator models as pages."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tapeout.models.accuracy import Line, Points
from tapeout.models.parameters import Parameters
from tapeout.models.user_fit import UserFit
from tapeout.report.page import Bar, Bars, Block, Heading, Page, Paragraph, Table


def page(found: Sequence[tuple[Line, Points]], *, with_pictures: bool) -> Page:
    """Every operator's errors; with pictures, the error by size."""
    rows = [
        (
            line.chip,
            line.operator,
            line.dtype,
            line.tier,
            f"{line.rows:,}",
            *(f"{value:.1%}" for value in (line.mean, line.median, line.p90)),
            f"{line.bias:+.1%}",
            f"{line.coverage:.0%}",
        )
        for line, _ in found
    ]
    blocks: list[Block] = [
        Paragraph(
            "Predictions against measured rows that no fit has seen. Same chip: other shapes of the campaign that was "
            "fitted. Unseen region: sizes beyond every fitted row, or products and experts of models never fitted. "
            "Family left out: the chip's datasheet and constants of chips of other families. Coverage: rows within the "
            "printed range, which is meant to hold 80 %."
        ),
        Table(
            ("chip", "operator", "type", "tier", "rows", "mean error", "median", "p90", "bias", "coverage"),
            rows,
            right=range(4, 10),
        ),
    ]
    if with_pictures:
        for _, points in found:
            blocks += [Heading(points.title), _by_time(points)]
    return Page("Accuracy of the operator models", blocks, kind="accuracy")


def _by_time(points: Points) -> Bars:
    """Mean error by decade and third of measured time."""
    place = np.floor(3 * np.log10(points.measured)).astype(int)
    bars = []
    for each in np.unique(place):
        chosen = place == each
        error = points.predicted[chosen] / points.measured[chosen] - 1
        size = float(np.abs(error).mean())
        bars.append(Bar(_decade(each), size, f"{size:.1%} of {chosen.sum():,}, bias {error.mean():+.1%}"))
    return Bars("mean error by measured time", bars)


def _decade(place: int) -> str:
    low = 10 ** (place / 3)
    power = math.floor(math.log10(low * 1.0001) / 3) * 3
    unit = {0: "s", -3: "ms", -6: "µs", -9: "ns"}.get(power, f"1e{power} s")
    return f"from {low / 10**power:.3g} {unit}"


def fitted_page(lines: Sequence[tuple[str, str, str, int, float]], *, is_choice: bool) -> Page:
    """Return what the files of parameters say."""
    why = (
        ""
        if is_choice
        else " `pip install --editable '.[models]'` brings measured rows, and errors by region and tier."
    )
    return Page(
        "Accuracy of the operator models",
        [
            Paragraph(f"Mean error on rows left out when each set was fitted, as its file says.{why}"),
            Table(
                ("campaign", "chip", "operator and type", "rows fitted", "error of unseen rows"),
                [
                    (campaign, chip, subject, f"{rows:,}", f"{error:.1%}")
                    for campaign, chip, subject, rows, error in lines
                ],
                right=(3, 4),
            ),
        ],
    )


def campaigns_page(shipped: Mapping[str, Parameters]) -> Page:
    return Page(
        "Measured campaigns",
        [
            Table(
                ("campaign", "chip", "software", "operators", "source"),
                [
                    (
                        name,
                        kept.chip,
                        f"{kept.framework} {kept.version}",
                        ", ".join(sorted({subject.partition("|")[0] for subject in kept.fitted})),
                        kept.note,
                    )
                    for name, kept in shipped.items()
                ],
            )
        ],
    )


def user_fit_page(found: UserFit) -> Page:
    blocks: list[Block] = [
        Table(
            ("operator and type", "rows", "error before", "error after"),
            [
                (change.subject, f"{change.rows:,}", f"{change.before:.1%}", f"{change.after:.1%}")
                for change in found.changes
            ],
            right=(1, 2, 3),
            caption="Mean error on the half of the rows that was not fitted. What is kept is fitted to all rows.",
        )
    ]
    blocks += [Paragraph(f"Not fitted: {each}.") for each in found.left_out]
    return Page(f"Fitted: {found.parameters.chip}", blocks, kind="accuracy")
