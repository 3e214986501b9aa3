"""The commands on graphs: init, check, draw, simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pyro_cama.cama import CAMA, build
from pyro_cama.cli.app import app
from pyro_cama.cli.errors import one_line
from pyro_cama.cli.files import claim, draft, read_table, write_table
from pyro_cama.cli.first_graph import first_graph
from pyro_cama.cli.options import SEED, file_argument, output_option, parse_shifts
from pyro_cama.data.table_files import SUFFIXES
from pyro_cama.errors import GraphError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.drawing import draw_graph
from pyro_cama.simulation.interventions import Shift
from pyro_cama.simulation.structural_model import simulate

_PICTURES = (".png", ".svg", ".pdf")


@app.command()
@file_argument("data")
@click.option("--target", required=True, help="The column to predict.")
@output_option("The graph, a .yaml file; left out, it is printed.", required=False)
def init(data: Path, target: str, output: Path | None, force: bool) -> None:
    """A first graph from the table DATA, to be edited.

    Guesses types and levels, leaves out identifiers and constants, and makes every column a child of the target.
    """
    if output is not None:
        claim(output, force, (".yaml", ".yml"))
    text, left_out = first_graph(read_table(data), target, str(data))
    if output is None:
        click.echo(text, nl=False)
    else:
        with draft(output, force) as part:
            part.write_text(text, encoding="utf-8", newline="\n")
        click.echo(f"wrote {output}: edit the types and the edges, then pyro-cama check {output}")
    for name, why in left_out.items():
        click.echo(f"Note: left out {name!r}: {one_line(why)}", err=True)


@app.command()
@file_argument("graph")
def check(graph: Path) -> None:
    """Check GRAPH: roles, factorisation, what drifts.

    GRAPH is a .yaml, .gml, .graphml or .dot file.
    """
    cama = build_from(graph, device="cpu")
    click.echo(cama.summary())
    outside = [name for name in cama.graph.nodes if name not in cama.graph.order]
    if outside:
        click.echo(f"\nnot used, outside the target's Markov blanket: {', '.join(outside)}")


def build_from(path: Path, **options: Any) -> CAMA:
    """Builds a model of a graph file; faults name the file.

    Raises:
        GraphError: of the graph, its mechanisms or likelihoods.
    """
    graph = CausalGraph(path)
    try:
        return build(graph, **options)
    except GraphError as error:  # of mechanisms and likelihoods, which no longer knows the file
        raise GraphError(f"{path}: {error}") from error


@app.command("draw")
@file_argument("graph")
@output_option("The picture, .png, .svg or .pdf.")
def draw_command(graph: Path, output: Path, force: bool) -> None:
    """A picture of GRAPH, roles told apart by colour and shape."""
    claim(output, force, _PICTURES)
    causal = CausalGraph(graph)
    with draft(output, force) as part:
        draw_graph(causal, part)
    click.echo(f"wrote {output}")


@app.command("simulate")
@file_argument("graph")
@click.option("-n", "--rows", type=click.IntRange(1), default=1000, help="Rows.")
@click.option("--seed", type=SEED, default=0, help="Draws equations and rows.")
@click.option(
    "--shift", multiple=True, callback=parse_shifts, metavar="NODE=OFFSET", help="Adds to a node; may be given again."
)
@output_option("The rows, .csv or .parquet.")
def simulate_command(graph: Path, rows: int, seed: int, shift: dict[str, Shift], output: Path, force: bool) -> None:
    """Rows of GRAPH from a random nonlinear causal model.

    The same seed gives the same rows with and without shifts.
    """
    claim(output, force, SUFFIXES)
    frame = simulate(CausalGraph(graph), rows, seed, shift)
    write_table(frame, output, force)
    click.echo(f"wrote {output}: {rows} rows, {len(frame.columns)} nodes")
