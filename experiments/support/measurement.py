"""Rows of a random model over the graph "measurement", for the figures of the paper's section 4.2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

import pyro_cama
from pyro_cama import CAMA, CausalGraph, Shift, StructuralModel, datasets
from support.baselines import CVAE, DiscriminativeNet

GRAPH = datasets.graph("measurement")
# the graph is right, so the paper's own objective is: no conditional term
_FIT: dict[str, Any] = {"conditional_weight": 0.0, "batch_size": 256, "lr": 6e-3, "anneal": True}
FIT: dict[str, dict[str, Any]] = {
    "full": _FIT | {"max_epochs": 25},
    "quick": _FIT | {"max_epochs": 15},
    "smoke": _FIT | {"max_epochs": 1},
}
HIDDEN = 32
SCORE: dict[str, Any] = {"samples": 8, "m_samples": 2}  # draws of a prediction
SIZES = {"full": (8000, 800, 1000), "quick": (3000, 500, 1000), "smoke": (200, 40, 60)}  # train, adapt, test


@dataclass(frozen=True)
class Rows:
    """Training rows, and people to adapt on and to score, measured in ever other ways."""

    model: StructuralModel
    train: pd.DataFrame
    sizes: dict[str, int]

    def shifted(self, part: str, nodes: Sequence[str], by: float) -> pd.DataFrame:
        """The people of a part ("adapt" or "test"), `nodes` shifted by so many standard deviations.

        Under the graph's latent m a child's shift is one of its reading alone; a co-parent's takes its children along.
        """
        do = {name: Shift(offset=by) for name in nodes} if by else {}
        return self.model.sample(self.sizes[part], seed={"adapt": 2, "test": 3}[part], do=do)


def rows_of(seed: int, setting: str) -> Rows:
    """The rows of one random model."""
    train, adapt, test = SIZES[setting]
    model = StructuralModel(CausalGraph(GRAPH), seed)
    return Rows(model, model.sample(train, seed=1), {"adapt": adapt, "test": test})


def variant(graph: CausalGraph, scope: str, mechanism: str) -> CausalGraph:
    """The graph with another scope and mechanism of m."""
    raw = graph.to_dict()
    raw["latents"]["m"] |= {"scope": scope, "mechanism": mechanism}
    if mechanism == "concat":  # has no clean reading that other children could follow
        raw["latents"]["m"]["affects"] = "quantity"
    return CausalGraph(raw)


def adapt_options(setting: str) -> dict[str, Any]:
    """Options of `adapt` in a setting."""
    if setting == "smoke":
        return {"steps": 10, "restarts": 1, "folds": 2}
    return {"restarts": 2, "folds": 2, "samples": 2, "batch_size": 128, "steps": 60}


def fitted_cama(graph: CausalGraph, train: pd.DataFrame, seed: int, setting: str) -> CAMA:
    """The model of a graph, fitted as all figures fit it."""
    return pyro_cama.build(graph, seed=seed, hidden=HIDDEN).fit(train, progress=False, **FIT[setting])


def fitted_cvae(graph: CausalGraph, train: pd.DataFrame, seed: int, setting: str) -> CVAE:
    return CVAE(graph, seed, hidden=HIDDEN, **FIT[setting]).fit(train, "y")


def fitted_net(train: pd.DataFrame, seed: int, setting: str) -> DiscriminativeNet:
    return DiscriminativeNet(seed, **({"max_epochs": 5} if setting == "smoke" else {})).fit(train, "y")
