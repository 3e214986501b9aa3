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
out of sample; ours are kernel ridge with leave-one-out predictions (:class:`_LeaveOneOut`).  A node enters as one
column or several: numbers as their normal scores and the distance of these from 0, which sees relations that are no
trend, and levels as indicators.
The smallest p of all pairs of columns counts, times their number (Bonferroni); over all independences Holm's correction
bounds the chance of any false alarm by ``alpha``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import networkx as nx
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from pyro_cama.bayes_nets import from_pgmpy
from pyro_cama.data import Batch
from pyro_cama.elbo import intervene
from pyro_cama.engine import fast
from pyro_cama.errors import DataError, expect, number, whole
from pyro_cama.graph import CausalGraph, Node

if TYPE_CHECKING:
    from pyro_cama.cama import CAMA
    from pyro_cama.columns import Table

__all__ = ["Diagnosis", "diagnose"]

Array: TypeAlias = NDArray[np.float64]
Edge: TypeAlias = tuple[str, str]

_LANDMARKS = 100  # of each of the two kernels
_RIDGES = 10.0 ** np.arange(-3, 5)
_EFFECTIVE = 40.0  # products of residuals that carry the test; with fewer their mean is not normal
_ROWS_PER_CELL = 5
_FEWEST = 50  # rows of a test
_FEWEST_IN_CLASS = 25  # rows of a class whose density is compared
_MISFIT = 0.15  # distance between distributions that is taken for a misfit, beyond what chance explains


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What :func:`diagnose` found.  ``print`` it for a report in plain words.

    Attributes:
        nodes: a row a node of the target and its blanket, indexed by name.  ``role``; ``tests`` and ``violations``, the
            independences tested and rejected that it takes part in; ``figure``, the distance between its distribution
            in the data and under the model, 0 to 1, in the class ``worst`` (empty: all rows), and what is ``allowed``
            there (NaN where it was not looked at); ``verdict``.
        edges: a row a tested pair.  ``from``, ``to``, in topological order; ``declared``; ``given``, the names
            conditioned on; ``test``, GCM or G; ``rows`` without missing entries; ``statistic``, standard normal (GCM)
            or chi-squared (G) under independence; ``effect``, the residuals' correlation (GCM) or Cramer's V (G), 0 to
            1; ``p``; ``p_adjusted``, by Holm over all independences, of declared edges p itself; ``verdict``.  NaN
            where the rows say nothing.
        suspects: the few nodes that explain the rejected independences: those that depend on the target without an
            edge, then those with most of the remaining rejections.  A pair left alone names both its nodes.
        alpha: the level.
        untested: pairs without an edge that nothing observed separates.
    """

    nodes: pd.DataFrame
    edges: pd.DataFrame
    suspects: tuple[str, ...]
    alpha: float
    untested: tuple[Edge, ...] = ()
    _sentences: tuple[str, ...] = field(default=(), repr=False)

    @property
    def violations(self) -> pd.DataFrame:
        """The rows of ``edges`` whose independence is rejected, the clearest first."""
        rejected = self.edges[~self.edges["declared"] & (self.edges["p_adjusted"] < self.alpha)]
        return rejected.sort_values(["p", "effect"], ascending=[True, False])

    @property
    def misfits(self) -> tuple[str, ...]:
        """Nodes whose density is badly fitted."""
        return tuple(self.nodes.index[self.nodes["figure"] > self.nodes["allowed"]])

    def __str__(self) -> str:
        tested = int((~self.edges["declared"]).sum())
        head = f"{tested} implied independences tested, {len(self.violations)} rejected at level {self.alpha:g}"
        if self.untested:
            head += f" ({len(self.untested)} pairs without an edge cannot be tested)"
        lines = [head, *(self._sentences or ("No sign of a misdeclared edge.",))]
        unseen = self.edges[self.edges["declared"] & ~(self.edges["p"] < self.alpha)]
        if len(unseen):
            names = ", ".join(f"{a} -> {b}" for a, b in zip(unseen["from"], unseen["to"], strict=True))
            lines.append(f"Declared edges not seen in these rows (no fault): {names}.")
        for name in self.misfits:
            row = self.nodes.loc[name]
            where = f" in class {row['worst']}" if row["worst"] else ""
            lines.append(
                f"The density of {name} is badly fitted{where}: distance {row['figure']:.2f}, at most "
                f"{row['allowed']:.2f} expected; that is the model's fit, not the graph."
            )
        return "\n".join(lines)

    def plot(self, path: str | Path | None = None) -> Any:
        """The tested independences as a matrix of effects, rejected ones marked, and each node's fit beside it.

        Args:
            path: where to save it too.

        Returns:
            The matplotlib figure.

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("Diagnosis.plot needs matplotlib; run: pip install pyro_cama[demo]") from error
        names = list(self.nodes.index)
        at = {name: i for i, name in enumerate(names)}
        effects = np.full((len(names), len(names)), np.nan)
        tests = self.edges[~self.edges["declared"]]
        for a, b, effect in zip(tests["from"], tests["to"], tests["effect"], strict=True):
            effects[at[a], at[b]] = effects[at[b], at[a]] = effect
        size = max(3.6, 0.28 * len(names))
        looked = bool(self.nodes["figure"].notna().any())  # draws=0 does not look at densities
        figure = Figure(figsize=((1.7 if looked else 1.1) * size + 1, size + 0.8), layout="constrained")
        left, *others = figure.subplots(1, 2, width_ratios=(1.4, 1)) if looked else [figure.subplots()]
        shade = left.imshow(effects, cmap="Reds", vmin=0, vmax=0.5)
        figure.colorbar(shade, ax=left, label="effect (blank: not tested)", shrink=0.8)
        for a, b in zip(self.violations["from"], self.violations["to"], strict=True):
            left.plot([at[a], at[b]], [at[b], at[a]], "kx", markersize=5)
        left.set_xticks(range(len(names)), names, rotation=90)
        left.set_yticks(range(len(names)), names)
        for label in (*left.get_xticklabels(), *left.get_yticklabels()):
            if label.get_text() in self.suspects:
                label.set(color="red", fontweight="bold")
        left.set_title("implied independences (x: rejected)", fontsize="medium")
        for right in others:
            right.barh(names, self.nodes["figure"].fillna(0), color="tab:gray")
            right.plot(self.nodes["allowed"], names, "r|", markersize=9)
            right.invert_yaxis()
            right.set_xlabel("distance from the data")
            right.set_title("model's densities (|: allowed)", fontsize="medium")
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure


