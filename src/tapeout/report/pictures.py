"""Pictures of pages that are more than bars: lanes of work over time, and bars of parts.

Takes finished figures; gives inline SVG, and the rows of a table where there is no picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

MOST_SPANS = 20_000
"""Spans that a picture draws; of more, those that fill less than a pixel are left out."""
COLORS = 8
"""Classes of colours (`kind0` to `kind7`) that the page's style has."""


@dataclass(frozen=True)
class Span:
    """Work of a `lane` from `start` to `end`, of one of the picture's kinds."""

    lane: int
    start: float
    end: float
    kind: int
    label: str = ""


@dataclass(frozen=True)
class Lanes:
    """Lanes of work over one axis of time; what is not filled is waiting."""

    title: str
    x: str
    lanes: Sequence[str]
    kinds: Sequence[str]
    spans: Sequence[Span]


@dataclass(frozen=True)
class Stack:
    """A bar of parts, written as `shown`; `parts` in the order of the picture's names."""

    label: str
    parts: Sequence[float]
    shown: str


@dataclass(frozen=True)
class Stacks:
    """Bars of the same named parts on one scale."""

    title: str
    names: Sequence[str]
    stacks: Sequence[Stack]


def columns_and_rows(block: Lanes | Stacks) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """What a picture shows, as a table: of lanes the share of time of each kind, of bars the share of each part."""
    if isinstance(block, Stacks):
        rows = []
        for stack in block.stacks:
            whole = sum(stack.parts) or 1.0
            rows.append((stack.label, stack.shown, *(f"{part / whole:.0%}" for part in stack.parts)))
        return ("", "all", *block.names), rows
    ends = max((span.end for span in block.spans), default=0.0) or 1.0
    shares = [[0.0] * len(block.kinds) for _ in block.lanes]
    for span in block.spans:
        shares[span.lane][span.kind] += (span.end - span.start) / ends
    return (
        ("lane", *block.kinds, "waits"),
        [
            (name, *(f"{each:.0%}" for each in mine), f"{max(1 - sum(mine), 0.0):.0%}")
            for name, mine in zip(block.lanes, shares, strict=True)
        ],
    )


def html(block: Lanes | Stacks) -> str:
    """A picture as a figure."""
    return _lanes(block) if isinstance(block, Lanes) else _stacks(block)


def _figure(title: str, drawn: Sequence[str], width: int, height: int) -> str:
    return (
        f'<figure class="wide"><figcaption>{escape(title)}</figcaption>\n'
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(title)}" '
        f'viewBox="0 0 {width} {height}" width="100%">\n' + "\n".join(drawn) + "\n</svg></figure>"
    )


def _legend(names: Sequence[str], left: int, top: int) -> list[str]:
    drawn, x = [], left
    for number, name in enumerate(names):
        drawn.append(f'<rect class="kind{number % COLORS}" x="{x}" y="{top}" width="10" height="10"/>')
        drawn.append(f'<text x="{x + 14}" y="{top + 10}">{escape(name)}</text>')
        x += 30 + 8 * len(name)
    return drawn


def _lanes(block: Lanes) -> str:
    left, right, top = 150, 900, 24
    high = max(min(22, 700 // max(len(block.lanes), 1)), 4)
    ends = max((span.end for span in block.spans), default=0.0) or 1.0
    scale = (right - left) / ends
    drawn = _legend(block.kinds, left, 4)
    step = max(1, -(-14 // high))
    for number, name in enumerate(block.lanes):
        y = top + number * high
        drawn.append(f'<rect class="waits" x="{left}" y="{y}" width="{right - left}" height="{high - 1}"/>')
        if number % step == 0:
            drawn.append(f'<text x="{left - 6}" y="{y + high / 2 + 5:.1f}" text-anchor="end">{escape(name)}</text>')
    small = 0.0 if len(block.spans) <= MOST_SPANS else 1.0
    for span in block.spans:
        width = (span.end - span.start) * scale
        if width <= small:
            continue
        drawn.append(
            f'<rect class="kind{span.kind % COLORS}" x="{left + span.start * scale:.2f}" '
            f'y="{top + span.lane * high}" width="{width:.2f}" height="{high - 1}">'
            f"<title>{escape(span.label)}</title></rect>"
        )
    bottom = top + len(block.lanes) * high
    drawn.append(f'<text x="{(left + right) / 2}" y="{bottom + 18}" text-anchor="middle">{escape(block.x)}</text>')
    return _figure(block.title, drawn, right + 10, bottom + 28)


def _stacks(block: Stacks) -> str:
    left, right, top, high = 200, 760, 24, 26
    most = max((sum(stack.parts) for stack in block.stacks), default=0.0) or 1.0
    drawn = _legend(block.names, 10, 4)
    for number, stack in enumerate(block.stacks):
        y, x = top + number * high, float(left)
        drawn.append(f'<text x="{left - 6}" y="{y + 15}" text-anchor="end">{escape(stack.label)}</text>')
        for kind, (name, part) in enumerate(zip(block.names, stack.parts, strict=True)):
            width = part / most * (right - left)
            if width > 0:
                drawn.append(
                    f'<rect class="kind{kind % COLORS}" x="{x:.2f}" y="{y}" width="{width:.2f}" height="{high - 6}">'
                    f"<title>{escape(name)}</title></rect>"
                )
            x += width
        drawn.append(f'<text x="{x + 6:.1f}" y="{y + 15}">{escape(stack.shown)}</text>')
    return _figure(block.title, drawn, right + 140, top + len(block.stacks) * high + 10)
