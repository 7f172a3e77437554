"""How far a long command is, on the terminal: a line with a bar and the time left. In a pipe it says nothing."""

import contextlib
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tapeout.report.terminal import console


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Gives a function that is told of a word, how much of it is done, and of how much."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield lambda word, done, whole: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=screen) as shown:
        tasks: dict[str, int] = {}

        def tell(word: str, done: int, whole: int) -> None:
            if word not in tasks:
                tasks[word] = shown.add_task(word, total=whole)
            shown.update(tasks[word], completed=done)  # type: ignore[arg-type]

        yield tell
