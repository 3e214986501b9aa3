"""Monotone: the bend and its inverse against numerical references, gradients, and an adaptation that finds it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyro import distributions as dist
from torch import Tensor

from pyro_cama import CAMA, build
from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms import Affine, Monotone
from pyro_cama.mechanisms.monotone import KNOTS, SIZE, _bent, _straightened
from tests.helpers.precision import in_double

REAL = Node("x", "continuous")
bends = st.lists(st.floats(-3.0, 3.0), min_size=SIZE, max_size=SIZE).map(torch.tensor)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with in_double():
        yield


def mechanism() -> Monotone:
    return Monotone(Affine())


@given(bends)
def test_the_bend_is_the_integral_of_its_slope(bend: Tensor) -> None:
    heights = 4.0 * np.tanh(bend.numpy() / 4.0)
    half = len(KNOTS)
    knots = [*(-k for k in reversed(KNOTS)), 0.0, *KNOTS]
    values = [*heights[half:][::-1], 0.0, *heights[:half]]
    grid = np.linspace(-4.0, 4.0, 8001)
    slope = np.exp(np.interp(grid, knots, values))
    area = np.concatenate([[0.0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(grid))])
    found, log_slope = _bent(torch.from_numpy(grid), bend)
    np.testing.assert_allclose(found.numpy(), area - area[4000], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(log_slope.numpy(), np.log(slope), atol=1e-9)


@given(bends)
def test_it_is_undone_and_its_slope_is_known_from_both_ends(bend: Tensor) -> None:
    x = torch.linspace(-6, 6, 241)
    there, log_slope = _bent(x, bend)
    assert (there.diff() > 0).all()
    back, again = _straightened(there, bend)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(again, log_slope, rtol=1e-8, atol=1e-8)


def test_in_single_precision_it_is_undone_too() -> None:
    bend = torch.randn(50, 1, SIZE, generator=torch.Generator().manual_seed(0)).float()
    x = torch.linspace(-5, 5, 101, dtype=torch.float32)
    torch.testing.assert_close(_straightened(_bent(x, bend)[0], bend)[0], x.expand(50, 101), rtol=1e-4, atol=1e-4)


def test_gradients_are_right_at_rest_and_elsewhere() -> None:
    x = torch.tensor([-3.0, -1.0, 0.3, 2.0, 4.0])
    for bend in (torch.zeros(SIZE), torch.linspace(-1, 1, SIZE)):
        for function in (_bent, _straightened):
            assert torch.autograd.gradcheck(function, (x.clone().requires_grad_(), bend.clone().requires_grad_()))


def test_without_a_bend_it_is_the_line_and_its_mean_is_the_distributions() -> None:
    theta = torch.tensor([0.3, -1.0, 0.2, 2.0])
    clean = dist.Normal(torch.tensor([0.5, -1.0]), torch.tensor([0.7, 1.2]))
    x = torch.tensor([0.1, 2.0])
    line, same = Affine().transform(clean, theta), mechanism().transform(clean, torch.cat([theta, torch.zeros(SIZE)]))
    torch.testing.assert_close(same.log_prob(x), line.log_prob(x))
    torch.testing.assert_close(same.mean, line.mean)
    moved = mechanism().transform(clean, torch.cat([theta, torch.linspace(-1, 1, SIZE)]))
    torch.manual_seed(0)
    torch.testing.assert_close(moved.mean, moved.sample(torch.Size([200_000])).mean(0), rtol=0, atol=0.03)


def test_noise_of_a_second_application_widens_at_the_centre() -> None:
    """As a calibrated density has it, where the first is small."""
    one, zero = mechanism(), torch.zeros(4 + SIZE)
    noisy, bend = zero.clone(), zero.clone()
    noisy[2], bend[4:] = 0.5, 0.3
    clean = dist.Normal(torch.tensor(0.2), torch.tensor(0.6))
    twice = one.transform(one.transform(clean, zero), noisy)
    torch.testing.assert_close(
        twice.log_prob(torch.tensor(1.0)), one.transform(clean, noisy).log_prob(torch.tensor(1.0))
    )
    inner: Any = one.transform(one.transform(clean, bend), noisy)
    assert inner.base_dist.base_dist.scale > 0.6


def test_it_says_what_usual_readings_have_become() -> None:
    statistics = {"mean": torch.tensor(100.0), "sd": torch.tensor(10.0), "unit": torch.tensor(0.0)}
    rest = mechanism().describe(torch.zeros(4 + SIZE), REAL, statistics)
    assert rest == {"change": 0.0, "at -2 sd": 80, "at -1 sd": 90, "at the mean": 100, "at +1 sd": 110, "at +2 sd": 120,
                    "noise": 0.0}  # fmt: skip
    theta = torch.zeros(4 + SIZE)
    theta[1], theta[4:7] = 1.0, 1.0
    found = mechanism().describe(theta, REAL, statistics)
    assert found["at the mean"] == pytest.approx(110)
    assert found["at -2 sd"] == pytest.approx(90)
    assert found["at +2 sd"] > 140
    assert found["change"] > 1


def table(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    means = np.array([1.0, -1.0, 1.2, 0.8, -1.1])
    x = np.outer(2 * y - 1, means) * 0.6 + rng.normal(size=(rows, 5))
    return pd.DataFrame(x, columns=list("abcde")).assign(y=y)


def bent(frame: pd.DataFrame) -> pd.DataFrame:
    """Column a reads e to its power, twice over, which no line through it follows."""
    return frame.assign(a=5.0 + np.expm1(1.1 * frame["a"]))


def test_an_adaptation_finds_a_bend() -> None:
    def fitted(mechanism: str) -> CAMA:
        return build(
            graph | {"latents": {**latents, "m": {"scope": "dataset", "mechanism": {"a": mechanism}}}}, **sizes
        )

    sizes: dict[str, Any] = {"seed": 0, "hidden": 4, "device": "cpu"}
    latents = {"z": {"dim": 1, "effect": "linear"}}
    graph = {
        "target": "y",
        "nodes": {"y": {"type": "binary"}, **{name: {"type": "continuous", "scale": "identity"} for name in "abcde"}},
        "edges": [f"y -> {name}" for name in "abcde"],
    }
    clean, new = table(400, 0), bent(table(200, 1))
    evidence = {}
    for mechanism in ("affine", "monotone"):
        adapted = fitted(mechanism).fit(clean, progress=False).adapt(new.drop(columns="y"), progress=False)
        assert adapted.adaptation is not None
        assert adapted.adaptation.accepted
        evidence[mechanism] = adapted.adaptation.evidence_after
    assert evidence["monotone"] > evidence["affine"] + 0.5
    told = adapted.explain_shift().parameters.query("column == 'a'").set_index("parameter")
    statistics = adapted.encoder.statistics["a"]
    for name, at in (("at -1 sd", -1.0), ("at the mean", 0.0), ("at +1 sd", 1.0)):
        truth = 5.0 + np.expm1(1.1 * float(statistics["mean"] + at * statistics["sd"]))
        assert told.loc[name, "low"] < truth < told.loc[name, "high"], name
    assert "a" in adapted.explain_shift().moved


def test_by_draws_it_is_found_too() -> None:
    graph: dict[str, Any] = {
        "target": "y",
        "nodes": {"y": {"type": "binary"}, **{name: {"type": "continuous", "scale": "identity"} for name in "abc"}},
        "edges": [f"y -> {name}" for name in "abc"],
        "latents": {"z": {"dim": 1, "effect": "deep"}, "m": {"scope": "dataset", "mechanism": {"a": "monotone"}}},
    }
    cama = build(graph, seed=0, hidden=4, layers=1, device="cpu")
    cama.fit(table(200, 0), max_epochs=6, lr=0.02, progress=False)
    adapted = cama.adapt(bent(table(100, 1)).drop(columns="y"), steps=20, folds=2, progress=False)
    assert adapted.adaptation is not None
    assert adapted.adaptation.evidence_after > adapted.adaptation.evidence_before + 1
    assert np.isfinite(adapted.sample(50)["a"]).all()
