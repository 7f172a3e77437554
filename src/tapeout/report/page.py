"""A page of text, tables and bars, written once, shown on a terminal, as Markdown, self-contained HTML or data.

Takes a `Page`, whose blocks hold finished text; gives a Rich renderable or a string. HTML carries its style and draws
its pictures as inline SVG: it needs no network and no script. JSON and CSV give the exact figure behind each cell that
is a `tapeout.report.units.Shown`.
"""

import csv
import enum
import io
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape as rich_escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text as RichText

from tapeout.report import pictures
from tapeout.report.pictures import Lanes, Stacks
from tapeout.report.terminal import console
from tapeout.report.units import Shown, decimal, significant


@dataclass(frozen=True)
class Heading:
    text: str


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Table:
    """Rows of text under column names. Columns named in `right` hold figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[int] = ()
    caption: str = ""


@dataclass(frozen=True)
class Bar:
    """One bar from `start` for `length`, written as `shown`. `low` and `high`, if given, are the ends of its range."""

    label: str
    length: float
    shown: str
    start: float = 0.0
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Bars:
    """Horizontal bars on one scale. With starts that follow each other they are a waterfall."""

    title: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Dot:
    """A point of a scatter, its area in proportion to `weight` (at most 1). Without a label it is in pictures only."""

    label: str
    x: float
    y: float
    weight: float = 0.1


@dataclass(frozen=True)
class Scatter:
    """Dots over two logarithmic axes, or two linear ones around the dots, with lines through points. Shown as a table
    where there is no picture; `only_drawn`: not at all, for its figures stand elsewhere on the page."""

    title: str
    x: str
    y: str
    dots: Sequence[Dot]
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]] = ()
    linear: bool = False
    only_drawn: bool = False


@dataclass(frozen=True)
class Curves:
    """Values over one linear axis; in `steps` a value holds until the next point. Where there is no picture, extremes
    are shown."""

    title: str
    x: str
    y: str
    curves: Sequence[tuple[str, Sequence[tuple[float, float]]]]
    steps: bool = True


@dataclass(frozen=True)
class SourceLine:
    """A line of a program: `heat` is its share of the whole's time, `note` what it costs, `below` what folds out."""

    number: int
    text: str
    heat: float = 0.0
    note: str = ""
    below: Sequence[str] = ()


@dataclass(frozen=True)
class Source:
    title: str
    lines: Sequence[SourceLine]


@dataclass(frozen=True)
class Widget:
    """A place that a script of the studio fills, with the data it needs. Elsewhere only its text is shown."""

    name: str
    text: str
    data: Mapping[str, Any]


Block = Heading | Paragraph | Table | Bars | Scatter | Curves | Lanes | Stacks | Source | Widget


@dataclass(frozen=True)
class Page:
    """`kind` names the page's schema in JSON."""

    title: str
    blocks: Sequence[Block]
    kind: str = "page"


SCHEMA_VERSION = 1
"""Of every page's JSON. Raised when a key changes its name or its meaning, not when one is added."""


class Format(enum.StrEnum):
    text = "text"
    markdown = "markdown"
    html = "html"
    json = "json"
    csv = "csv"


def waterfall(title: str, items: Sequence[tuple[str, float, str]], total: tuple[str, float, str]) -> Bars:
    """Bars that each begin where the one before ends, and their total."""
    bars, start = [], 0.0
    for label, length, shown in items:
        bars.append(Bar(label, length, shown, start))
        start += length
    return Bars(title, [*bars, Bar(*total)])


def write(page: Page, form: Format, output: Path | None) -> None:
    """Show a page on the terminal, or write it to a file."""
    if output is not None:
        output.write_text(_TEXTS[form](page), "utf-8")
    elif form is Format.text:
        console().print(to_terminal(page))
    else:
        print(_TEXTS[form](page), end="")


