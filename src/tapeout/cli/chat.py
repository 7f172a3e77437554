"""`tapeout chat`: a language model answers a question on a chip."""

import enum
from typing import Annotated

import typer
from rich.console import Console


class Dtype(enum.StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def chat(
    question: Annotated[str, typer.Argument(help="Question to ask.")],
    chip: Annotated[str | None, typer.Option(help="A reference chip or a chip file.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Element type of weights and activations.")] = Dtype.float32,
    eager: Annotated[bool, typer.Option("--eager", help="Run operator by operator, without torch.compile.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of the answer, in tokens.")] = 128,
) -> None:
    """Ask SmolLM2-135M-Instruct a question on a chip; print the answer token by token."""
    from tapeout import chip as chips

    console = Console()
    active = chips.activate(chip) if chip else chips.active()
    with console.status("importing torch and transformers"):
        from tapeout.report import answer as report
        from tapeout.workbench import language_model
    with console.status(f"loading SmolLM2-135M-Instruct in {dtype.value} onto the chip {active.name}"):
        model = language_model.load(dtype=dtype.value, compiled=not eager)
    console.print(f"[bold]{active.name}[/]> ", end="")
    answer = language_model.answer(
        model, question, max_new_tokens=max_new_tokens, on_text=lambda text: print(text, end="", flush=True)
    )
    console.print("\n")
    console.print(report.table_of(answer))