def diagnose(
    cama: CAMA,
    data: Table,
    *,
    alpha: float = 0.01,
    draws: int = 50,
    max_rows: int = 5000,
    seed: int = 0,
    progress: bool = True,
) -> Diagnosis:
    """Whether the graph, and the fitted densities, fit clean labelled rows.

    Args:
        cama: a model that has seen data; untrained (``fit(rows, max_epochs=0)``) will do with ``draws=0``.
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
    expect("diagnose", "max_rows", max_rows, whole(max_rows, _FEWEST), f"a whole number of at least {_FEWEST}")
    expect("diagnose", "draws", draws, whole(draws, 20) or draws == 0, "0, or a whole number of at least 20")
    ci_tests = from_pgmpy("ci_tests", "diagnose")
    graph = cama.graph
    batch = cama.encode(data, target="use")
    if graph.target not in batch.values:
        raise DataError(f"target column {graph.target!r}: found none; expected one: diagnose needs labelled rows")
    if batch.rows > max_rows:
        picked = np.random.default_rng(seed).choice(batch.rows, max_rows, replace=False)
        batch = batch.select(torch.from_numpy(np.sort(picked)).to(cama.device))
    known = _observed(batch, graph.target)
    if int(known.sum()) < _FEWEST:
        raise DataError(
            f"target column {graph.target!r}: found {int(known.sum())} labelled rows; expected at least {_FEWEST}"
        )
    tester = _Tester(graph, batch.to("cpu"), ci_tests)
    pairs, untested = _separable(graph)
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
    adjusted[free] = _holm(adjusted[free])
    edges["p_adjusted"] = adjusted
    rejected = edges[free & (adjusted < alpha)]
    suspects, blamed = _suspects(graph, rejected)
    edges["verdict"] = [_edge_verdict(i, row, alpha, blamed) for i, row in edges.iterrows()]
    fits = _densities(cama, batch, draws, seed) if draws else {}
    return Diagnosis(
        _nodes(graph, edges[free], rejected, suspects, fits),
        edges,
        suspects,
        alpha,
        untested,
        tuple(_sentence(graph, name, rejected.loc[rows]) for name, rows in _by_suspect(suspects, blamed).items()),
    )


# the graph's independences --------------------------------------------------------------------------------------------


def _dag(graph: CausalGraph) -> nx.DiGraph[str]:
    """The declared graph, with the style as a node of its own."""
    dag: nx.DiGraph[str] = nx.DiGraph(graph.edges)
    dag.add_nodes_from(graph.nodes)
    if graph.z is not None:
        dag.add_edges_from((graph.z.name, child) for child in graph.z.children)
    return dag


def _separable(graph: CausalGraph) -> tuple[list[tuple[str, str, tuple[str, ...]]], tuple[Edge, ...]]:
    """The pairs without an edge, each with the observed nodes that separate it; and those that none separate."""
    dag = _dag(graph)
    place = {name: i for i, name in enumerate(graph.order)}
    found, untested = [], []
    for i, a in enumerate(graph.order):
        for b in graph.order[i + 1 :]:
            if dag.has_edge(a, b):
                continue
            observed = set(graph.order) - {a, b}
            given = nx.find_minimal_d_separator(dag, a, b, restricted=observed)
            if given is None:
                untested.append((a, b))
            else:
                found.append((a, b, tuple(sorted(given, key=place.__getitem__))))
    return found, tuple(untested)


def _suspects(graph: CausalGraph, rejected: pd.DataFrame) -> tuple[tuple[str, ...], dict[int, tuple[str, ...]]]:
    """A few nodes that explain all rejected independences, and whom each of these is blamed on.

    A node that depends on the target with nothing given is declared in the wrong role, whatever else is rejected.  Of
    what this does not explain, the node with most rejections goes first.  A suspect explains the rejections that it
    takes part in, and those that follow: once each of its own pairs has a common cause, the graph implies them no more.
    """
    tests = {int(i): (a, b, given) for i, a, b, given in _pairs(rejected)}
    strength = dict(zip(rejected.index, rejected["effect"], strict=True))
    target = graph.target
    # given others, the fault may be theirs: a node declared a parent that is a child opens a path between two causes
    suspects = [a if b == target else b for a, b, given in tests.values() if target in (a, b) and not given]
    blamed: dict[int, tuple[str, ...]] = {}

    def settle() -> None:
        repaired = _dag(graph)
        for i, (a, b, _) in tests.items():
            if blame := tuple(name for name in (a, b) if name in suspects):
                blamed[i] = blame
                repaired.add_edges_from((f"{a} and {b}", name) for name in (a, b))
        for i, (a, b, given) in tests.items():
            if i not in blamed and not nx.is_d_separator(repaired, {a}, {b}, set(given)):
                blamed[i] = tuple(suspects)

    settle()
    while left := {i: pair for i, pair in tests.items() if i not in blamed}:
        score: dict[str, tuple[int, float]] = {}
        for i, (a, b, _) in left.items():
            for name in {a, b} - {target}:
                times, total = score.get(name, (0, 0.0))
                score[name] = (times + 1, total + strength[i])
        best = max(score, key=lambda name: (*score[name], name))
        alone = [name for name in next(iter(left.values()))[:2] if name != target]
        suspects += [best] if score[best][0] > 1 else alone  # either end of a pair by itself explains it
        settle()
    return tuple(name for name in graph.order if name in suspects), blamed


def _pairs(tests: pd.DataFrame) -> Iterator[tuple[Any, str, str, tuple[str, ...]]]:
    return zip(tests.index, tests["from"], tests["to"], tests["given"], strict=True)


def _by_suspect(suspects: tuple[str, ...], blamed: dict[int, tuple[str, ...]]) -> dict[str, list[int]]:
    """The rejected tests of each suspect; two that share a lone pair are reported once."""
    found: dict[str, list[int]] = {}
    told: set[int] = set()
    for name in suspects:
        tests = [i for i, names in blamed.items() if name in names]
        if set(tests) - told:
            found[name] = tests
            told |= set(tests)
    return found


# the tests ------------------------------------------------------------------------------------------------------------


class _Tester:
    """GCM tests between nodes of encoded rows; every node is prepared once."""

    def __init__(self, graph: CausalGraph, batch: Batch, ci_tests: Any) -> None:
        self._graph = graph
        self._gcm, self._g = ci_tests.GCM, ci_tests.GSq
        self._known = {name: _observed(batch, name) for name in graph.order}
        self._values = {name: batch.values[name].numpy() for name in graph.order}
        self._tests: dict[bytes, tuple[Any, dict[str, list[str]], dict[str, list[str]]]] = {}

    def __call__(self, a: str, b: str, given: tuple[str, ...]) -> dict[str, Any]:
        """Test, rows, statistic, effect and p of a _||_ b | given; NaN where the rows do not allow a test."""
        mask = np.logical_and.reduce([self._known[name] for name in (a, b, *given)])
        rows = int(mask.sum())
        none: dict[str, Any] = {"test": "", "rows": rows, "statistic": np.nan, "effect": np.nan, "p": np.nan}
        if rows < _FEWEST:
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
        best: dict[str, Any] = {"test": "GCM"}
        tried, smallest = 0, np.inf
        for u, left in us.items():
            for v, right in vs.items():
                if _effective(left, right) >= _EFFECTIVE:
                    tried += 1
                    test.run_test(u, v, separators)
                    if test.p_value_ < smallest:
                        smallest = test.p_value_
                        best |= {"statistic": test.statistic_, "effect": test.effect_size_}
        return best | {"p": min(1.0, smallest * tried) if tried else np.nan}

    def _prepared(self, mask: NDArray[np.bool_]) -> tuple[Any, dict[str, list[str]], dict[str, list[str]]]:
        """GCM on the rows of a mask, and the columns that each node is tested by and conditioned on."""
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
            test = self._gcm(pd.DataFrame(columns), estimator=_LeaveOneOut(), use_cache=False)
            self._tests[key] = (test, views, causes)
        return self._tests[key]


def _residual(test: Any, column: str, given: list[str]) -> Array:
    residual: Array = np.asarray(test.get_residuals(column, given)[0], dtype=np.float64)
    return residual


def _views(node: Node, values: NDArray[Any]) -> list[Array]:
    """The columns by which dependence on a node is sought: each level, or normal scores and their distance from 0."""
    if node.levels:
        codes = values.round().astype(int)
        present = [code for code in range(node.classes) if (codes == code).any()]
        return [(codes == code).astype(float) for code in (present[1:] if len(present) < 3 else present)]
    scores = [_normal_scores(column) for column in values.reshape(len(values), -1).T]
    return [*scores, *(abs(column) for column in scores)]


def _conditions(node: Node, values: NDArray[Any]) -> list[Any]:
    """The columns by which a node is conditioned on."""
    if node.levels:
        return [pd.Categorical(values.round().astype(int))]
    return [_normal_scores(column) for column in values.reshape(len(values), -1).T]


def _normal_scores(column: NDArray[Any]) -> Array:
    """Normal quantiles of the ranks, ties together: no outlier, and the same independences."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    scores: Array = ndtri(rankdata(column) / (len(column) + 1))
    return scores


