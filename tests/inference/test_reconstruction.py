"""Children as they would have been: effects follow causes, missing causes are mixed over, rows keep their names."""

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyro_cama import CAMA, build
from pyro_cama.handlers.interventions import intervene
from pyro_cama.inference.do import clean_do, encode_do
from pyro_cama.model.posteriors import SharedPosterior
from tests.helpers.precision import in_double
from tests.helpers.random_graphs import any_encoder, rows_of, small, specs

QUICK: dict[str, Any] = {"progress": False, "lr": 1e-2, "conditional_weight": 0.0}


def jittered(cama: CAMA, seed: int, size: float = 0.3) -> CAMA:
    with torch.no_grad(), cama.seeded(seed):
        for parameter in cama.modules.parameters():
            parameter.add_(size * torch.randn(parameter.shape))
    return cama


def plant(cama: CAMA, m: Tensor) -> None:
    """Makes q(m), or q(m | x) of every row, a point at m."""
    posterior = cama.guide.m_posterior
    with torch.no_grad():
        if isinstance(posterior, SharedPosterior):
            posterior.loc.copy_(m.expand_as(posterior.loc))
            posterior.raw_scale.fill_(-20.0)
        else:
            last: Any = posterior.network[-1]
            last.weight.zero_()
            last.bias.copy_(torch.cat([m, torch.full_like(m, -20.0)]))
    cama.trained = frozenset(cama.moving)


# children that cause children --------------------------------------------------------------------------------------


