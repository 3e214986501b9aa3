"""Does the graph fit the rows?  Its implied independences, its declared edges, and the fitted densities.

Three questions, kept apart:

- *Independences.* Two nodes that no edge joins are independent given some others (d-separation, Pearl 1988).  Each
  pair that observed nodes can separate is tested.  The style z causes its children, and can separate nothing since it
  is hidden.  One violated independence is a fault of the graph; the nodes that explain all of them are the suspects.
- *Edges.* A declared edge is seen if its two ends are dependent given the effect's other causes.  One that is not seen
  is no fault: a graph with an edge too many is still right.
- *Densities.* Rows simulated from the fitted model should look like the data.  A misfit here is the model's (train
  longer, another likelihood), not the graph's.

The first two need no trained model.  The tests are pgmpy's.  Where all nodes of a test are discrete, with five rows or
more for each combination of their levels, it is the G-test by strata.  Elsewhere it is the generalised covariance
measure (GCM; Shah and Peters, *The hardness of conditional independence testing and the generalised covariance
measure*, Annals of Statistics 2020): are the residuals of u and of v, each regressed on the separating nodes,
uncorrelated?  It holds its level for nonlinear relations and unequal variances, given regressions that are flexible and
out of sample; ours are kernel ridge with leave-one-out predictions
(:class:`~pyro_cama.diagnosis.regression.LeaveOneOut`).  A node enters as one column or several: numbers as their normal
scores and the distance of these from 0, which sees relations that are no trend, and levels as indicators.
The smallest p of all pairs of columns counts, times their number (Bonferroni); over all independences Holm's correction
bounds the chance of any false alarm by ``alpha``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from pyro_cama._arguments import expect, expect_whole, number, whole
from pyro_cama.bayes_nets import from_pgmpy
from pyro_cama.diagnosis.ci_tests import FEWEST_ROWS, IndependenceTester, observed_values
from pyro_cama.diagnosis.densities import check_densities
from pyro_cama.diagnosis.independence import by_suspect, find_suspects, holm_adjusted, separable
from pyro_cama.diagnosis.result import Diagnosis
from pyro_cama.diagnosis.wording import edge_verdict, node_table, verdict_sentence
from pyro_cama.errors import DataError
from pyro_cama.model.pair import ModelGuidePair

if TYPE_CHECKING:
    from pyro_cama.data.tables import Table


def diagnose(
    pair: ModelGuidePair,
    data: Table,
    *,
    alpha: float = 0.01,
    draws: int = 50,
    max_rows: int = 5000,
    seed: int = 0,
    progress: bool = True,
) -> Diagnosis:
    """Tests whether the graph, and the fitted densities, fit clean labelled rows.

    Args:
        pair: a model that has seen data; untrained (``fit(rows, max_epochs=0)``) will do with ``draws=0``.
        data: rows in raw units with the target; rows with a missing entry are left out of the tests that need it.
        alpha: the chance of any false alarm among the independences of a right graph.
        draws: simulated rows for each row in the check of the densities; 0 leaves it out.
        max_rows: of more rows, so many are picked at random; time grows with them.
        seed: of these draws, and of the rows picked.
        progress: show a bar if it takes more than two seconds.

    Returns:
        The :class:`Diagnosis`.

    Raises:
        DataError: the rows do not fit the graph, have no target column, or fewer than 50 labels.
        ImportError: pgmpy is not installed.
        ValueError: an argument is out of its range.

    What it cannot see: an edge too many; anything between two children of z, which nothing separates; dependence that
    leaves trend and spread alone; and with few rows, weak dependence.
    """
    expect("diagnose", "alpha", alpha, number(alpha) and 0 < alpha < 1, "a number above 0, less than 1")
    expect_whole("diagnose", "max_rows", max_rows, FEWEST_ROWS)
    expect("diagnose", "draws", draws, whole(draws, 20) or draws == 0, "0, or a whole number of at least 20")
    ci_tests = from_pgmpy("ci_tests", "diagnose")
    graph = pair.graph
    batch = pair.encode(data, target="use")
    if graph.target not in batch.values:
        raise DataError(f"target column {graph.target!r}: found none; expected one: diagnose needs labelled rows")
    if batch.rows > max_rows:
        picked = np.random.default_rng(seed).choice(batch.rows, max_rows, replace=False)
        batch = batch.select(torch.from_numpy(np.sort(picked)).to(pair.device))
    known = observed_values(batch, graph.target)
    if int(known.sum()) < FEWEST_ROWS:
        raise DataError(
            f"target column {graph.target!r}: found {int(known.sum())} labelled rows; expected at least {FEWEST_ROWS}"
        )
    tester = IndependenceTester(graph, batch.to("cpu"), ci_tests)
    pairs, untested = separable(graph)
    declared = [
        (a, b, tuple(c for c in graph.parents_of(b) if c != a)) for b in graph.order for a in graph.parents_of(b)
    ]
    plan = [(*pair, False) for pair in pairs] + [(*edge, True) for edge in declared]
    plan.sort(key=lambda test: test[2])  # tests with the same separating nodes share a regression
    rows = [
        {"from": a, "to": b, "declared": drawn, "given": given, **tester(a, b, given)}
        for a, b, given, drawn in tqdm(plan, desc="diagnose", delay=2, leave=False, disable=not progress)
    ]
    columns = ["from", "to", "declared", "given", "test", "rows", "statistic", "effect", "p"]
    edges = pd.DataFrame(rows, columns=columns).sort_values("declared", kind="stable", ignore_index=True)
    free = ~edges["declared"].to_numpy(dtype=bool)
    adjusted = edges["p"].to_numpy(dtype=float).copy()
    adjusted[free] = holm_adjusted(adjusted[free])
    edges["p_adjusted"] = adjusted
    rejected = edges[free & (adjusted < alpha)]
    suspects, blamed = find_suspects(graph, rejected)
    edges["verdict"] = [edge_verdict(i, row, alpha, blamed) for i, row in edges.iterrows()]
    fits = check_densities(pair, batch, draws, seed) if draws else {}
    return Diagnosis(
        node_table(graph, edges[free], rejected, suspects, fits),
        edges,
        suspects,
        alpha,
        untested,
        tuple(verdict_sentence(graph, name, rejected.loc[rows]) for name, rows in by_suspect(suspects, blamed).items()),
    )
