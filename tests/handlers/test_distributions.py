"""What ``pyro.sample`` takes serves in a guide and a likelihood of one's own, or is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pyro import distributions as dist
from pyro.contrib.zuko import ZukoToPyro
from torch import Tensor, nn
from torch.distributions import transforms

from pyro_cama import CAMA, CAMAGuide, Likelihood, build
from pyro_cama.handlers.common_noise import NoCommonNoise, common_noise, draw_site
from pyro_cama.handlers.distributions import draw, mean_of
from pyro_cama.persistence.export import load
from tests.helpers.training import GRAPH, table

ROWS = table(20, seed=9)
BY_ROW = {**GRAPH, "latents": {**GRAPH["latents"], "m": {**GRAPH["latents"]["m"], "scope": "row"}}}


class Flow(torch.distributions.Distribution):
    """A flow in zuko's form: ``transform`` maps values to those of ``base``, and it draws with the density."""

    has_rsample = True
    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, transform: Any, base: Any) -> None:
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)
        self.transform, self.base = transform, base

    def expand(self, batch_shape: Any, _instance: Any = None) -> Flow:
        return Flow(self.transform, self.base.expand(batch_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.transform.inv(self.base.rsample(torch.Size(sample_shape)))

    def rsample_and_log_prob(self, sample_shape: Any = ()) -> tuple[Tensor, Tensor]:
        x = self.rsample(sample_shape)
        return x, self.log_prob(x)

    def log_prob(self, x: Tensor) -> Tensor:
        z = self.transform(x)
        return self.base.log_prob(z) + self.transform.log_abs_det_jacobian(x, z).sum(-1)


def flow(loc: Tensor, scale: Tensor) -> ZukoToPyro:
    base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros_like(loc), 1.0), 1)
    bent = transforms.ComposeTransform([transforms.AffineTransform(loc, scale).inv, transforms.SigmoidTransform(),
                                        transforms.SigmoidTransform().inv])  # fmt: skip
    return ZukoToPyro(Flow(bent, base))


class FlowGuide(CAMAGuide):
    def z_dist(self, batch: Any, y: Tensor | None, m: Tensor | None) -> Any:
        return flow(*self.z_params(batch, y, m))


class FlowOfM(CAMAGuide):
    def m_dist(self, batch: Any) -> Any:
        return flow(super().m_dist(batch).mean, torch.ones(self.graph.m.dim))  # type: ignore[union-attr]


class VonMises(Likelihood):
    """A likelihood whose draws know nothing but a call: by rejection."""

    types = ("continuous",)

    def size(self, node: Any) -> int:
        return 2

    def distribution(self, params: Tensor, *others: Any) -> Any:
        return ZukoToPyro(torch.distributions.VonMises(params[..., 0], nn.functional.softplus(params[..., 1]) + 1e-2))


def fitted(graph: dict[str, Any], **parts: Any) -> CAMA:
    options: dict[str, Any] = {"max_epochs": 1, "progress": False}
    return build(graph, hidden=8, device="cpu", **parts).fit(table(60), **options)


def test_flow_under_common_noise_is_its_own_distribution() -> None:
    loc, scale = torch.tensor([[0.5, -1.0], [2.0, 0.0], [0.5, -1.0]]), torch.tensor([1.0, 2.0])
    with common_noise(0, strict=True):
        found = draw_site(flow(loc, scale).expand(torch.Size((20_000, 2, 3))), "z")
    assert found.shape == (20_000, 2, 3, 2)
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found[..., 0, :], found[..., 2, :])
    torch.testing.assert_close(found[:, 0].mean(0), loc, rtol=0, atol=0.06)
    torch.testing.assert_close(found[:, 0].std(0), scale.expand(3, 2), rtol=0.03, atol=0)


