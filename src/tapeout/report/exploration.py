"""A search for a chip as a page: the best, the front, what each clause excludes and costs, and how far to trust it."""

from collections.abc import Sequence

from tapeout.exploration.search import Candidate, Exploration, speed_of
from tapeout.exploration.space import FIGURES
from tapeout.report.page import Block, Dot, Heading, Page, Paragraph, Scatter, Table
from tapeout.report.units import Shown, significant

SHOWN = ("speed", "usd_per_h", "speed_per_usd", "price_usd", "area_mm2", "power_w", "memory_gb_per_s", "tpp")
ROWS = 12
DOTS = 400


def page(found: Exploration, *, rows: int | None = ROWS) -> Page:
    """`rows` bounds the table of the front, None shows all."""
    space = found.space
    best = found.front[0]
    first = (space.most or space.least)[0]
    simulated = f", {_simulated(found, best)} by the simulator" if best.simulated else ""
    blocks: list[Block] = [
        Paragraph(
            f"Best by {first}: candidate {best.number}, {first} {significant(best.figures.values[first])}"
            f" ({significant(best.figures.values['speed'])} times the speed of {space.base.name} by the fitted forms"
            f"{simulated}). {_choices(best)}."
        ),
        *([Paragraph(f"{best.figures.export}.")] if best.figures.export else []),
        Paragraph(
            f"{found.judged:,} different candidates of {space.size:,} judged, {found.feasible:,} hold every clause; "
            f"{found.impossible:,} proposals were no chips. {found.simulated_chips:,} chips simulated in whole."
        ),
        Heading(f"The front: nothing betters these in {', '.join((*space.most, *space.least))}"),
        _front(found, found.front[:rows]),
        _picture(found),
        Heading("What the clauses exclude"),
        Table(
            ("clause", "candidates excluded"),
            [(clause, Shown(f"{count:,}", value=count)) for clause, count in found.excluded.items()],
            right=(1,),
        ),
    ]
    if found.prices:
        blocks += [Heading("What each clause costs"), _prices(found)]
    blocks += [Heading("How far to trust the ranking"), *_trust(found)]
    return Page(f"Exploration of {space.base.name}: {', '.join(found.workloads)}", blocks, kind="exploration")


def _choices(each: Candidate) -> str:
    return ", ".join(f"{place} {_value(value)}" for place, value in each.chosen.items())


def _value(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _simulated(found: Exploration, each: Candidate) -> str:
    assert each.simulated is not None
    return significant(speed_of(found.fit_reference, each.simulated))


def _front(found: Exploration, front: Sequence[Candidate]) -> Table:
    fields = list(found.space.fields)
    base = found.base.values
    return Table(
        ("candidate", *SHOWN, "speed, simulated", *fields),
        [
            (
                found.space.base.name,
                *(significant(base[name]) if name in base else "" for name in SHOWN),
                "1",
                *("" for _ in fields),
            ),
            *(
                (
                    str(each.number),
                    *(significant(each.figures.values[name]) if name in each.figures.values else "" for name in SHOWN),
                    _simulated(found, each) if each.simulated else "",
                    *(Shown(_value(each.chosen[name]), value=each.chosen[name]) for name in fields),
                )
                for each in front
            ),
        ],
        right=range(1, 2 + len(SHOWN) + len(fields)),
        caption="; ".join(f"{name}: {FIGURES[name]}" for name in SHOWN),
    )


def _picture(found: Exploration) -> Scatter:
    """A dot a candidate, those of the front large, over the owner's cost."""
    step = max(len(found.cloud) // DOTS, 1)
    dots = [Dot("" if ok else "excluded", usd, speed, 0.001) for usd, speed, ok in found.cloud[::step] if ok]
    dots += [
        Dot(f"candidate {each.number}", each.figures.values["usd_per_h"], each.figures.values["speed"], 0.08)
        for each in found.front
        if "usd_per_h" in each.figures.values
    ]
    base = found.base.values
    if "usd_per_h" in base:
        dots.append(Dot(found.space.base.name, base["usd_per_h"], base["speed"], 0.2))
    edge = sorted((dot.x, dot.y) for dot in dots if dot.weight == 0.08)
    lines = [("front", edge)] if len(edge) > 1 else []
    return Scatter(
        f"speed by owner's cost: small dots hold every clause, the largest is {found.space.base.name}",
        "owner's cost of a chip-hour, USD",
        f"speed, {found.space.base.name} = 1",
        dots,
        lines,
    )


def _prices(found: Exploration) -> Table:
    return Table(
        ("without the clause", "figure", "with all", "without it", "gain", "the chip then"),
        [
            (
                each.clause,
                each.figure,
                significant(each.with_it),
                significant(each.without_it),
                Shown(f"{each.without_it / each.with_it - 1:+.1%}", value=each.without_it / each.with_it - 1),
                ", ".join(f"{place} {_value(value)}" for place, value in each.chosen.items()),
            )
            for each in found.prices
        ],
        right=(2, 3, 4),
        caption="The best found by a search of as many candidates without the clause.",
    )


def _trust(found: Exploration) -> list[Block]:
    errors = ", ".join(f"{name} {error:.1%}" for name, error in found.fit.error.items())
    blocks: list[Block] = [
        Paragraph(
            f"Forms fitted to {found.fit.chips} simulated chips of this space; mean error on a chip left out: {errors}."
        )
    ]
    if found.correlation:
        ranks = ", ".join(f"{name} {value:.3f}" for name, value in found.correlation.items())
        blocks.append(
            Paragraph(
                f"Rank correlation (Spearman) of {len(found.checked)} candidates with the cycle simulator: {ranks}. "
                "They are the best and others spread over the ranking, and the forms were fitted to none of them."
            )
        )
        blocks.append(
            Table(
                ("candidate", *(f"{name}, {kind}, ms" for name in found.workloads for kind in ("form", "simulated"))),
                [
                    (
                        str(each.number),
                        *(
                            significant(seconds[name] * 1e3)
                            for name in found.workloads
                            for seconds in (each.figures.seconds, each.simulated or {})
                        ),
                    )
                    for each in found.checked
                ],
                right=range(1, 1 + 2 * len(found.workloads)),
            )
        )
    return blocks
