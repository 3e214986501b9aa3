"""The verdicts of a diagnosis in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pyro_cama.diagnosis.independence import implied_pairs
from pyro_cama.graph.causal_graph import CausalGraph


def node_table(
    graph: CausalGraph,
    tests: pd.DataFrame,
    rejected: pd.DataFrame,
    suspects: tuple[str, ...],
    fits: dict[str, tuple[float, float, str]],
) -> pd.DataFrame:
    """Returns a row a node, as :attr:`Diagnosis.nodes` has it.

    Args:
        graph: whose nodes these are.
        tests, rejected: all tested independences, and those rejected among them.
        suspects: nodes that explain the rejections.
        fits: by node, what :func:`~pyro_cama.diagnosis.densities.check_densities` returns.
    """
    rows = []
    for name in graph.order:
        figure, allowed, worst = fits.get(name, (np.nan, np.nan, ""))
        faults = ["looks misdeclared"] if name in suspects else []
        faults += ["density badly fitted"] if figure > allowed else []
        rows.append(
            {
                "role": _role(graph, name),
                "tests": int(((tests["from"] == name) | (tests["to"] == name)).sum()),
                "violations": int(((rejected["from"] == name) | (rejected["to"] == name)).sum()),
                "figure": figure,
                "allowed": allowed,
                "worst": worst,
                "verdict": "; ".join(faults) or "no objection",
            }
        )
    return pd.DataFrame(rows, index=pd.Index(graph.order, name="node"))


def _role(graph: CausalGraph, name: str) -> str:
    roles = (("target", (graph.target,)), ("parent", graph.blanket.parents), ("child", graph.blanket.children))
    named = [role for role, names in (*roles, ("co-parent", graph.blanket.coparents)) if name in names]
    return " and ".join(named)


def edge_verdict(index: Any, row: pd.Series[Any], alpha: float, blamed: dict[int, tuple[str, ...]]) -> str:
    """Returns what a test says about a pair of nodes, in a few words.

    Args:
        index, row: of the test in :attr:`Diagnosis.edges`.
        alpha: the level of the tests.
        blamed: by rejected test, the suspects that explain it.
    """
    if np.isnan(row["p"]):
        return "not testable in these rows"
    if row["declared"]:
        return "seen" if row["p"] < alpha else "not seen in these rows"
    if index not in blamed:
        return "independent, as declared"
    mine = [name for name in blamed[index] if name in (row["from"], row["to"])]
    return f"dependent, against the graph: {' or '.join(mine) or 'follows from the suspects'}"


def verdict_sentence(graph: CausalGraph, name: str, rejected: pd.DataFrame) -> str:
    """Says what is wrong with a suspect, and what it may mean."""
    mine = rejected[(rejected["from"] == name) | (rejected["to"] == name)]
    mine = mine.sort_values(["p", "effect"], ascending=[True, False])
    others = [b if a == name else a for _, a, b, _ in implied_pairs(mine)]
    target = graph.target
    strongest = mine.iloc[others.index(target) if target in others else 0]
    figures = f"({_p_text(strongest['p_adjusted'])}, effect {strongest['effect']:.2f})"
    role = _role(graph, name)
    said = f"{name} is declared a {role}, yet depends on "
    if target in others:
        return f"{said}{target} {figures}: is it a child of {target}? An edge {target} -> {name} is missing."
    if len(others) == 1:
        given = f" given {', '.join(strongest['given'])}" if strongest["given"] else ""
        return f"{name} depends on {others[0]}{given} {figures}: an edge between the two is missing, or a common cause."
    listed = ", ".join(others[:4]) + (f" and {len(others) - 4} more" if len(others) > 4 else "")
    hint = {"parent": f"is it a child of {target}?", "child": f"is it a parent of {target}, or caused by these?"}
    return f"{said}{listed}, which the graph rules out {figures}: {hint.get(role, 'are edges to these missing?')}"


def _p_text(p: float) -> str:
    return "p < 1e-12" if p < 1e-12 else f"p = {p:.2g}"
