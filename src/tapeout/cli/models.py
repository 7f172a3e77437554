"""`tapeout models`: how good the operator models are, and models of your own."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write

models = typer.Typer(no_args_is_help=True, help="Accuracy of the operator models; measure, fit and predict rows.")


@models.command("list")
def list_() -> None:
    """Campaigns there are parameters for: chip, software and what was fitted."""
    from tapeout.models import parameters
    from tapeout.report import accuracy as report

    write(report.campaigns_page(parameters.shipped()), Format.text, None)


@models.command()
def accuracy(
    chip: Annotated[str | None, typer.Argument(help="Only this chip.")] = None,
    fitted: Annotated[
        bool,
        typer.Option("--fitted", help="What the parameter files say; computes nothing and needs no measured rows."),
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write it to this file.")] = None,
) -> None:
    """Errors on measured rows that no fit has seen: by operator, region and tier, with coverage of the ranges."""
    from tapeout.models import accuracy as errors
    from tapeout.models.measured import package_folder
    from tapeout.report import accuracy as report

    if fitted or package_folder() is None:
        write(report.fitted_page(errors.kept_lines(chip or ""), is_choice=fitted), form, output)
        return
    write(report.page(list(errors.lines(chip or "")), with_pictures=form is Format.html), form, output)


@models.command()
def measure(
    device: Annotated[str, typer.Option(help="A device of PyTorch: cuda, npu, xpu, hpu, cpu, chip.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The table to write.")],
    count: Annotated[int, typer.Option(min=1, help="Shapes: 32 take a minute, 200 and 2000 are better.")] = 32,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions of each; the median counts.")] = 10,
    dtype: Annotated[str, typer.Option(help="Element type.")] = "bfloat16",
) -> None:
    """Measure operators on a device with plain PyTorch, as rows for `tapeout models fit`."""
    from tapeout.models.measure import measure as run

    typer.echo(f"{run(device, output, count=count, repeats=repeats, dtype=dtype)} rows in {output}")


@models.command()
def fit(
    rows: Annotated[Path | None, typer.Argument(help="Measured rows: op, dtype, sizes, seconds.")] = None,
    chip: Annotated[
        str | None, typer.Option(help="The chip they were measured on, by its name in the catalog.")
    ] = None,
    campaign: Annotated[str | None, typer.Option(help="Instead: fit a campaign that ships anew.")] = None,
    priors: Annotated[bool, typer.Option("--priors", help="Instead: fit the constants over chips anew.")] = False,
    catalog: Annotated[Path | None, typer.Option(help="A table of further chips.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; without it, your folder of models.")
    ] = None,
) -> None:
    """Fit parameters to measured rows; prints errors before and after on the half it did not fit."""
    from tapeout.models import campaigns_fit, measured, parameters, questions, user_fit
    from tapeout.models.tables import ModelError

    if priors or campaign is not None:
        if output is None:
            raise ModelError("name the file to write with --output")
        if priors:
            output.write_text(parameters.written_priors(campaigns_fit.fit_priors()), "utf-8")
        else:
            assert campaign is not None
            if campaign not in measured.campaigns():
                raise ModelError(f"no campaign {campaign!r}; known: {', '.join(measured.campaigns())}")
            output.write_text(parameters.written(campaigns_fit.fit_campaign(campaign)), "utf-8")
        typer.echo(f"wrote {output}")
        return
    if rows is None or chip is None:
        raise ModelError("name the table of rows and --chip, or a --campaign that ships")
    found = user_fit.fit_rows(rows, chip, own_catalog=catalog)
    from tapeout.report import accuracy as report

    write(report.user_fit_page(found), Format.text, None)
    target = output or questions.own_folder() / f"{user_fit.file_name(found.parameters.chip)}.toml"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(parameters.written(found.parameters), "utf-8")
    typer.echo(f"wrote {target}")


@models.command()
def predict(
    rows: Annotated[Path, typer.Argument(help="Operators: columns of aiconfigurator-core, or op, dtype and sizes.")],
    chip: Annotated[str, typer.Option(help="The chip.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The table to write.")],
    campaign: Annotated[str, typer.Option(help="Software that counts, where rows do not say it.")] = "",
    without_family: Annotated[
        bool, typer.Option("--without-family", help="As if no chip of this family had been measured.")
    ] = False,
    measured: Annotated[Path | None, typer.Option(help="Rows measured on the chip, to stand on.")] = None,
    assume: Annotated[bool, typer.Option("--assume", help="Take a usual value for a figure nobody published.")] = False,
    catalog: Annotated[Path | None, typer.Option(help="A table of further chips.")] = None,
) -> None:
    """Add seconds, low, high, bound and provenance to each row of a table."""
    from tapeout.models import predict as predicting

    count = predicting.predict(
        rows,
        output,
        chip,
        campaign=campaign,
        without_family=without_family,
        measured=measured,
        assume=assume,
        own_catalog=catalog,
    )
    typer.echo(f"{count:,} rows in {output}")
