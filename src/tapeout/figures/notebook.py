"""Display of a value in a notebook: a small table of HTML, which `_repr_html_` of the value returns."""

import html
from collections.abc import Iterable, Sequence


def table(title: str, rows: Iterable[Sequence[str]], heading: Sequence[str] = ()) -> str:
    """A table with a caption; every cell is escaped."""

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    head = f"<thead>{row(heading, 'th')}</thead>" if heading else ""
    body = "".join(row(cells, "td") for cells in rows)
    return f"<table><caption>{html.escape(title)}</caption>{head}<tbody>{body}</tbody></table>"
