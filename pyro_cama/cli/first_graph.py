"""A first graph from a table, YAML with comments to be edited: types guessed, and everything a child of the target, or
the edges those of another tool's file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from pyro_cama._messages import one_of
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.column_types import MANY, Guess, guess_named
from pyro_cama.graph.formats import read_graph
from pyro_cama.graph.yaml_text import on_one_line


def first_graph(table: pd.DataFrame, target: str, source: str) -> tuple[str, dict[str, str]]:
    """Writes the YAML of a graph whose target causes every other column; returns it and why columns are left out.

    Args:
        table: a DataFrame, texts as in a CSV file or typed.
        target: a column of at most 20 different values.
        source: the table's name, for the first comment.

    Raises:
        DataError: no such column, a target that is no class, or no column to be its child.

    >>> text, left_out = first_graph(pd.DataFrame({"y": ["a", "b"], "x": ["0.5", "1.5"], "k": ["", ""]}), "y", "t.csv")
    >>> CausalGraph.from_yaml(text)
    <CausalGraph: target 'y'; parents none; children 'x'; coparents none; latents 'z', 'm'>
    >>> left_out
    {'k': 'no entry'}
    """
    table = table.set_axis([str(name) for name in table.columns], axis=1)
    doubled = [name for name, times in Counter(table.columns).items() if times > 1]
    if target in doubled:
        raise DataError(f"{source}: target: found column {target!r} more than once; expected one: rename the others")
    if target not in table.columns:
        raise DataError(f"{source}: target: found no column {target!r}; {one_of(target, table.columns)}")
    guesses = {name: guess_named(name, table[name], target) for name in table.columns if name not in ("", *doubled)}
    guesses |= {name: Guess(None, "a name that more than one column has") for name in doubled}
    if "" in table.columns:
        guesses[""] = Guess(None, "a column without a name")
    chosen = guesses[target]
    if chosen.keys is None:
        raise DataError(
            f"{source}: target {target!r}: found {chosen.why}; expected a class, two to {MANY} different values"
        )
    left_out = {name: found.why for name, found in guesses.items() if found.keys is None}
    nodes = {name: found for name, found in guesses.items() if found.keys is not None}
    children = [name for name in nodes if name != target]
    if not children:
        raise DataError(f"{source}: found no column that could be a child of {target!r}: {_reasons(left_out)}")
    head = [
        f"# A first graph of {_comment(source)}, {len(table)} rows. Types are guesses, edges only a place to start:",
        "# 1. Correct the types: continuous, count, binary, categorical (with levels).",
        "# 2. Turn the edges: an edge goes from cause to effect, and what causes the target is no child of it.",
        "# 3. Add what causes the children apart from the target (smoker -> radius), and edges among children.",
        "# 4. Take out what is neither. Then: pyro-cama check, pyro-cama draw.",
    ]
    lines = [*head, *_body(target, nodes, left_out, [(target, child) for child in children]), *_first_latents(nodes)]
    text = "\n".join(lines) + "\n"
    CausalGraph.from_yaml(text)
    return text, left_out


def typed_graph(
    table: pd.DataFrame, target: str, source: str, file: Path, orient: Iterable[str] = ()
) -> tuple[str, dict[str, str]]:
    """Writes the YAML of another tool's graph, with the types that the table's columns seem to have.

    Types and latents that the file has are kept.

    Args:
        table: a DataFrame, texts as in a CSV file or typed.
        target: the node to predict.
        source: the table's name, for the first comment.
        file: the graph's.
        orient: which way edges point that have no direction in the file.

    Returns:
        The text, and why columns are left out.

    Raises:
        GraphError: the graph is at fault, or has a node without type that is no column, or one without a type to guess.
    """
    raw, name = read_graph(file, target=target, data=table, orient=orient)
    graph = CausalGraph(raw)
    columns = {str(column): table.iloc[:, place] for place, column in enumerate(table.columns)}
    nodes = {}
    for node, keys in raw["nodes"].items():
        found = guess_named(node, columns[node], target) if node in columns else None
        guessed = found is not None and (found.keys or {}).items() <= dict(keys).items()
        nodes[node] = Guess(keys, found.why if found and guessed else f"as in {name}")
    left_out = {column: f"no node of {name}" for column in columns if column not in nodes}
    head = [
        f"# The graph of {_comment(name)}; types are guesses by {_comment(source)}, {len(table)} rows: correct them.",
        "# Then: pyro-cama check, pyro-cama draw.",
    ]
    latents = [f"latents: {on_one_line(raw['latents'])}"] if raw.get("latents") else _first_latents(nodes)
    text = "\n".join([*head, *_body(target, nodes, left_out, graph.edges), *latents]) + "\n"
    CausalGraph.from_yaml(text)
    return text, left_out


def _body(
    target: str, nodes: Mapping[str, Guess], left_out: Mapping[str, str], edges: Iterable[tuple[str, str]]
) -> list[str]:
    lines = [f"target: {on_one_line(target)}", "", "nodes:"]
    entries = {name: f"  {on_one_line(name)}: {on_one_line(found.keys)}" for name, found in nodes.items()}
    wide = min(60, max(map(len, entries.values())))
    lines += [f"{entry:<{wide}}  # {_comment(nodes[name].why)}" for name, entry in entries.items()]
    lines += [f"  # left out: {_comment(on_one_line(name))} ({_comment(why)})" for name, why in left_out.items()]
    return [*lines, "", "edges:", *(f"  - {_edge(cause, effect)}" for cause, effect in edges), ""]


def _first_latents(nodes: Mapping[str, Guess]) -> list[str]:
    lines = [
        "# z is the style that the children share, m what manipulates them. scope says where m lives: row (each row",
        "# its own way), dataset (one recalibrated instrument for all rows) or a column's name (each site its own).",
        "# effect auto: z acts linearly where it can be summed out exactly, in seconds; deep is the paper's network.",
        "latents:",
    ]
    z, m = (_free(name, nodes) for name in ("z", "m"))
    lines += (
        ["  z: {dim: 8, effect: auto}"]
        if z == "z"
        else [f"  {z}: {{dim: 8, effect: auto}}  # z is a column", "  z: null"]
    )
    manipulation = f"{m}: {{dim: 4, manipulation: true, scope: dataset}}"
    return lines + ([f"  {manipulation}"] if m == "m" else [f"  {manipulation}  # m is a column", "  m: null"])


def _free(name: str, taken: Mapping[str, Guess]) -> str:
    others = (f"latent_{name}{i or ''}" for i in range(len(taken) + 1))
    return name if name not in taken else next(other for other in others if other not in taken)


def _edge(cause: str, effect: str) -> str:
    arrow = f"{cause} -> {effect}"
    plain = [part.strip() for part in arrow.split("->")] == [cause, effect]
    return on_one_line(arrow if plain else [cause, effect])


def _comment(text: str) -> str:
    """Returns a text that stays on its line, without what YAML refuses even in a comment."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _reasons(left_out: Mapping[str, str]) -> str:
    said = [f"{name!r} is left out ({why})" for name, why in left_out.items()][:3]
    return "; ".join(said) or "there is no other column"
