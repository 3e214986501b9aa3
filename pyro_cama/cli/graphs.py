"""What the commands on graphs do: init, check, draw, simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pyro_cama.cama import CAMA, build
from pyro_cama.cli.errors import one_line
from pyro_cama.cli.files import claim, draft, read_table, write_table
from pyro_cama.cli.first_graph import first_graph, typed_graph
from pyro_cama.data.table_files import SUFFIXES
from pyro_cama.errors import GraphError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.drawing import draw_graph
from pyro_cama.simulation.interventions import Shift
from pyro_cama.simulation.structural_model import simulate

PICTURES = (".png", ".svg", ".pdf")


def init(
    data: Path, target: str, graph: Path | None, orient: tuple[str, ...], output: Path | None, force: bool
) -> None:
    """Writes or prints a first graph of a table, of its own or another tool's edges, and says what is left out."""
    if orient and graph is None:
        raise click.UsageError("found --orient without --graph; expected a graph whose edges it is about")
    if output is not None:
        claim(output, force, (".yaml", ".yml"))
    table = read_table(data)
    text, left_out = (
        first_graph(table, target, str(data)) if graph is None else typed_graph(table, target, str(data), graph, orient)
    )
    if output is None:
        click.echo(text, nl=False)
    else:
        with draft(output, force) as part:
            part.write_text(text, encoding="utf-8", newline="\n")
        click.echo(f"wrote {output}: edit the types and the edges, then pyro-cama check {output}")
    for name, why in left_out.items():
        click.echo(f"Note: left out {name!r}: {one_line(why)}", err=True)


def check(graph: Path) -> None:
    """Prints roles, factorisation and what may drift."""
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


def draw(graph: Path, output: Path, force: bool) -> None:
    """Draws a picture of the graph that fit trains a model of."""
    claim(output, force, PICTURES)
    causal = build_from(graph, device="cpu").graph  # what acts on what is settled by build
    with draft(output, force) as part:
        draw_graph(causal, part)
    click.echo(f"wrote {output}")


def simulate_rows(graph: Path, rows: int, seed: int, shift: dict[str, float], output: Path, force: bool) -> None:
    """Writes rows of a random model over a graph, some nodes shifted."""
    claim(output, force, SUFFIXES)
    shifts = {name: Shift(offset=offset) for name, offset in shift.items()}
    frame = simulate(CausalGraph(graph), rows, seed, shifts)
    write_table(frame, output, force)
    click.echo(f"wrote {output}: {rows} rows, {len(frame.columns)} nodes")
