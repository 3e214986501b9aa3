"""p(m | y) in eqs. 4 and 6, against quadrature over m; the edge cut; Pyro's traces beside groups scored whole."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

import pyro_cama
from pyro_cama import CAMA
from pyro_cama.handlers.common_noise import common_noise
from pyro_cama.inference.bounds import class_log_probs, mean_bound
from pyro_cama.inference.elbo import InterventionELBO, JointELBO, MarginalELBO
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.training.objective import fit_loss

EDGE = {"m": {"dim": 1, "parents": ["y"]}}
CONFOUNDER = {"m": {"dim": 1}, "u": {"causes": ["y", "m"]}}
LINEAR = {"z": {"dim": 2, "effect": "linear"}}
DEEP = {"z": {"dim": 2, "effect": "deep"}}


def _rows(n: int = 60, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    moved = 1.5 * y + rng.normal(size=n)
    return {"y": y, "x1": y + 0.5 * rng.normal(size=n) + moved, "x2": rng.normal(size=n) - y + moved}


def _fitted(latents: dict[str, Any], *, parent: bool = False, seed: int = 0) -> CAMA:
    """A model in double precision, with a p(m | y) and an NN_pM that are not at rest."""
    nodes = {"y": "binary", "x1": "continuous", "x2": "continuous"} | ({"a": "continuous"} if parent else {})
    edges = ["y -> x1", "y -> x2"] + (["a -> y"] if parent else [])
    graph = {"target": "y", "nodes": nodes, "edges": edges, "latents": latents}
    cama = pyro_cama.build(graph, hidden=8, layers=1, seed=seed, device="cpu")
    rows = _rows() | ({"a": np.linspace(-1, 1, 60)} if parent else {})
    cama.fit(rows, max_epochs=2, progress=False, batch_size=32)
    cama.modules.double()
    with torch.no_grad():
        classes = cama.model._class_manipulation
        classes.loc.copy_(torch.tensor([[-0.7], [1.1]]))
        classes.log_scale.copy_(torch.tensor([[0.6], [1.3]]).log())
        for parameter in cama.manipulation.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return cama


def _log_joint(cama: CAMA, batch: Any, m: Tensor) -> Tensor:
    """log p(x, y | m) of every class and row at every m, ``(nodes, classes, rows)``, by do."""
    weights = [log_weights(cama.model, cama.guide, batch, do={"m": value}, classes=True).w[0] for value in m]
    return torch.stack(weights)


def _quadrature(cama: CAMA, batch: Any, log_prior: Any) -> Tensor:
    """log of the integral over m of p(x, y | m) p(m), ``(classes, rows)``."""
    at = torch.linspace(-9, 9, 1801, dtype=torch.float64)
    prior = log_prior(at[:, None])  # (nodes, classes)
    joint = _log_joint(cama, batch, at[:, None])
    return torch.logsumexp(joint + prior[..., None], 0) + math.log(float(at[1] - at[0]))


def _given(cama: CAMA) -> Any:
    def log_prior(m: Tensor) -> Tensor:
        found: Tensor = dist.Normal(torch.tensor([-0.7, 1.1]).double(), torch.tensor([0.6, 1.3]).double()).log_prob(m)
        return found

    return log_prior


def _marginal(cama: CAMA) -> Any:
    share = torch.as_tensor(cama.encoder.statistics["y"]["frequencies"]).double()

    def log_prior(m: Tensor) -> Tensor:
        return torch.logsumexp(_given(cama)(m) + share.log(), -1, keepdim=True).expand(-1, 2)

    return log_prior


@pytest.mark.parametrize("style", [{"z": None}, LINEAR], ids=["no style", "linear style"])
@pytest.mark.parametrize("cause", [EDGE, CONFOUNDER], ids=["edge", "confounder"])
def test_bayes_rule_agrees_with_quadrature_over_m(style: dict[str, Any], cause: dict[str, Any]) -> None:
    cama = _fitted({**style, **cause})
    batch = cama.encode(_rows(6, 1), "ignore")
    q = dist.Normal(torch.zeros(6, 1).double(), 3.0).to_event(1)
    for regime, prior in (("observational", _given(cama)), ("interventional", _marginal(cama))):
        with torch.no_grad(), cama.seeded():
            exact = torch.log_softmax(_quadrature(cama, batch, prior), 0)
            drawn = log_weights(
                cama.model, cama.guide, batch, samples=60_000, classes=True, proposals={"m": q}, regime=regime
            )
        torch.testing.assert_close(class_log_probs(drawn), exact, atol=0.03, rtol=0.0)


@pytest.mark.parametrize("style", [{"z": None}, LINEAR], ids=["no style", "linear style"])
def test_equation_4_is_the_mean_of_the_weights_under_q(style: dict[str, Any]) -> None:
    cama = _fitted({**style, **EDGE})
    batch = cama.encode(_rows(5, 2))
    at = torch.linspace(-9, 9, 1801, dtype=torch.float64)[:, None]
    with torch.no_grad(), cama.seeded():
        q = cama.guide.m_dist(batch)
        log_q = q.log_prob(at[:, None])  # (nodes, rows)
        own = batch.values["y"].long()
        joint = _log_joint(cama, batch, at) + _given(cama)(at)[..., None]
        each = joint.gather(1, own.expand(len(at), 1, 5))[:, 0] - log_q
        exact = (log_q.exp() * each).sum(0) * float(at[1] - at[0])
        drawn = log_weights(cama.model, cama.guide, batch, samples=40_000, regime="observational")
    torch.testing.assert_close(mean_bound(drawn)[0], exact, atol=0.08, rtol=0.0)


@pytest.mark.parametrize("regime", ["observational", "interventional"])
@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("style", [{"z": None}, LINEAR, DEEP], ids=["no style", "linear", "deep"])
def test_traces_and_groups_agree(style: dict[str, Any], classes: bool, regime: Any) -> None:
    cama = _fitted({**style, **EDGE}, parent=True)
    rows = _rows(5, 3) | {"a": np.array([0.1, -0.4, 0.0, 1.0, 0.7])}
    batch = cama.encode(rows)
    found = []
    for trace in (True, False):
        with torch.no_grad(), common_noise(3):
            proposals: dict[str, Any] = {"m": dist.Delta(torch.linspace(-1, 1, 5).double()[:, None], event_dim=1)}
            weights = log_weights(
                cama.model, cama.guide, batch, samples=3, classes=classes, trace=trace, proposals=proposals,
                regime=regime,
            )  # fmt: skip
        found.append(weights.w)
    torch.testing.assert_close(found[0], found[1], atol=1e-8, rtol=0.0)


def test_cut_edge_tells_nothing_of_the_class() -> None:
    cama = _fitted({"z": None, **EDGE})
    rows = _rows(20, 4)
    balanced = torch.tensor([0.5, 0.5]).double()
    cama.encoder.statistics["y"]["frequencies"].copy_(balanced)
    cama.model.inputs.set_statistics(cama.encoder.statistics)
    before = {
        regime: cama.predict_proba(rows, do=None, regime=regime) for regime in ("interventional", "observational")
    }
    classes = cama.model._class_manipulation
    with torch.no_grad():
        for parameter in (classes.loc, classes.log_scale):
            parameter.copy_(parameter.flip(0))
    after = {regime: cama.predict_proba(rows, do=None, regime=regime) for regime in before}
    np.testing.assert_allclose(after["interventional"], before["interventional"], atol=1e-12)
    assert abs(after["observational"] - before["observational"]).max() > 0.05


def test_an_m_that_is_given_says_nothing_of_the_class_either() -> None:
    cama = _fitted({"z": None, **EDGE})
    rows = _rows(20, 4)
    given = [cama.predict_proba(rows, do={"m": 0.4}, regime=regime) for regime in ("interventional", "observational")]
    np.testing.assert_array_equal(*given)


def test_only_manipulated_rows_teach_what_goes_with_the_class() -> None:
    cama = _fitted({"z": None, **EDGE})
    batch = cama.encode(_rows())
    classes = list(cama.model._class_manipulation.parameters())
    asked: dict[str, Any] = {"mixing": 0.5, "conditional_weight": 1.0, "samples": 1}
    clean = fit_loss(cama.model, cama.guide, None, interventions={"x1": 1.0}, **asked)
    manipulated = fit_loss(cama.model, cama.guide, batch, interventions=None, **asked)
    assert torch.autograd.grad(clean(batch), classes, allow_unused=True) == (None, None)
    assert all(bool(g.any()) for g in torch.autograd.grad(manipulated(batch), classes))


def test_losses_of_pyro_weigh_labelled_rows_as_training_does() -> None:
    cama = _fitted({"z": None, **EDGE})
    batch = cama.encode(_rows(5))
    losses = {}
    for kind in (JointELBO, MarginalELBO, InterventionELBO):
        with cama.seeded():
            losses[kind] = kind().loss(cama.model, cama.guide, batch)
    with cama.seeded(), torch.no_grad():
        weights = log_weights(cama.model, cama.guide, batch, trace=True, regime="observational")
    assert losses[JointELBO] == pytest.approx(-float(weights.w.sum() + weights.context.sum()), abs=1e-9)
