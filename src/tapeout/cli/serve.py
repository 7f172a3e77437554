"""`tapeout serve`: vLLM's own server, with a chip under it."""

from typing import Annotated, Any

import typer


class ServeCommand(typer.core.TyperCommand):
    """Leaves what it does not know to vLLM."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.allow_extra_args = ctx.ignore_unknown_options = True
        return super().parse_args(ctx, args)


def serve(
    ctx: typer.Context,
    model: Annotated[
        str, typer.Argument(help="Folder or name of a model, as vLLM takes it; 'smollm2' is the package's.")
    ],
    chip: Annotated[str | None, typer.Option(help="A reference chip or a chip file.")] = None,
) -> None:
    """Serve a model with vLLM on a chip: OpenAI's API. All further options are those of `vllm serve`."""
    from tapeout import chip as chips
    from tapeout.serving import launch

    active = chips.activate(chip) if chip else chips.active()
    if model == launch.SMOLLM2:
        from tapeout.workbench import language_model

        folder = str(language_model.files())
        raise typer.Exit(launch.serve(folder, chip or active.name, ctx.args, name=launch.SMOLLM2))
    raise typer.Exit(launch.serve(model, chip or active.name, ctx.args))