def to_terminal(page: Page) -> RenderableType:
    shown: list[RenderableType] = [RichText(page.title, style="bold")]
    for block in _told(page):
        if isinstance(block, Heading):
            shown.append(RichText(f"\n{block.text}", style="bold"))
        elif isinstance(block, Paragraph):
            shown.append(RichText(block.text))
        elif isinstance(block, Table):
            shown.append(Padding(_FittingTable(block), (0, 0, 0, 2)))
        elif isinstance(block, Scatter | Curves | Lanes | Stacks):
            shown.append(Padding(_FittingTable(_as_table(block)), (0, 0, 0, 2)))
        elif isinstance(block, Source):
            lines = "\n".join(_source_text(block))
            shown.append(Padding(Group(RichText(block.title, style="dim"), RichText(lines)), (0, 0, 0, 2)))
        elif isinstance(block, Widget):
            shown.append(RichText(block.text))
        else:
            shown.append(_terminal_bars(block))
    return Group(*shown)


@dataclass(frozen=True)
class _FittingTable:
    """A table that leaves out columns of figures, the last first, where it would have to cut a cell."""

    block: Table

    def __rich_console__(self, at: Console, options: ConsoleOptions) -> RenderResult:
        columns, left_out = list(range(len(self.block.columns))), list[str]()
        table = self._of(columns)
        while Measurement.get(at, options.update(width=10_000), table).minimum > options.max_width:
            figures = [index for index in columns[1:] if index in self.block.right]
            if not figures:
                break
            columns.remove(figures[-1])
            left_out.insert(0, self.block.columns[figures[-1]])
            table = self._of(columns)
        yield table
        if left_out:
            yield RichText(f"too narrow for: {'; '.join(left_out)} (--format csv has all)", style="dim")
        if self.block.caption:
            yield RichText(self.block.caption, style="dim")

    def _of(self, columns: Sequence[int]) -> RichTable:
        table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left")
        for index in columns:
            is_figure = index in self.block.right
            longest = max((len(row[index]) for row in self.block.rows), default=0)
            whole = is_figure or (index == 0 and longest <= LONGEST_WHOLE_NAME)
            table.add_column(
                _in_lines(self.block.columns[index], longest) if whole else RichText(self.block.columns[index]),
                justify="right" if is_figure else "left",
                header_style="dim",
                no_wrap=whole,
                overflow="fold",
            )
        for row in self.block.rows:
            table.add_row(*(RichText(row[index]) for index in columns))
        return table


LONGEST_WHOLE_NAME = 32
"""Letters of a first column that is never wrapped. Other columns of text may be, figures never."""


LEAST_HEADING = 10
"""Letters in a line of a heading, at least."""


def _in_lines(heading: str, width: int) -> RichText:
    """The heading in lines no wider than its column's cells, or than its own longest word."""
    longest_word = max(map(len, heading.split()), default=1)
    return RichText("\n".join(textwrap.wrap(heading, max(width, longest_word, LEAST_HEADING))))


def _source_text(block: Source) -> list[str]:
    return [f"{line.number:5}  {line.text}{f'  # {line.note}' if line.note else ''}" for line in block.lines]


def _told(page: Page) -> list[Block]:
    """The blocks of a page without pictures."""
    return [block for block in page.blocks if not (isinstance(block, Scatter) and block.only_drawn)]


def _as_table(block: Scatter | Curves | Lanes | Stacks) -> Table:
    if isinstance(block, Lanes | Stacks):
        columns, shares = pictures.columns_and_rows(block)
        return Table(columns, shares, right=range(1, len(columns)), caption=block.title)
    if isinstance(block, Curves):
        ends = [
            (label, *(significant(value) for value in (points[0][1], max(y for _, y in points), points[-1][1])))
            for label, points in block.curves
            if points
        ]
        return Table((f"{block.title}, {block.y}", "first", "greatest", "last"), ends, right=(1, 2, 3))
    rows = [(dot.label, significant(dot.x), significant(dot.y)) for dot in block.dots if dot.label]
    return Table((block.title, block.x, block.y), rows, right=(1, 2))


def _terminal_bars(block: Bars) -> RenderableType:
    width = 40
    greatest = max((bar.start + bar.length for bar in block.bars), default=1) or 1
    table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    for bar in block.bars:
        before = round(bar.start / greatest * width)
        cells = max(round(bar.length / greatest * width), 1 if bar.length > 0 else 0)
        table.add_row(rich_escape(bar.label), rich_escape(bar.shown), " " * before + "█" * cells)
    return Padding(Group(RichText(block.title, style="dim"), table), (0, 0, 0, 2))


