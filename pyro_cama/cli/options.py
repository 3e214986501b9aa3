"""Arguments and options that several commands share, and how their values are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pyro_cama.cli.starting import starting

Command = TypeVar("Command", bound=Callable[..., Any])


def file_argument(name: str, *, folder: bool = False) -> Callable[[Command], Command]:
    """Adds an argument that is a file, or a folder too."""
    return click.argument(name, type=click.Path(path_type=Path, file_okay=not folder))


def output_option(what: str, *, required: bool = True) -> Callable[[Command], Command]:
    """Adds ``-o`` and ``--force``."""

    def add(command: Command) -> Command:
        place = click.Path(path_type=Path)
        command = click.option("--force", is_flag=True, help="Replace what is there already.")(command)
        return click.option("-o", "--output", type=place, required=required, help=what)(command)

    return add


def prediction_options(command: Command) -> Command:
    """Adds what a prediction may cost, and how much it takes readings at their word."""
    steps, power = click.IntRange(0), click.FloatRange(0.0, 1.0, min_open=True)
    for name, kind, usual, said in (
        ("--refine-z", steps, 0, "Gradient steps of every row's z under every class: for rows unlike any trained on."),
        ("--power", power, 1.0, "Of the readings' likelihood; below 1 they say less, for noise not seen in training."),
        ("--samples", click.IntRange(1), 16, "Draws of the latents a row; fewer are faster."),
    ):
        command = click.option(name, type=kind, default=usual, help=said)(command)
    said = "Whether a manipulation that went with the class in training counts as evidence of it, or the edge is cut."
    words = click.Choice(["interventional", "observational"])
    return click.option("--regime", type=words, default="interventional", help=said)(command)


def unknown_option(command: Command) -> Command:
    """Adds ``--unknown``."""
    words = click.Choice(["error", "missing"])
    said = "What a level is that the graph does not name: an error, or read as a missing entry."
    return click.option("--unknown", type=words, default="error", help=said)(command)


def parse_device(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Checks that torch has this device here.

    Raises:
        click.BadParameter: it has not.
    """
    if value != "auto" and not context.resilient_parsing:
        with starting():
            import torch
        try:
            torch.empty(0, device=value)
        except (RuntimeError, AssertionError, NotImplementedError):
            raise click.BadParameter(
                f"found {value!r}, no device of torch's here; expected auto, cpu or cuda"
            ) from None
    return value


def parse_shifts(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, float]:
    """Reads ``node=number``, one a shift.

    Raises:
        click.BadParameter: another form, or a node more than once.
    """
    found: dict[str, float] = {}
    for text in value:
        name, _, offset = text.rpartition("=")
        try:
            number = float(offset)
        except ValueError:
            number = math.nan
        if not name or not math.isfinite(number):
            raise click.BadParameter(f"found {text!r}; expected node=number, such as fever=+1.5")
        if name in found:
            raise click.BadParameter(f"found node {name!r} more than once; expected it once")
        found[name] = number
    return found


SEED = click.IntRange(0, 2**32 - 1)
