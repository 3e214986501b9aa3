"""Rows that the model draws: of the clean world until it is adapted, of the one it was adapted to after."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_cama import CAMA, build, load, simulate
from pyro_cama.diagnosis.densities import check_densities
from pyro_cama.handlers.interventions import intervene
from pyro_cama.inference.do import clean_do, encode_do
from pyro_cama.inference.world import draw_m, remember_world
from pyro_cama.model.posteriors import WORLD, RowPosterior, SharedPosterior
from tests.helpers.random_graphs import any_encoder, small, specs

COLUMNS = [f"x{i}" for i in range(4)]
QUICK: dict[str, Any] = {"progress": False}


def rows(number: int, seed: int, **shifts: float) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 2, number)
    x = {name: 9.25 + 1.5 * y + generator.normal(size=number) + shifts.get(name, 0.0) for name in COLUMNS}
    return pd.DataFrame({"y": y, **x, "site": generator.choice(["a", "b", "c"], number)})


def graph(scope: str) -> dict[str, Any]:
    nodes = {"y": "binary", **dict.fromkeys(COLUMNS, "continuous")}
    latents = {"m": {"scope": scope, "dim": 4}, "z": {"dim": 2}}
    return {"target": "y", "nodes": nodes, "edges": [["y", name] for name in COLUMNS], "latents": latents}


@functools.cache
def fitted(scope: str, epochs: int = 2) -> CAMA:
    return build(graph(scope), seed=0, hidden=16, device="cpu").fit(rows(300, 1), max_epochs=epochs, lr=1e-2, **QUICK)


SCOPES = ["row", "dataset", "site"]


@pytest.mark.parametrize("scope", SCOPES)
def test_rows_are_of_the_clean_world_until_the_model_is_adapted(scope: str) -> None:
    cama = fitted(scope)
    found = cama.sample(50)
    pd.testing.assert_frame_equal(found, cama.sample(50, do={"m": 0.0}))
    pd.testing.assert_frame_equal(found, cama.sample(50, do={}))
    prior = cama.sample(50, do=None)
    assert not np.allclose(found[COLUMNS], prior[COLUMNS])
    assert ("site" in found) == (scope == "site")
    kept = cama.sample(50, do={"x1": 4.0})
    np.testing.assert_allclose(kept["x1"], 4.0, rtol=1e-5)
    pd.testing.assert_frame_equal(kept.drop(columns="x1"), found.drop(columns="x1"))


def test_trained_on_interventions_and_never_adapted_the_world_is_clean() -> None:
    cama = build(graph("row"), seed=0, hidden=16, device="cpu").fit(rows(200, 1), None, 1.0, max_epochs=2, **QUICK)
    assert cama.m_trained
    pd.testing.assert_frame_equal(cama.sample(50), cama.sample(50, do={"m": 0.0}))


def test_rows_spread_as_the_training_rows_do() -> None:
    train = rows(300, 1)
    found = fitted("dataset", epochs=60).sample(4000)
    assert ((found[COLUMNS].std() / train[COLUMNS].std()).sub(1).abs() < 0.12).all()
    assert ((found[COLUMNS].mean() - train[COLUMNS].mean()).abs() < 0.2).all()


@pytest.mark.parametrize("scope", SCOPES)
def test_rows_of_an_adapted_copy_are_of_the_new_world(scope: str, tmp_path: Path) -> None:
    cama = fitted(scope, epochs=60)
    new = rows(300, 2, x0=3.0, x1=-4.0).drop(columns="y")
    new["site"] = "d"
    adapted = cama.adapt(new, steps=60, restarts=1, folds=1, keep="always", **QUICK)
    found = adapted.sample(4000)
    near = 1.0 if scope == "row" else 0.5  # of shifts by 3 and -4; in scope row part of a shift is taken for noise
    assert ((found[COLUMNS].mean() - new[COLUMNS].mean()).abs() < near).all()
    assert ((found[COLUMNS].std() / new[COLUMNS].std()).sub(1).abs() < near).all()
    assert scope != "site" or set(found["site"]) == {"d"}
    clean = adapted.sample(4000, do={"m": 0.0})
    assert ((clean[COLUMNS].mean() - rows(300, 1)[COLUMNS].mean()).abs() < 0.3).all()
    held = adapted.sample(4000, do={"x2": 0.0})
    assert (held["x0"] == found["x0"]).all()
    adapted.save(tmp_path / "model")
    for twin in (adapted.copy(), load(tmp_path / "model", device="cpu")):
        pd.testing.assert_frame_equal(twin.sample(20), adapted.sample(20))


def test_an_m_of_every_row_is_drawn_from_the_aggregate_of_the_rows() -> None:
    cama = fitted("row").copy()
    new = cama.encode(rows(3000, 2), target="ignore")
    cama.trained = frozenset({"m"})
    remember_world(cama, new)
    with torch.no_grad(), cama.seeded(1):
        q: Any = cama.guide.m_dist(new)
        drawn = draw_m(cama, 20_000)["m"]
    assert isinstance(cama.guide.m_posterior, RowPosterior)
    assert len(drawn.unique(dim=0)) == WORLD
    variance = q.variance.mean(0) + q.mean.var(0)
    assert ((drawn.mean(0) - q.mean.mean(0)).abs() < 5 * (variance / WORLD).sqrt()).all()
    torch.testing.assert_close(drawn.var(0), variance, rtol=0.35, atol=0.0)
    # few rows stand for themselves, several times
    remember_world(cama, new.select(torch.arange(3)))
    assert len(draw_m(cama, 5000)["m"].unique(dim=0)) == WORLD


def shifted(cama: CAMA, m: torch.Tensor, theta: torch.Tensor) -> None:
    """A shared m at values with the thetas given, exactly."""
    posterior = cama.guide.m_posterior
    assert isinstance(posterior, SharedPosterior)
    with torch.no_grad():
        posterior.loc.copy_(m)
        posterior.raw_scale.fill_(-20.0)
        cama.manipulation.solve_for(m, theta)
    cama.trained = frozenset(cama.moving)


def test_sites_come_as_often_as_in_the_rows_adapted_to_and_each_with_its_m() -> None:
    cama = fitted("site").copy()
    assert cama.encoder.sites == ("a", "b", "c")
    offsets = torch.zeros(3, cama.manipulation.size).reshape(3, 4, 4)
    offsets[0, :, 1], offsets[1, :, 1], offsets[2, :, 1] = 10.0, 20.0, 30.0
    shifted(cama, torch.eye(3, 4), offsets.flatten(1))
    new = rows(400, 3).assign(site=["a"] * 300 + ["b"] * 100)
    remember_world(cama, cama.encode(new, target="ignore"))
    found, clean = cama.sample(2000), cama.sample(2000, do={"m": 0.0})
    assert set(found["site"]) == {"a", "b"}
    assert (found["site"] == "a").mean() == pytest.approx(0.75, abs=0.05)
    pd.testing.assert_series_equal(found["site"], clean["site"])
    sd = cama.encoder.statistics["x0"]["sd"].item()
    moved = (found["x0"] - clean["x0"]) / sd
    np.testing.assert_allclose(moved, found["site"].map({"a": 10.0, "b": 20.0}).to_numpy(), atol=1e-3)
    # every known site alike before anything is known of them
    assert set(fitted("site").sample(200)["site"]) == {"a", "b", "c"}
    given = fitted("site").sample(200, do={"m": torch.eye(3, 4)})
    assert set(given["site"]) == {"a", "b", "c"}


def test_a_scope_that_is_a_node_is_drawn_with_its_m() -> None:
    spec = {
        "target": "y",
        "nodes": {"ward": {"type": "categorical", "levels": ["n", "s"]}, "y": "binary", "x": "continuous"},
        "edges": ["y -> x", "ward -> x"],
        "latents": {"m": {"scope": "ward", "dim": 2}},
    }
    table = rows(200, 1)
    table = pd.DataFrame({"y": table["y"], "x": table["x0"], "ward": np.where(table["x1"] > 10, "n", "s")})
    cama = build(spec, seed=0, hidden=8, device="cpu").fit(table, max_epochs=2, **QUICK)
    shifted(cama, torch.eye(2), torch.tensor([[0.0, 50.0, 0.0, 0.0], [0.0, -50.0, 0.0, 0.0]]))
    remember_world(cama, cama.encode(table, target="ignore"))
    found = cama.sample(300)
    assert list(found) == list(cama.graph.order)
    assert ((found["x"] > found["x"].median()) == (found["ward"] == "n")).mean() > 0.9
    held = cama.sample(300, do={"ward": "s"})
    assert set(held["ward"]) == {"s"}
    assert held["x"].max() < found["x"].max() - 50


def test_the_density_is_the_calibrated_one_and_prediction_does_not_see_it() -> None:
    cama, batch = fitted("dataset").copy(), rows(300, 1)
    cama.manipulation.calibration.zero_()
    plain, predicted = cama.sample(500), cama.predict_proba(batch)
    cama.manipulation.calibration.copy_(torch.tensor([0.5, 0.25, 0.0, 0.0]).repeat(4))
    found = cama.sample(500)
    pd.testing.assert_series_equal(found["y"], plain["y"])
    gain = float(torch.exp(20 * torch.tanh(torch.tensor(0.5 / 20))))
    for name in COLUMNS:
        mean, sd = (cama.encoder.statistics[name][key].item() for key in ("mean", "sd"))
        np.testing.assert_allclose(found[name], mean + gain * (plain[name] - mean) + 0.25 * sd, rtol=1e-4)
    np.testing.assert_array_equal(cama.predict_proba(batch), predicted)


def test_diagnose_compares_with_the_calibrated_density() -> None:
    cama = fitted("dataset", epochs=60).copy()
    batch = cama.encode(rows(300, 1))
    worst = {name: entry[0] for name, entry in check_densities(cama, batch, 20, 0).items()}
    cama.manipulation.calibration.copy_(torch.tensor([2.0, 2.0, 0.0, 0.0]).repeat(4))
    broad = {name: entry[0] for name, entry in check_densities(cama, batch, 20, 0).items()}
    assert all(broad[name] > worst[name] + 0.2 for name in COLUMNS)


@settings(max_examples=8)
@given(specs(max_nodes=5), st.integers(0, 100))
def test_a_model_that_knows_its_rows_draws_their_like(spec: dict[str, Any], seed: int) -> None:
    """Rows of a random model, of every type, give the statistics; in raw units its draws have their moments."""
    cama = small(spec, seed=seed)
    with torch.no_grad(), cama.seeded(seed):
        for parameter in cama.modules.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    cama.take_encoder(any_encoder(cama))
    with torch.no_grad(), cama.seeded(seed):
        drawn = intervene(cama.model, encode_do(cama, clean_do(cama.graph)))(rows=2000)
    found = cama.sample(2000, seed=seed + 1)
    for name in cama.graph.order:
        node = cama.graph.nodes[name]
        reference = cama.encoder.decode(name, drawn[name].expand(2000, *node.event_shape))
        if node.levels:
            one, other = ((np.asarray(values) == node.levels[0]).astype(float) for values in (reference, found[name]))
        else:
            one, other = np.asarray(reference, float), np.stack(list(found[name])).astype(float)
            one, other = (np.clip(v, *np.quantile(one, [0.02, 0.98])) for v in (one, other))
        error = np.sqrt((one.var(0) + other.var(0)) / 2000) + 1e-9
        assert (abs(one.mean(0) - other.mean(0)) < 6 * error).all(), name


def test_under_another_value_descendants_alone_change() -> None:
    """A count draws more numbers the larger it is: no other site may notice."""
    nodes: dict[str, Any] = {"y": "binary", "c": "continuous", "k": "count", "b": "continuous", "e": "continuous"}
    edges = ["y -> k", "c -> k", "y -> b", "y -> e", "k -> e"]
    raw = {"target": "y", "nodes": nodes, "edges": edges, "latents": {"z": None, "m": None}}
    cama = build(raw, hidden=4, device="cpu").fit(simulate(raw, 200, seed=0), max_epochs=2, progress=False)
    seen, moved = cama.sample(200, seed=3), cama.sample(200, seed=3, do={"c": 2.0})
    pd.testing.assert_frame_equal(seen[["y", "b"]], moved[["y", "b"]])
    assert (seen["k"] != moved["k"]).mean() > 0.3
    assert (seen["e"] != moved["e"]).any()