def to_markdown(page: Page) -> str:
    parts = [f"# {page.title}"]
    for block in _told(page):
        if isinstance(block, Heading):
            parts.append(f"## {block.text}")
        elif isinstance(block, Paragraph):
            parts.append(block.text)
        elif isinstance(block, Source):
            parts += [block.title, "```\n" + "\n".join(_source_text(block)) + "\n```"]
        elif isinstance(block, Widget):
            parts.append(block.text)
        elif isinstance(block, Table | Scatter | Curves | Lanes | Stacks):
            table = block if isinstance(block, Table) else _as_table(block)
            parts.append(_markdown_table(table.columns, table.rows, table.right))
            if table.caption:
                parts.append(table.caption)
        else:
            rows = [(bar.label, bar.shown) for bar in block.bars]
            parts.append(_markdown_table((block.title, ""), rows, (1,)))
    return "\n\n".join(parts) + "\n"


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "|" + "|".join("---:" if index in right else "---" for index in range(len(columns))) + "|"
    return "\n".join([line(columns), rule, *(line(row) for row in rows)])


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #57606a; --rule: #e4e7eb; --paper: #fff; --bar: #3b6ea8;
  --range: #d0722b; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --dim: #9aa4af; --rule: #30363d; --paper: #14171a; --bar: #6ea3dc; --range: #f0a35e; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper); }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; } th { text-align: left; color: var(--dim); font-weight: 500; }