def world(number: int, seed: int, affects: str = "quantity", offset: float = 0.0) -> pd.DataFrame:
    """y -> x1 -> x2 <- y; what moves x1 moves x2 as well, or the reading of x1 alone."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 2, number)
    x1 = 3.0 * y - 1.5 + generator.normal(size=number)
    x2 = 0.9 * (x1 + offset * (affects == "quantity")) + 2.0 * y - 1.0 + 0.7 * generator.normal(size=number)
    return pd.DataFrame({"y": y, "x1": x1 + offset, "x2": x2})


@functools.cache
def chain(scope: str, affects: str) -> CAMA:
    spec = {
        "target": "y",
        "nodes": {"y": "binary", "x1": "continuous", "x2": "continuous"},
        "edges": ["y -> x1 -> x2", "y -> x2"],
        "latents": {
            "z": {"dim": 2, "effect": "deep"},
            "m": {"dim": 2, "scope": scope, "affects": affects, "children": ["x1"]},
        },
    }
    return build(spec, seed=0, hidden=16, device="cpu").fit(world(400, 1), max_epochs=40, **QUICK)


@pytest.mark.parametrize("scope", ["row", "dataset"])
@pytest.mark.parametrize("affects", ["quantity", "measurement"])
def test_effects_follow_the_reconstructed_cause(affects: str, scope: str) -> None:
    cama = chain(scope, affects).copy()
    theta, m = torch.zeros(cama.manipulation.size), torch.tensor([1.0, 0.0])
    theta[1] = 3.0 / float(cama.encoder.statistics["x1"]["sd"])
    cama.manipulation.solve_for(m[None], theta[None])
    plant(cama, m)
    new, truth = world(400, 2, affects, offset=3.0), world(400, 2)
    found = cama.reconstruct(new)
    for name in ("x1", "x2"):
        assert found[name].mean() == pytest.approx(truth[name].mean(), abs=0.25), name
    assert np.corrcoef(found["x2"], truth["x2"])[0, 1] > 0.9
    # m left as it was: as measured, in the mean (of an x1 further out than any in training)
    left = cama.reconstruct(new, do=None)
    for name in ("x1", "x2"):
        assert left[name].mean() == pytest.approx(new[name].mean(), abs=0.7), name
    pd.testing.assert_frame_equal(cama.reconstruct(new, do={"m": m}), left, atol=0.03)  # q(m) is not quite a point


# any graph -----------------------------------------------------------------------------------------------------------


def numeric(spec: dict[str, Any], types: tuple[str, ...]) -> dict[str, Any]:
    """The graph without z, every node but the target of one of these types."""
    spec["latents"].pop("hidden style", None)
    mechanism = {"continuous": "affine", "count": "rate"}
    nodes = {name: node for name, node in spec["nodes"].items() if name != spec["target"]}
    for i, (name, node) in enumerate(sorted(nodes.items())):
        kind = node["type"] if node["type"] in types else types[i % len(types)]
        kept = {key: value for key, value in node.items() if key in ("dim", "likelihood") and kind == node["type"]}
        spec["nodes"][name] = {"type": kind, **kept}
    spec["latents"].pop("hidden shock", None)
    drift = spec["latents"].get("hidden drift")
    for name in drift["mechanism"] if drift else ():
        if drift["mechanism"][name] != "concat":
            drift["mechanism"][name] = mechanism[spec["nodes"][name]["type"]]
    return spec


def residuals(cama: CAMA, batch: Any, truth: dict[str, Tensor], **options: Any) -> dict[str, tuple[Any, Any]]:
    """By child the mean of reconstruction less truth, and its standard error, of every component."""
    found, result = cama.reconstruct(batch, **options), {}
    for name in cama.graph.blanket.children:
        rebuilt = np.stack(list(found[name])).astype(float).reshape(len(found), -1)
        gap = rebuilt - cama.encoder.decode(name, truth[name]).reshape(len(found), -1)
        result[name] = gap.mean(0), gap.std(0) / len(found) ** 0.5 + 1e-6
    return result


@settings(max_examples=10)
@given(specs(max_nodes=5), st.integers(0, 100))
def test_clean_rows_stay_as_they_are_in_the_mean(spec: dict[str, Any], seed: int) -> None:
    """The posterior of y is exact where z is absent, so the mean of E[x | y] over the model's own rows is x's."""
    cama = jittered(small(numeric(spec, ("continuous", "count")), sites=2, seed=seed), seed)
    cama.take_encoder(any_encoder(cama))
    with torch.no_grad(), cama.seeded(seed):
        batch = rows_of(cama, 1500)
        clean = intervene(cama.model, encode_do(cama, clean_do(cama.graph)))(rows=1500)
    batch.values.update({name: value.detach() for name, value in clean.items()})
    for name, (gap, error) in residuals(cama, batch, batch.values, samples=1).items():
        assert (abs(gap) < 6 * error).all(), (name, gap, error)


@settings(max_examples=10)
@given(specs(max_nodes=6), st.integers(0, 100))
def test_effects_of_effects_follow_in_any_graph(spec: dict[str, Any], seed: int) -> None:
    """The same rows with m and without: one noise for both."""
    spec = numeric(spec, ("continuous",))
    assume("hidden drift" in spec["latents"])
    with in_double():
        cama = jittered(small(spec, sites=2, seed=seed), seed)
        cama.take_encoder(any_encoder(cama))
        latent = cama.graph.require_m()
        m = 0.5 * torch.ones(latent.dim)
        for group in cama.manipulation.groups:  # what has an inverse: neither noise nor reversal
            last: Any = cama.manipulation.network[-1]
            part = cama.manipulation.slice_of(group)
            for unit in range(group.units if group.theta_size == 4 else 0):
                last.weight.data[part][4 * unit + 2 : 4 * unit + 4] = 0.0
        plant(cama, m)
        with torch.no_grad():
            pairs = []
            for value in (m, torch.zeros(latent.dim)):
                with cama.seeded(seed):
                    pairs.append(intervene(cama.model, {latent.name: value})(rows=1500))
        with cama.seeded(seed):
            batch = rows_of(cama, 1500)
        if batch.site is not None:
            batch.site.clamp_min_(0)
        batch.values.update({name: value.detach() for name, value in pairs[0].items()})
        for name, (gap, error) in residuals(cama, batch, pairs[1], samples=1).items():
            assert (abs(gap) < 6 * error + 1e-3).all(), (name, gap, error)


def test_discrete_and_counted_causes_are_carried_over() -> None:
    """Under a recoding and a rate: the effect reads the level before it, and the count before it."""
    spec = {
        "target": "y",
        "nodes": {
            "y": "binary",
            "c": {"type": "categorical", "levels": ["p", "q", "r"]},
            "b": "binary",
            "n": "count",
            "x": "continuous",
        },
        "edges": ["y -> c", "y -> b", "y -> n", "y -> x", "c -> x", "b -> x", "n -> x"],
        "latents": {"z": None, "m": {"dim": 2, "scope": "dataset", "children": ["c", "b", "n"]}},
    }
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, 600)
    c, b = generator.choice(3, 600, p=[0.2, 0.3, 0.5]), generator.random(600) < 0.3
    n = generator.poisson(4 + 2 * y)

    def table(c: Any, b: Any, n: Any) -> pd.DataFrame:
        x = 3.0 * c + 2.0 * b + n + y + 0.1 * generator.normal(size=600)
        return pd.DataFrame({"y": y, "c": np.array(["p", "q", "r"])[c], "b": b.astype(int), "n": n, "x": x})

    clean, moved = (
        table(c, b, n),
        table(np.array([1, 2, 0])[c], ~b, np.round(1.5 * n)),
    )  # all effects follow what was moved
    cama = build(spec, seed=0, hidden=16, device="cpu").fit(clean, max_epochs=40, **QUICK)
    theta = torch.zeros(cama.manipulation.size)
    for group in cama.manipulation.groups:
        for i, name in enumerate(group.nodes):
            part = theta[cama.manipulation.slice_of(group)][group.theta_size * i : group.theta_size * (i + 1)]
            if name == "c":
                part.view(3, 3)[[0, 1, 2], [1, 2, 0]] = 12.0
            elif name == "b":
                part.view(2, 2)[[0, 1], [1, 0]] = 12.0
            else:
                part[0] = 20 * np.arctanh(np.log(1.5) / 20)
    m = torch.tensor([1.0, 0.0])
    cama.manipulation.solve_for(m[None], theta[None])
    plant(cama, m)
    found = cama.reconstruct(moved)
    assert np.corrcoef(found["x"], clean["x"])[0, 1] > 0.95
    assert found["x"].mean() == pytest.approx(clean["x"].mean(), abs=0.4)
    # and the other way: clean rows as they would have been
    plant(cama, torch.zeros(2))
    forth = cama.reconstruct(clean, do={"m": m})
    assert np.corrcoef(forth["x"], moved["x"])[0, 1] > 0.95
    assert forth["x"].mean() == pytest.approx(moved["x"].mean(), abs=0.6)


# missing causes ------------------------------------------------------------------------------------------------------


def test_a_missing_cause_is_mixed_over_the_draws_that_the_row_weighs() -> None:
    generator = np.random.default_rng(0)
    y, c = generator.integers(0, 2, 700), generator.normal(size=700)
    table = pd.DataFrame({"y": y, "c": c, "x": 3 * c + y + 0.3 * generator.normal(size=700)})
    spec = {
        "target": "y",
        "nodes": {"y": "binary", "c": "continuous", "x": "continuous"},
        "edges": ["y -> x", "c -> x"],
        "latents": {"z": None, "m": {"scope": "dataset", "dim": 2}},
    }
    cama = build(spec, seed=0, hidden=16, device="cpu").fit(table[:500], max_epochs=40, **QUICK)
    test = table[500:]
    found = cama.reconstruct(test.assign(c=np.nan), samples=200)
    assert np.sqrt(((found["x"] - test["x"]) ** 2).mean()) < 0.6
    assert found["x"].std() == pytest.approx(test["x"].std(), rel=0.15)


# rows ----------------------------------------------------------------------------------------------------------------


def test_rows_keep_their_names() -> None:
    cama = chain("dataset", "quantity")
    rows = world(60, 3)
    plain = cama.reconstruct(rows)
    assert plain.index.equals(rows.index)
    shuffled = rows.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(cama.reconstruct(shuffled).loc[rows.index], plain, rtol=1e-4, atol=1e-5)
    named = rows.set_axis(pd.Index(["same"] * 60, name="patient"))
    assert cama.reconstruct(named).index.equals(named.index)
    assert cama.reconstruct(named).index.name == "patient"
    many = rows.set_axis(pd.MultiIndex.from_product([["a", "b"], range(30)]))
    assert cama.reconstruct(many).index.equals(many.index)
    arrays = {name: rows[name].to_numpy() for name in shuffled}
    assert cama.reconstruct(arrays).index.equals(pd.RangeIndex(60))


def test_the_random_state_of_others_stays_as_it_was() -> None:
    cama, before = chain("dataset", "quantity"), torch.get_rng_state()
    cama.reconstruct(world(20, 3))
    assert torch.equal(torch.get_rng_state(), before)
