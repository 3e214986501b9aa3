"""Tests of conditional independence on rows: the G-test by strata, and the generalised covariance measure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyro_cama.data.batch import Batch
from pyro_cama.diagnosis.independence import Array
from pyro_cama.diagnosis.regression import LeaveOneOut
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.nodes import Node

_EFFECTIVE = 40.0  # products of residuals that carry the test; with fewer their mean is not normal
_EVEN_NORMAL = 1 / 3  # a normal's squared second moment over its fourth
_ROWS_PER_CELL = 5
FEWEST_ROWS = 50  # rows of a test


class IndependenceTester:
    """GCM tests between nodes of encoded rows; every node is prepared once."""

    def __init__(self, graph: CausalGraph, batch: Batch, ci_tests: Any) -> None:
        self._graph = graph
        self._gcm, self._g = ci_tests.GCM, ci_tests.GSq
        self._known = {name: observed_values(batch, name) for name in graph.order}
        self._values = {name: batch.values[name].numpy() for name in graph.order}
        self._tests: dict[bytes, tuple[Any, dict[str, list[str]], dict[str, list[str]]]] = {}

    def __call__(self, a: str, b: str, given: tuple[str, ...]) -> dict[str, Any]:
        """Tests a _||_ b | given.

        Returns:
            ``test``, ``rows``, ``statistic``, ``effect`` and ``p``; NaN where the rows do not allow a test.
        """
        mask = np.logical_and.reduce([self._known[name] for name in (a, b, *given)])
        rows = int(mask.sum())
        none: dict[str, Any] = {"test": "", "rows": rows, "statistic": np.nan, "effect": np.nan, "p": np.nan}
        if rows < FEWEST_ROWS:
            return none
        # residuals that are 0 throughout, where nodes determine each other, have no correlation
        with np.errstate(all="ignore"):
            if self._dense((a, b, *given), rows):
                return none | self._by_counts(mask, a, b, given)
            return none | self._by_residuals(mask, a, b, given)

    def _dense(self, names: tuple[str, ...], rows: int) -> bool:
        """Whether all nodes are discrete, with rows enough for each combination of their levels."""
        cells = np.prod([float(self._graph.nodes[name].classes) for name in names])
        return bool(0 < cells <= rows / _ROWS_PER_CELL)

    def _by_counts(self, mask: NDArray[np.bool_], a: str, b: str, given: tuple[str, ...]) -> dict[str, Any]:
        test = self._g(pd.DataFrame({name: self._values[name][mask] for name in (a, b, *given)}), use_cache=False)
        test.run_test(a, b, list(given))
        p = test.p_value_ if test.dof_ else np.nan  # without degrees of freedom nothing varies
        return {"test": "G", "statistic": test.statistic_, "effect": test.effect_size_, "p": p}

    def _by_residuals(self, mask: NDArray[np.bool_], a: str, b: str, given: tuple[str, ...]) -> dict[str, Any]:
        test, views, causes = self._prepared(mask)
        separators = [column for name in given for column in causes[name]]
        us, vs = ({c: _residual(test, c, separators) for c in views[name]} for name in (a, b))
        levels = bool(self._graph.nodes[a].levels), bool(self._graph.nodes[b].levels)
        best: dict[str, Any] = {"test": "GCM"}
        tried, smallest = 0, np.inf
        for u, left in us.items():
            for v, right in vs.items():
                if _effective(left, right, levels) >= _EFFECTIVE:
                    tried += 1
                    test.run_test(u, v, separators)
                    if test.p_value_ < smallest:
                        smallest = test.p_value_
                        best |= {"statistic": test.statistic_, "effect": test.effect_size_}
        return best | {"p": min(1.0, smallest * tried) if tried else np.nan}

    def _prepared(self, mask: NDArray[np.bool_]) -> tuple[Any, dict[str, list[str]], dict[str, list[str]]]:
        """Returns GCM on the rows of a mask, and the columns that each node is tested by and conditioned on."""
        key = mask.tobytes()
        if key not in self._tests:
            columns: dict[str, Any] = {}
            views: dict[str, list[str]] = {}
            causes: dict[str, list[str]] = {}
            for i, name in enumerate(self._graph.order):
                node, values = self._graph.nodes[name], self._values[name][mask]
                # numbered: pgmpy makes further columns of these names
                seen = {f"{i}.{j}": column for j, column in enumerate(_views(node, values))}
                own = {f"{i}:{j}": column for j, column in enumerate(_conditions(node, values))}
                views[name], causes[name] = list(seen), list(own)
                columns |= seen | own
            if len(self._tests) > 3:  # each holds a copy of the rows
                self._tests.clear()
            test = self._gcm(pd.DataFrame(columns), estimator=LeaveOneOut(), use_cache=False)
            self._tests[key] = (test, views, causes)
        return self._tests[key]


def _residual(test: Any, column: str, given: list[str]) -> Array:
    residual: Array = np.asarray(test.get_residuals(column, given)[0], dtype=np.float64)
    return residual


def _views(node: Node, values: NDArray[Any]) -> list[Array]:
    """Returns the columns that a node's dependence is sought by: each level, or normal scores and their size."""
    if node.levels:
        codes = values.round().astype(int)
        present = [code for code in range(node.classes) if (codes == code).any()]
        return [(codes == code).astype(float) for code in (present[1:] if len(present) < 3 else present)]
    scores = [_normal_scores(column) for column in values.reshape(len(values), -1).T]
    return [*scores, *(abs(column) for column in scores)]


def _conditions(node: Node, values: NDArray[Any]) -> list[Any]:
    """Returns the columns by which a node is conditioned on."""
    if node.levels:
        return [pd.Categorical(values.round().astype(int))]
    return [_normal_scores(column) for column in values.reshape(len(values), -1).T]


def _normal_scores(column: NDArray[Any]) -> Array:
    """Returns normal quantiles of the ranks, ties together: no outlier, and the same independences."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    scores: Array = ndtri(rankdata(column) / (len(column) + 1))
    return scores


def _effective(u: Array, v: Array, levels: tuple[bool, bool]) -> float:
    """Returns how many products of residuals carry their mean: all if they are even, few where rare levels meet.

    By the fourth moments, as independence has it, and of two levels also as it is: levels so rare that they should have
    met, and have not, leave no trace in the products.  A product of two normals counts in full, as its mean is normal
    from few rows on.

    Args:
        u, v: residuals.
        levels: whether each is a level's, not a number's.
    """

    def even(x: Array, of_level: bool = True) -> float:
        squares = x**2
        found = float(squares.mean() ** 2 / (squares**2).mean())
        return found if of_level else float(np.minimum(1.0, found / _EVEN_NORMAL))

    product = even(u, levels[0]) * even(v, levels[1])
    return len(u) * float(np.minimum(even(u * v), product) if all(levels) else product)


def observed_values(batch: Batch, name: str) -> NDArray[np.bool_]:
    """Returns which rows hold an entry of a node, ``(rows,)``."""
    mask = batch.observed.get(name)
    return np.ones(batch.rows, dtype=np.bool_) if mask is None else mask.cpu().numpy()