th, td { padding: .2rem .9rem .2rem 0; vertical-align: top; border-bottom: 1px solid var(--rule); }
.right { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.caption, figcaption { color: var(--dim); font-size: .9rem; } figure { margin: 1rem 0; }
.bars { display: grid; grid-template-columns: minmax(5rem, 15rem) minmax(4rem, 1fr) auto; gap: .15rem .6rem; }
.bars svg { width: 100%; height: 1.2em; } .bars rect, circle { fill: var(--bar); }
.bars .label { text-align: right; overflow-wrap: anywhere; }
.bars line { stroke: var(--range); stroke-width: 2; vector-effect: non-scaling-stroke; }
.plot text { font: 13px system-ui, sans-serif; fill: var(--ink); } .plot { min-width: 34rem; }
.plot path { fill: none; stroke: var(--range); stroke-width: 1.5; } .plot .axis { stroke: var(--rule); }
circle { fill-opacity: .6; }
nav { display: flex; gap: 1rem; flex-wrap: wrap; border-bottom: 1px solid var(--rule); padding-bottom: .5rem; }
a { color: var(--bar); } .plot .curve0 { stroke: var(--bar); } .plot .curve1 { stroke: var(--range); }
.plot .curve2 { stroke: var(--dim); } .plot text.curve0, .plot text.curve1, .plot text.curve2 { stroke: none; }
.plot text.curve0 { fill: var(--bar); } .plot text.curve1 { fill: var(--range); }
.plot text.curve2 { fill: var(--dim); }
.kind0 { fill: #4477aa; } .kind1 { fill: #ee6677; } .kind2 { fill: #228833; } .kind3 { fill: #ccbb44; }
.kind4 { fill: #66ccee; } .kind5 { fill: #aa3377; } .kind6 { fill: #999933; } .kind7 { fill: #bbbbbb; }
.waits { fill: var(--rule); }
.source { font: 12px/1.5 ui-monospace, monospace; white-space: pre; }
.source div, .source summary { position: relative; } .source summary { cursor: pointer; list-style: none; }
.source b { display: inline-block; width: 4rem; color: var(--dim); font-weight: 400; }
.source i { position: absolute; left: 0; top: 0; bottom: 0; background: var(--range); opacity: .25; }
.source span { color: var(--dim); padding-left: 1rem; } .source pre { margin: 0 0 0 4rem; color: var(--dim); }
@media print { nav, form, button { display: none; } body { max-width: none; margin: 0; }
  h2, figure, tr { break-inside: avoid; } }
"""


def to_html(page: Page, *, links: Sequence[tuple[str, str]] = (), scripts: Sequence[str] = ()) -> str:
    """The page as one HTML document. `links` (words and address) stand above it; `scripts` are addresses of scripts,
    which only a page that is served has."""
    parts = []
    for block in page.blocks:
        if isinstance(block, Heading):
            parts.append(f"<h2>{escape(block.text)}</h2>")
        elif isinstance(block, Paragraph):
            parts.append(f"<p>{escape(block.text)}</p>")
        elif isinstance(block, Table):
            parts.append(_html_table(block))
        elif isinstance(block, Scatter):
            parts.append(_html_scatter(block))
        elif isinstance(block, Curves):
            parts.append(_html_curves(block))
        elif isinstance(block, Lanes | Stacks):
            parts.append(pictures.html(block))
        elif isinstance(block, Source):
            parts.append(_html_source(block))
        elif isinstance(block, Widget):
            data = escape(json.dumps(block.data, ensure_ascii=False), quote=True)
            parts.append(f'<div class="{escape(block.name)}" data-widget="{data}"><p>{escape(block.text)}</p></div>')
        else:
            parts.append(_html_bars(block))
    body = "\n".join(parts)
    above = " ".join(f'<a href="{escape(address)}">{escape(words)}</a>' for words, address in links)
    navigation = f"<nav>{above}</nav>\n" if above else ""
    loaded = "".join(f'<script src="{escape(address)}" defer></script>' for address in scripts)
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(page.title)}</title>\n<style>{_STYLE}</style>{loaded}"
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{navigation}<h1>{escape(page.title)}</h1>\n'
        f"{body}\n</body>\n</html>\n"
    )


def _html_table(block: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        styles = (' class="right"' if index in block.right else "" for index in range(len(cells)))
        written = (
            f"<{tag}{style}{_sort_key(cell)}>{_html_cell(cell)}</{tag}>"
            for cell, style in zip(cells, styles, strict=True)
        )
        return f"<tr>{''.join(written)}</tr>"

    rows = "\n".join(row(cells, "td") for cells in block.rows)
    caption = f'\n<p class="caption">{escape(block.caption)}</p>' if block.caption else ""
    table = f"<table>\n<thead>{row(block.columns, 'th')}</thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    return f'<div class="wide">{table}</div>{caption}'


def _sort_key(cell: str) -> str:
    value = cell.data.get("value") if isinstance(cell, Shown) else None
    return f' data-value="{value!r}"' if isinstance(value, int | float) else ""


def _html_cell(cell: str) -> str:
    address = cell.data.get("href") if isinstance(cell, Shown) else None
    return f'<a href="{escape(address)}">{escape(cell)}</a>' if address else escape(cell)


def _html_source(block: Source) -> str:
    """Every line with its number and a bar of its heat; what is below a line folds out."""
    rows = []
    for line in block.lines:
        heat = f"{min(max(line.heat, 0.0), 1.0):.0%}"
        shown = f'<i style="width:{heat}"></i><b>{line.number}</b><code>{escape(line.text) or " "}</code>'
        note = f"<span>{escape(line.note)}</span>" if line.note else ""
        if line.below:
            below = escape("\n".join(line.below))
            rows.append(f"<details><summary>{shown}{note}</summary><pre>{below}</pre></details>")
        else:
            rows.append(f"<div>{shown}{note}</div>")
    return f'<figure class="wide source"><figcaption>{escape(block.title)}</figcaption>\n{"".join(rows)}</figure>'


def _html_curves(block: Curves) -> str:
    points = [point for _, line in block.curves for point in line]
    if not points:
        return ""
    left, right, top, bottom = 90, 700, 10, 250
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    least, most = min(0.0, *(y for _, y in points)), max(y for _, y in points)
    across, up = (last - first) or 1.0, (most - least) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (x - first) / across * (right - left), bottom - (y - least) / up * (bottom - top)

    drawn = []
    for part in range(5):
        value = least + up * part / 4
        _, y = place(first, value)
        drawn.append(f'<line class="axis" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        drawn.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(significant(value))}</text>')
        moment = first + across * part / 4
        x, _ = place(moment, least)
        drawn.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{escape(significant(moment))}</text>')
    for number, (label, line) in enumerate(block.curves):
        path: list[str] = []
        for x, y in (place(*point) for point in line):
            path.append(f"{'L' if path else 'M'}{x:.1f} {y:.1f}" if not (path and block.steps) else f"H{x:.1f}V{y:.1f}")
        drawn.append(f'<path class="curve{number % 3}" d="{"".join(path)}"><title>{escape(label)}</title></path>')
        drawn.append(
            f'<text x="{left + 8}" y="{top + 14 + 16 * number}" class="curve{number % 3}">{escape(label)}</text>'
        )
    drawn.append(f'<text x="{(left + right) / 2}" y="{bottom + 38}" text-anchor="middle">{escape(block.x)}</text>')
    return (
        f'<figure class="wide"><figcaption>{escape(block.title)}; {escape(block.y)} upwards</figcaption>\n'
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(block.title)}" '
        f'viewBox="0 0 {right + 30} {bottom + 48}" width="100%">\n' + "\n".join(drawn) + "\n</svg></figure>"
    )


def _html_bars(block: Bars) -> str:
    """A row a bar: name, picture, figure. Only the picture is drawn, so that text keeps its size on a small screen."""
    ends = (max(bar.start + bar.length, bar.high or 0.0) for bar in block.bars)
    greatest = max(ends, default=1) or 1
    rows = []
    for bar in block.bars:
        x, width = 100 * bar.start / greatest, max(100 * bar.length / greatest, 0.3)
        spread = ""
        if bar.low is not None and bar.high is not None and bar.low < bar.high:
            low, high = 100 * bar.low / greatest, 100 * bar.high / greatest
            spread = f'<line x1="{low:.2f}" y1="5" x2="{high:.2f}" y2="5"/>'
        rows.append(
            f'<span class="label">{escape(bar.label)}</span>'
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 10" preserveAspectRatio="none" '
            f'role="img" aria-label="{escape(bar.label)}: {escape(bar.shown)}">'
            f'<rect x="{x:.2f}" y="1" width="{width:.2f}" height="8"/>{spread}</svg><span>{escape(bar.shown)}</span>'
        )
    return f'<figure><figcaption>{escape(block.title)}</figcaption>\n<div class="bars">{"".join(rows)}</div></figure>'


def _html_scatter(block: Scatter) -> str:
    xs = [dot.x for dot in block.dots] + [x for _, points in block.lines for x, _ in points]
    ys = [dot.y for dot in block.dots] + [y for _, points in block.lines for _, y in points]
    if not xs:
        return ""
    left, right, top, bottom = 70, 700, 10, 330
    scale = (lambda value: value) if block.linear else math.log10
    x_ticks, y_ticks = (_fifths(values) if block.linear else _powers(values) for values in (xs, ys))
    x_range, y_range = ((scale(ticks[0]), scale(ticks[-1])) for ticks in (x_ticks, y_ticks))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (scale(x) - x_range[0]) / (x_range[1] - x_range[0])
        up = (scale(y) - y_range[0]) / (y_range[1] - y_range[0])
        return left + across * (right - left), bottom - up * (bottom - top)

    def text(x: float, y: float, words: str, anchor: str = "end") -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'

    drawn = []
    for tick in x_ticks:
        x, _ = place(tick, y_ticks[0])
        drawn.append(f'<line class="axis" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>')
        drawn.append(text(x, bottom + 18, significant(tick) if block.linear else decimal(tick, ""), "middle"))
    for tick in y_ticks:
        _, y = place(x_ticks[0], tick)
        drawn.append(f'<line class="axis" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        drawn.append(text(left - 6, y + 4, significant(tick) if block.linear else decimal(tick, "")))
    for label, points in block.lines:
        places = [place(*point) for point in points]
        path = " L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        drawn.append(f'<path d="M{path}"/>')
        drawn.append(text(places[-1][0] - 4, places[-1][1] - 5, label))
    for dot in block.dots:
        x, y = place(dot.x, dot.y)
        radius = 3 + 14 * math.sqrt(min(max(dot.weight, 0.0), 1.0))
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{escape(dot.label)}</title></circle>')
    drawn.append(text((left + right) / 2, bottom + 38, block.x, "middle"))
    return (
        f'<figure class="wide"><figcaption>{escape(block.title)}; {escape(block.y)} upwards</figcaption>\n'
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(block.title)}" '
        f'viewBox="0 0 {right + 10} {bottom + 48}" width="100%">\n' + "\n".join(drawn) + "\n</svg></figure>"
    )


def _powers(values: Sequence[float]) -> list[float]:
    """The powers of ten around positive values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def _fifths(values: Sequence[float]) -> list[float]:
    """Six even ticks around values."""
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.08 * abs(high) or 1.0
    return [low - margin + (high - low + 2 * margin) * part / 5 for part in range(6)]


def to_text(page: Page) -> str:
    """Return the page as a terminal of 120 columns shows it, without colours."""
    written = io.StringIO()
    Console(width=120, file=written).print(to_terminal(page))
    return written.getvalue()


def to_json(page: Page) -> str:
    """Return the page as JSON: sections with their text, tables (a row is an object) and bars.

    A cell is its text, or an object with `text`, `value` and what else is known of the figure (unit, low, high,
    provenance, source).
    """
    sections: list[dict[str, Any]] = [_section("")]
    for block in page.blocks:
        if isinstance(block, Heading):
            sections.append(_section(block.text))
        elif isinstance(block, Paragraph):
            sections[-1]["text"].append(block.text)
        elif isinstance(block, Table):
            rows = [dict(zip(block.columns, map(_datum, row), strict=True)) for row in block.rows]
            sections[-1]["tables"].append({"columns": list(block.columns), "rows": rows, "caption": block.caption})
        elif isinstance(block, Widget):
            sections[-1]["text"].append(block.text)
        else:
            sections[-1][_SECTIONS[type(block)]].append(asdict(block))
    told = [section for section in sections if any(section.values())]
    data = {"schema": f"tapeout.{page.kind}/{SCHEMA_VERSION}", "title": page.title, "sections": told}
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def _section(heading: str) -> dict[str, Any]:
    return {"heading": heading, "text": [], "tables": []} | {name: [] for name in _SECTIONS.values()}


_SECTIONS = {
    Bars: "bars",
    Scatter: "scatters",
    Curves: "curves",
    Lanes: "lanes",
    Stacks: "stacks",
    Source: "sources",
}
"""Keys of a section's pictures in JSON."""


def _datum(cell: str) -> Any:
    return {"text": str(cell), **cell.data} if isinstance(cell, Shown) else cell


def to_csv(page: Page) -> str:
    """Return the page's tables, an empty line between two. A figure is its exact value; where a column's figures have
    units, a column for them follows."""
    written = io.StringIO()
    out = csv.writer(written, lineterminator="\n")
    tables = [
        _as_table(block) if isinstance(block, Scatter | Curves | Lanes | Stacks) else block for block in _told(page)
    ]
    for number, table in enumerate(block for block in tables if isinstance(block, Table)):
        if number:
            written.write("\n")
        with_unit = {
            index
            for row in table.rows
            for index, cell in enumerate(row)
            if isinstance(cell, Shown) and cell.data.get("unit")
        }
        named = ([name, f"{name} unit"] if index in with_unit else [name] for index, name in enumerate(table.columns))
        out.writerow([name for names in named for name in names])
        for row in table.rows:
            out.writerow([value for index, cell in enumerate(row) for value in _csv_values(cell, index in with_unit)])
    return written.getvalue()


def _csv_values(cell: str, with_unit: bool) -> list[Any]:
    data = cell.data if isinstance(cell, Shown) else {"value": cell}
    return [data["value"], data.get("unit", "")] if with_unit else [data["value"]]


_TEXTS = {
    Format.text: to_text,
    Format.markdown: to_markdown,
    Format.html: to_html,
    Format.json: to_json,
    Format.csv: to_csv,
}
