"""`tapeout traffic`: what placement, oversubscription and failed links do to a pattern of messages."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write


class Pattern(enum.StrEnum):
    all_to_all = "all-to-all"
    ring = "ring"


class Placement(enum.StrEnum):
    neighbours = "neighbours"
    scattered = "scattered"


def traffic(
    cards: Annotated[str, typer.Argument(help="Cards, kind:count or kind@cluster:count, as in H100:10240.")],
    size: Annotated[str, typer.Argument(help="What a card sends: 64MiB, 1GB, 4096.")] = "64MiB",
    pattern: Annotated[Pattern, typer.Option(help="Messages: all-to-all in groups, or a ring.")] = Pattern.all_to_all,
    group: Annotated[int, typer.Option(min=2, help="Cards of a group (all-to-all).")] = 64,
    placement: Annotated[
        Placement, typer.Option(help="Groups of neighbouring nodes, or of nodes drawn at random.")
    ] = Placement.neighbours,
    oversubscription: Annotated[
        float, typer.Option(min=1, help="What nodes of a leaf can send over what its uplinks carry.")
    ] = 1.0,
    failed: Annotated[int, typer.Option(min=0, help="Failed uplinks of the first leaf, on every rail.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of a random placement.")] = 0,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Simulate messages on a network of rails, flow by flow, beside the time without contention."""
    from tapeout.cli.clusters import size_bytes
    from tapeout.report import training as report
    from tapeout.training import TrainingError, fleet_of, network

    kinds = fleet_of(cards, assume=True).cards
    if len(kinds) > 1:
        raise TrainingError(f"{cards!r} mixes kinds, whose networks differ; name one")
    sent = size_bytes(size)
    is_scattered = placement is Placement.scattered
    quiet = network.fabric_of(kinds[0])
    fabric = network.fabric_of(kinds[0], oversubscription=oversubscription, failed=failed)
    answers = []
    for each, scattered in ((quiet, False), (fabric, is_scattered)):
        if pattern is Pattern.ring:
            order = [
                int(card)
                for part in network.groups_of(each, each.node_cards, scattered=scattered, seed=seed)
                for card in part
            ]
            flows = network.ring(each, order, sent)
        else:
            flows = network.all_to_all(each, network.groups_of(each, group, scattered=scattered, seed=seed), sent)
        answers.append(network.simulate(each, flows))
    write(report.traffic_page(fabric, *answers), form, output)
