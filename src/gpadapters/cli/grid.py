"""`gpctl grid`: check a configuration of the router, and draw it.

Rules of this file: it judges nothing itself. What is wrong with a file is an error, with every problem; what a file
can hardly mean is found by the core and told here. What reads and draws is loaded by the command that needs it, not to
show the help.
"""

import enum
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="grid",
    help="Check a configuration of the global router, and draw it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The configuration of the global router, as JSON.")]


class Form(enum.StrEnum):
    """How to draw."""

    TERMINAL = "terminal"
    SVG = "svg"


@app.command()
def check(file: File) -> None:
    """Say what in a configuration is wrong, or hardly meant.

    Exit codes: 0 nothing but notes, 1 something can hardly be meant, 2 the file is not a configuration.
    """
    from gpadapters.cli.route import read_config  # noqa: PLC0415
    from gpcore.grid_checks import check as findings  # noqa: PLC0415

    config = read_config(file)
    found = findings(config.table)
    for warning in config.warnings:
        sys.stdout.write(f"note: {warning}\n")
    for finding in found:
        sys.stdout.write(f"{'warning' if finding.serious else 'note'}: {finding}\n")
    if any(finding.serious for finding in found):
        raise typer.Exit(1)
    grids = " and ".join(
        f"{selection.phase} {' x '.join(map(str, selection.grid.shape))}" for selection in config.table.selections
    )
    sys.stdout.write(f"ok: {grids}\n")


@app.command()
def show(
    file: File, *, output: Annotated[Form, typer.Option("--output", "-o", help="Where to draw.")] = Form.TERMINAL
) -> None:
    """Draw a configuration: which pool has which cell."""
    from gpadapters.cli.grid_drawing import as_svg, as_text  # noqa: PLC0415
    from gpadapters.cli.route import read_config  # noqa: PLC0415

    config = read_config(file)
    for warning in config.warnings:
        sys.stderr.write(f"gpctl: {file}: {warning}\n")
    if output is Form.SVG:
        sys.stdout.write(as_svg(config.table))
    else:
        as_text(config.table, sys.stdout)