@pytest.mark.parametrize("graph", [GRAPH, BY_ROW], ids=["dataset", "row"])
def test_flow_of_z(graph: dict[str, Any], tmp_path: Path) -> None:
    cama = fitted(graph, guide=FlowGuide)
    p = cama.predict_proba(ROWS)
    np.testing.assert_allclose(cama.predict_proba(ROWS[:3]), p[:3], rtol=0, atol=1e-6)
    exported = load(cama.export(tmp_path / "served"))
    np.testing.assert_allclose(exported.predict_proba(ROWS), p, rtol=0, atol=1e-6)
    assert cama.elbo(ROWS, do=None).isfinite().all()
    assert len(cama.reconstruct(ROWS, samples=2)) == 20
    adapted = cama.adapt(ROWS, steps=2, restarts=1, folds=1, progress=False)
    assert adapted.adaptation is not None
    with pytest.raises(NotImplementedError, match=r"refine_z needs the mean and variance of q.z . x, y.*ZukoToPyro"):
        cama.predict_proba(ROWS, refine_z=1)


def test_flow_as_normal_is_the_normal() -> None:
    class NormalGuide(CAMAGuide):
        def z_dist(self, batch: Any, y: Tensor | None, m: Tensor | None) -> Any:
            loc, scale = self.z_params(batch, y, m)
            base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros_like(loc), 1.0), 1)
            return ZukoToPyro(Flow(transforms.AffineTransform(loc, scale).inv, base))

    one, two = (build(GRAPH, guide=guide, hidden=8, device="cpu") for guide in (CAMAGuide, NormalGuide))
    for cama in (one, two):
        cama.fit(table(60), max_epochs=0, progress=False)
    np.testing.assert_allclose(one.predict_proba(ROWS), two.predict_proba(ROWS), rtol=0, atol=1e-5)


def test_flow_of_a_shared_m_predicts_and_says_where_a_mean_is_needed() -> None:
    cama = fitted(GRAPH, guide=FlowOfM)
    assert np.isfinite(cama.predict_proba(ROWS, do=None)).all()
    for call in (lambda: cama.sample(3), lambda: cama.adapt(ROWS, steps=1, restarts=1, folds=1, progress=False)):
        with pytest.raises(NotImplementedError, match=r"the mean of q\(m\), and the ZukoToPyro .* has none: give"):
            call()


def test_flow_of_a_rows_m_is_drawn() -> None:
    cama = build(BY_ROW, guide=FlowOfM, hidden=8, device="cpu")
    cama.fit(table(60), interventions=1.0, max_epochs=1, progress=False)
    assert np.isfinite(cama.predict_proba(ROWS)).all()
    assert cama.elbo(ROWS, do=None).isfinite().all()


def test_likelihood_that_knows_a_call_alone(tmp_path: Path) -> None:
    graph = {"target": "y", "nodes": {"y": "binary", "x": "continuous", "w": "continuous"},
             "edges": ["y -> x", "x -> w", "y -> w"], "latents": {"m": None}}  # fmt: skip
    rows = {"y": [0, 1] * 20, "x": np.sin(np.arange(40.0)), "w": np.cos(np.arange(40.0))}
    cama = build(graph, likelihoods={"x": VonMises()}, hidden=8, device="cpu").fit(rows, max_epochs=1, progress=False)
    assert np.isfinite(cama.predict_proba(rows)).all()
    missing = {**rows, "x": np.where(np.arange(40) < 5, np.nan, rows["x"])}
    p = cama.predict_proba(missing)  # x of five rows is drawn, row by row
    np.testing.assert_allclose(cama.predict_proba({k: v[:3] for k, v in missing.items()}), p[:3], rtol=0, atol=1e-6)
    assert cama.sample(5).notna().all().all()
    with pytest.raises(ValueError, match=r"export: site 'x': VonMises has no common noise"):
        cama.export(tmp_path / "served", missing=True)
    cama.export(tmp_path / "served")


def test_what_cannot_draw_is_named() -> None:
    class Silent(dist.TorchDistribution):
        arg_constraints: ClassVar[dict[str, Any]] = {}
        batch_shape, event_shape = torch.Size([3]), torch.Size([])

        def __init__(self) -> None:
            pass

    with pytest.raises(NotImplementedError, match="Silent cannot be drawn from"):
        draw(Silent())
    with pytest.raises(NotImplementedError, match="the mean of q, and the Silent given for it has none"):
        mean_of(Silent(), "q")
    with common_noise(0, strict=True), pytest.raises(NoCommonNoise, match="site 'z': Silent has no common noise"):
        draw_site(Silent(), "z")
