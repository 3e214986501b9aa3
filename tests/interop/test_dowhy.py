"""The model as DoWhy's: its draws, counterfactuals, attributions and falsification; and graphs of DoWhy's models."""

from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

import pyro_cama
from pyro_cama import CAMA, GraphError

gcm: Any = pytest.importorskip("dowhy.gcm")
pytestmark = pytest.mark.filterwarnings("ignore")

NODES: dict[str, Any] = {
    "y": {"type": "categorical", "levels": ["ill", "well"]}, "c": "continuous", "x": "continuous", "w": "continuous"
}  # fmt: skip
EDGES = ["y -> x", "y -> w", "c -> x", "x -> w"]
LINEAR: dict[str, Any] = {"dim": 2, "effect": "linear"}
SHARED: dict[str, Any] = {"m": {"scope": "dataset"}}


def world(rows: int, seed: int, *, offset: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y, (c, own, last) = rng.integers(0, 2, rows), rng.normal(size=(3, rows))
    x = 3.0 * y + c + own
    w = 0.8 * x - 2.0 * y + 0.5 * last + offset
    return pd.DataFrame({"y": np.where(y, "well", "ill"), "c": c, "x": x, "w": w})


def fitted(z: dict[str, Any] | None, nodes: dict[str, Any] = NODES, **options: Any) -> CAMA:
    graph = {"target": "y", "nodes": nodes, "edges": EDGES, "latents": {"z": z, **SHARED}}
    rows = world(400, 1)
    if nodes["x"] == "count":
        rows["x"] = np.random.default_rng(0).poisson(3 + 4 * (rows["y"] == "well"))
    return pyro_cama.build(graph, hidden=8, device="cpu").fit(rows, lr=1e-2, progress=False, **options)


@pytest.fixture(scope="module")
def cama() -> CAMA:
    return fitted(None, max_epochs=30)


@pytest.fixture(autouse=True)
def quiet() -> None:
    gcm.config.disable_progress_bars()
    gcm.config.set_default_n_jobs(1)
    np.random.seed(0)


@pytest.mark.parametrize(
    "z", [None, {"dim": 2, "effect": "linear"}, {"dim": 2, "effect": "linear", "loadings": "class"}]
)
def test_draws_are_the_models(z: dict[str, Any] | None) -> None:
    cama = fitted(z, max_epochs=10)
    model = cama.to_dowhy()
    assert type(model) is gcm.InvertibleStructuralCausalModel
    found, expected = gcm.draw_samples(model, 4000), cama.sample(4000)
    np.testing.assert_allclose((found["y"] == "well").mean(), (expected["y"] == "well").mean(), atol=0.04)
    for name in ("c", "x"):  # w has two causes that z would connect
        for figure in ("mean", "std"):
            np.testing.assert_allclose(getattr(found[name], figure)(), getattr(expected[name], figure)(), atol=0.12)


def test_a_counterfactual_keeps_the_noise(cama: CAMA) -> None:
    rows = world(20, 3)
    found = gcm.counterfactual_samples(cama.to_dowhy(), {"x": lambda x: x + 1.0}, observed_data=rows)
    same = gcm.counterfactual_samples(cama.to_dowhy(), {"c": lambda c: c}, observed_data=rows)
    pd.testing.assert_frame_equal(same[["c", "x", "w"]], rows[["c", "x", "w"]], atol=1e-4, check_dtype=False)
    assert np.sqrt(np.mean((found["w"] - rows["w"] - 0.8) ** 2)) < 0.25


def test_what_moved_is_attributed_to_the_instrument(cama: CAMA) -> None:
    moved = cama.copy()
    m = torch.tensor([1.0, 0.0, 0.0, 0.0])
    group = moved.model.group_of["w"]
    theta = torch.zeros(1, moved.manipulation.size)
    at = moved.manipulation.slice_of(group).start
    theta[0, at + 1] = 3.0 / float(moved.encoder.statistics["w"]["sd"])
    moved.manipulation.solve_for(m[None], theta)
    found = gcm.distribution_change_of_graphs(
        cama.to_dowhy(), moved.to_dowhy(do={"m": m}), "w", num_samples=300,
        difference_estimation_func=lambda old, new: float(np.mean(new) - np.mean(old)),
    )  # fmt: skip
    assert found["w"] == pytest.approx(3.0, abs=0.4)
    assert all(abs(found[name]) < 0.4 for name in ("y", "c", "x"))


def test_falsification_and_anomalies_run(cama: CAMA) -> None:
    model, rows = cama.to_dowhy(), world(120, 3)
    found = gcm.falsify.falsify_graph(model.graph, rows, n_permutations=3, n_jobs=1, show_progress_bar=False)
    assert found is not None
    odd = rows[:1].assign(w=rows["w"] + 30.0)
    blamed = gcm.attribute_anomalies(model, "w", odd, num_distribution_samples=100)
    assert max(blamed, key=lambda name: float(blamed[name][0])) == "w"


@pytest.mark.parametrize(
    ("z", "nodes", "kind"),
    [
        ({"dim": 1, "effect": "deep"}, NODES, "ProbabilisticCausalModel"),
        (None, NODES | {"x": "count"}, "ProbabilisticCausalModel"),
    ],
)
def test_what_has_no_noise_of_its_own_is_drawn(z: dict[str, Any] | None, nodes: dict[str, Any], kind: str) -> None:
    cama = fitted(z, nodes, max_epochs=2)
    model = cama.to_dowhy()
    assert type(model).__name__ == kind
    drawn = gcm.interventional_samples(model, {"c": lambda c: 0.0}, num_samples_to_draw=50)
    assert drawn[["x", "w"]].notna().all(axis=None)


def test_fit_says_that_it_changes_nothing(cama: CAMA) -> None:
    model, rows = cama.to_dowhy(), world(50, 1)
    with pytest.warns(UserWarning, match="stays as CAMA fitted it"):
        gcm.fit(model, rows)
    assert len(gcm.draw_samples(model, 5)) == 5


def test_what_cannot_be_handed_over_is_refused() -> None:
    graph = {"target": "y", "nodes": {"y": "binary", "v": {"type": "continuous", "dim": 2}}, "edges": ["y -> v"]}
    with pytest.raises(GraphError, match="vectors or images, 'v'"):
        pyro_cama.build(graph, device="cpu").to_dowhy()
    raw = {
        "target": "y",
        "nodes": {"y": "binary", "x": "continuous"},
        "edges": ["y -> x"],
        "latents": {"m": {"scope": "row"}},
    }
    rows = pd.DataFrame({"y": [0, 1] * 20, "x": np.arange(40) % 7})
    cama = pyro_cama.build(raw, hidden=4, device="cpu").fit(rows, max_epochs=1, progress=False)
    assert len(gcm.draw_samples(cama.to_dowhy(), 3)) == 3, "do(m=0)"
    with pytest.raises(ValueError, match="an m of every row"):
        cama.to_dowhy(do=None)


def test_graphs_of_dowhys_models() -> None:
    from dowhy import CausalModel

    rows = world(50, 1)
    drawn = nx.DiGraph([("y", "x"), ("y", "w"), ("c", "x"), ("x", "w")])
    for model in (gcm.StructuralCausalModel(drawn).graph, CausalModel(rows, "x", "w", graph=drawn)._graph._graph):
        graph = pyro_cama.CausalGraph(model, target="y", data=rows)
        assert graph.blanket.children == ("x", "w")
        assert graph.blanket.coparents == ("c",)
    back = pyro_cama.CausalGraph(fitted(None, max_epochs=1).to_dowhy().graph, target="y", data=rows)
    assert set(back.edges) == set(graph.edges)