def _effective(u: Array, v: Array) -> float:
    """How many products of residuals carry their mean: all if they are even, few where rare levels meet.

    By the fourth moment, as it is and as independence has it: levels so rare that they should have met, and have not,
    leave no trace in the products.
    """

    def even(x: Array) -> float:
        squares = x**2
        return float(squares.mean() ** 2 / (squares**2).mean())

    return len(u) * min(even(u * v), even(u) * even(v))


class _LeaveOneOut:
    """A regressor whose predictions for its own rows are leave-one-out: splines and kernels, ridge, in closed form.

    The ridge is chosen by the leave-one-out error.  Residuals that are out of sample are what keeps a GCM test with
    flexible regressions at its level.  One object serves all of pgmpy's calls, and remembers them: a node is regressed
    on the same others again and again.
    """

    def __init__(self) -> None:
        self._key: tuple[str, ...] = ()
        self._basis: tuple[Array, Array] | None = None
        self._known: dict[tuple[tuple[str, ...], str], Array] = {}
        self._last: tuple[tuple[str, ...], str] = ((), "")

    def __sklearn_clone__(self) -> _LeaveOneOut:
        return self

    def fit(self, z: pd.DataFrame, y: pd.Series[Any]) -> _LeaveOneOut:
        """Regresses y (rows,) on z (rows, columns), and keeps the predictions."""
        key = tuple(map(str, z.columns))
        self._last = key, str(y.name)
        if self._last not in self._known:
            if key != self._key or self._basis is None:
                self._key, self._basis = key, _basis(z)
            self._known[self._last] = _predicted(*self._basis, y.to_numpy(dtype=float))
        return self

    def predict(self, z: pd.DataFrame) -> Array:
        """The predictions of the last fit, of each row by all others, (rows,)."""
        return self._known[self._last]


