"""`tapeout models`: how good the operator models are, and models of your own."""

from pathlib import Path
from typing import Annotated

import typer

from tapeout.report.page import Format, write

models = typer.Typer(
    no_args_is_help=True, help="Show the accuracy of the operator models; measure, fit and predict rows."
)


@models.command("list")
def list_() -> None:
    """List the campaigns that have fitted parameters: chip, software and operators."""
    from tapeout.models import parameters
    from tapeout.report import accuracy as report

    write(report.campaigns_page(parameters.shipped()), Format.text, None)


@models.command()
def accuracy(
    chip: Annotated[str | None, typer.Argument(help="Show only this chip.")] = None,
    fitted: Annotated[
        bool,
        typer.Option("--fitted", help="Show the errors recorded in the parameter files; needs no measured rows."),
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    output: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
) -> None:
    """Show errors on measured rows outside every fit: by operator, region and tier, with coverage of the ranges."""
    from tapeout.models import accuracy as errors
    from tapeout.models.measured import package_folder
    from tapeout.report import accuracy as report

    if fitted or package_folder() is None:
        write(report.fitted_page(errors.kept_lines(chip or ""), is_choice=fitted), form, output)
        return
    write(report.page(list(errors.lines(chip or "")), with_pictures=form is Format.html), form, output)


@models.command()
def measure(
    device: Annotated[str, typer.Option(help="PyTorch device: cuda, npu, xpu, hpu, cpu or chip.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write.")],
    count: Annotated[
        int, typer.Option(min=1, help="Number of shapes: 32 take a minute; 200 or 2000 give a better fit.")
    ] = 32,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions of each shape; the median counts.")] = 10,
    dtype: Annotated[str, typer.Option(help="Element type of the operands.")] = "bfloat16",
    only: Annotated[list[str] | None, typer.Option(help="Measure only this operator; may be repeated.")] = None,
) -> None:
    """Measure operators on a device with plain PyTorch, as rows for `tapeout models fit`."""
    from tapeout.models.measure import measure as run

    rows = run(device, output, count=count, repeats=repeats, dtype=dtype, operators=only or ())
    typer.echo(f"{rows} rows in {output}")


@models.command()
def fit(
    rows: Annotated[Path | None, typer.Argument(help="Table of measured rows: op, dtype, sizes, seconds.")] = None,
    chip: Annotated[
        str | None, typer.Option(help="Chip that the rows were measured on, by its name in the catalog.")
    ] = None,
    campaign: Annotated[str | None, typer.Option(help="Refit this shipped campaign instead.")] = None,
    priors: Annotated[bool, typer.Option("--priors", help="Refit the constants shared by all chips instead.")] = False,
    catalog: Annotated[Path | None, typer.Option(help="Additional catalog of chips (CSV).")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write (default: a file in your models folder).")
    ] = None,
) -> None:
    """Fit parameters to measured rows; print errors before and after on the half that was not fitted."""
    from tapeout.models import campaigns_fit, measured, parameters, questions, user_fit
    from tapeout.models.tables import ModelError

    if priors or campaign is not None:
        if output is None:
            raise ModelError("name the file to write with --output")
        if not output.parent.is_dir():
            raise ModelError(f"there is no folder {str(output.parent)!r} to write {output.name} in")
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
    rows: Annotated[
        Path, typer.Argument(help="Table of operators: the columns of aiconfigurator-core, or op, dtype and sizes.")
    ],
    chip: Annotated[str, typer.Option(help="Chip to predict.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write.")],
    campaign: Annotated[str, typer.Option(help="Measured campaign to use for rows that name no software.")] = "",
    without_family: Annotated[
        bool, typer.Option("--without-family", help="Ignore measurements of the chip's own family.")
    ] = False,
    measured: Annotated[Path | None, typer.Option(help="Rows measured on the chip, to base predictions on.")] = None,
    assume: Annotated[
        bool, typer.Option("--assume", help="Use a typical value for figures that are not published.")
    ] = False,
    catalog: Annotated[Path | None, typer.Option(help="Additional catalog of chips (CSV).")] = None,
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
