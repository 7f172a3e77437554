"""Display of a value in a notebook: a small table of HTML, which `_repr_html_` of the value returns."""

from collections.abc import Iterable, Sequence


def table(title: str, rows: Iterable[Sequence[str]], heading: Sequence[str] = ()) -> str:
    """A table with a caption; every cell is escaped."""

    def escaped(text: str) -> str:  # without the module html, which nobody needs who imports torch
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escaped(cell)}</{tag}>" for cell in cells) + "</tr>"

    head = f"<thead>{row(heading, 'th')}</thead>" if heading else ""
    body = "".join(row(cells, "td") for cells in rows)
    return f"<table><caption>{escaped(title)}</caption>{head}<tbody>{body}</tbody></table>"