def _basis(z: pd.DataFrame) -> tuple[Array, Array]:
    """Orthogonal features of z, (rows, features), and their variances; the intercept is centred away."""
    from sklearn.kernel_approximation import Nystroem
    from sklearn.preprocessing import SplineTransformer

    varied = z.loc[:, z.nunique() > 1]
    flags = [column for column in varied if varied[column].dtype == bool]
    numbers = varied.drop(columns=flags).to_numpy(dtype=float)
    indicators = varied[flags].to_numpy(dtype=float)
    blocks = [indicators, numbers]
    if numbers.shape[1]:
        blocks.append(SplineTransformer(n_knots=6, include_bias=False).fit_transform(numbers))
    width = numbers.shape[1] + len(flags) / 2
    if varied.shape[1] - bool(flags) > 0:  # more than one discrete node, or any number: relations that are no sum
        both = np.concatenate([indicators * np.sqrt(2), numbers], 1)
        landmarks = min(_LANDMARKS, len(z) // 10)
        blocks += [
            Nystroem(gamma=gamma / width, n_components=landmarks, random_state=0).fit_transform(both)
            for gamma in (0.15, 0.6)
        ]
    features = np.concatenate(blocks, 1)
    features = features - features.mean(0)
    variances, axes = np.linalg.eigh(features.T @ features)
    kept = variances > 1e-9 * max(float(variances.max(initial=0.0)), 1e-9)
    return features @ axes[:, kept], variances[kept]


def _predicted(features: Array, variances: Array, y: Array) -> Array:
    """Leave-one-out predictions (rows,) of y by ridge on orthogonal features: y - residual / (1 - leverage)."""
    n = len(y)
    centred = y - y.mean()
    weights = features.T @ centred
    best, error = centred, np.inf
    for ridge in _RIDGES:
        residual = centred - features @ (weights / (variances + ridge))
        leverage = 1 / n + (features**2) @ (1 / (variances + ridge))
        residual = residual / np.maximum(1 - leverage, 1e-3)
        if (squared := float(residual @ residual)) < error:
            best, error = residual, squared
    predicted: Array = y - best
    return predicted


def _observed(batch: Batch, name: str) -> NDArray[np.bool_]:
    """Which rows hold an entry of a node, (rows,)."""
    mask = batch.observed.get(name)
    return np.ones(batch.rows, dtype=np.bool_) if mask is None else mask.cpu().numpy()


def _holm(p: Array) -> Array:
    """p-values adjusted by Holm's step-down method; NaN are no tests."""
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted


# the densities --------------------------------------------------------------------------------------------------------


def _densities(cama: CAMA, batch: Batch, draws: int, seed: int) -> dict[str, tuple[float, float, str]]:
    """Of every node the distance from the model's distribution, what is allowed, and the class where it is worst.

    Children are simulated given the rows' label, parents and co-parents, z drawn anew, and compared class by class; all
    other nodes are simulated from the model alone.
    """
    graph = cama.graph
    labelled = batch.select(torch.from_numpy(_observed(batch, graph.target)).to(cama.device).nonzero()[:, 0])
    program = intervene(cama.model, cama._do(cama._clean()))
    children = graph.blanket.children
    codes = labelled.values[graph.target].cpu().numpy().round().astype(int)
    classes: list[tuple[str, NDArray[np.bool_]]] = [
        (str(level), codes == code)
        for code, level in enumerate(cama.classes)
        if (codes == code).sum() >= _FEWEST_IN_CLASS
    ]
    everything: list[tuple[str, NDArray[np.bool_]]] = [("", np.ones(len(codes), dtype=bool))]
    rng = np.random.default_rng(seed)
    given = labelled.without(*children)
    with torch.no_grad(), fast(), cama._seeded(seed):
        parts = [program(given, samples=min(10, draws - done)) for done in range(0, draws, 10)]  # bounds the memory
        alone = program(rows=labelled.rows, samples=1)
    found = {}
    for name in graph.order:
        node, real = graph.nodes[name], labelled.values[name].cpu()
        values = [part[name] for part in parts] if name in children else [alone[name]]
        simulated = torch.cat([_spread(value, real) for value in values]).cpu()
        known = _observed(labelled, name)
        scored = []
        for level, rows in classes if name in children else everything:
            if (chosen := rows & known).sum() >= _FEWEST_IN_CLASS:
                distance, allowed = _distance(node, real[chosen].numpy(), simulated[:, chosen].numpy(), rng)
                scored.append((distance, allowed, level))
        if scored:
            found[name] = max(scored, key=lambda score: score[0] - score[1])
    return found


def _spread(value: Tensor, like: Tensor) -> Tensor:
    """A simulated value as (draws, rows, ...)."""
    event = like.shape[1:]
    return value.expand(*torch.broadcast_shapes(value.shape, (1, 1, *like.shape))).reshape(-1, len(like), *event)


def _distance(node: Node, real: NDArray[Any], simulated: NDArray[Any], rng: np.random.Generator) -> tuple[float, float]:
    """Distance of rows from draws for each (draws, rows, ...), and how much of it is allowed.

    Levels: total variation.  Numbers: Kolmogorov's, of the ranks of the rows among their own draws from uniform (of the
    rows from all draws, where there is one draw a row), the worst component's.  Allowed is 0.15 beyond what about one
    right model in a hundred exceeds by chance.
    """
    n = len(real)
    if node.levels:
        shares = [
            np.bincount(values.ravel().round().astype(int), minlength=node.classes) for values in (real, simulated)
        ]
        distance = abs(shares[0] / n - shares[1] / simulated.size).sum() / 2
        return float(distance), _MISFIT + (0.4 * np.sqrt(node.classes - 1) + 1.2) / np.sqrt(n)
    flat, draws = real.reshape(n, -1), simulated.reshape(len(simulated), n, -1)
    chance = 1.63 / np.sqrt(n)
    worst = 0.0
    for real_part, drawn in zip(flat.T, np.moveaxis(draws, -1, 0), strict=True):
        if len(drawn) == 1:
            pool = np.sort(drawn[0])
            below, upto = (np.searchsorted(pool, real_part, side) for side in ("left", "right"))
            total = len(pool)
        else:
            below, upto = (drawn < real_part).sum(0), (drawn <= real_part).sum(0)
            total = len(drawn)
        ranks = np.sort((below + (upto - below + 1) * rng.uniform(size=n)) / (total + 1))
        grid = np.arange(1, n + 1) / n
        worst = max(worst, float(np.maximum(grid - ranks, ranks - grid + 1 / n).max()))
    return worst, _MISFIT + chance * (np.sqrt(2) if len(draws) == 1 else 1)


# words ----------------------------------------------------------------------------------------------------------------


def _nodes(
    graph: CausalGraph,
    tests: pd.DataFrame,
    rejected: pd.DataFrame,
    suspects: tuple[str, ...],
    fits: dict[str, tuple[float, float, str]],
) -> pd.DataFrame:
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


def _edge_verdict(index: Any, row: pd.Series[Any], alpha: float, blamed: dict[int, tuple[str, ...]]) -> str:
    if np.isnan(row["p"]):
        return "not testable in these rows"
    if row["declared"]:
        return "seen" if row["p"] < alpha else "not seen in these rows"
    if index not in blamed:
        return "independent, as declared"
    mine = [name for name in blamed[index] if name in (row["from"], row["to"])]
    return f"dependent, against the graph: {' or '.join(mine) or 'follows from the suspects'}"


def _sentence(graph: CausalGraph, name: str, rejected: pd.DataFrame) -> str:
    """What is wrong with a suspect, and what it may mean."""
    mine = rejected[(rejected["from"] == name) | (rejected["to"] == name)]
    mine = mine.sort_values(["p", "effect"], ascending=[True, False])
    others = [b if a == name else a for _, a, b, _ in _pairs(mine)]
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
