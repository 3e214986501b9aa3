"""Every way to be quick gives what the plain way gives, float64, 1e-8, values and gradients; and the import is lazy."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import distributions as dist
from torch import Tensor

import pyro_cama
from pyro_cama import CAMA
from pyro_cama.data.batch import Batch
from pyro_cama.handlers.common_noise import common_noise
from pyro_cama.inference.do import clean_do
from pyro_cama.inference.log_weights import LogWeights, _ratio, log_weights
from pyro_cama.likelihoods import LIKELIHOODS, MIN_PROBABILITY, GreyBernoulli, Likelihood, Normal, PixelBernoulli
from pyro_cama.mechanisms.image import moved
from pyro_cama.mechanisms.warp import Warp
from pyro_cama.model.guide import CAMAGuide
from pyro_cama.model.manipulation import Manipulation
from tests.helpers.precision import in_double
from tests.helpers.random_graphs import rows_of, small, specs

CLOSE = {"atol": 1e-8, "rtol": 1e-8}
IMAGE: dict[str, Any] = {
    "target": "y",
    "nodes": {"y": {"type": "categorical", "levels": ["p", "q", "r"]}, "i": {"type": "image", "shape": [1, 7, 6]}},
    "edges": ["y -> i"],
}


def jittered(cama: CAMA) -> CAMA:
    with torch.no_grad():
        for parameter in cama.modules.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return cama


def measured(cama: CAMA, batch: Batch, **options: Any) -> tuple[LogWeights, dict[str, Tensor]]:
    """Log-weights and the gradients of a fixed mixture of them; a parameter without a gradient has a zero one."""
    cama.modules.zero_grad()
    with common_noise(1):
        weights = log_weights(cama.model, cama.guide, batch, **options)
    generator = torch.Generator().manual_seed(0)
    parts = [weights.w, weights.context.expand_as(weights.w)]
    total = torch.stack([(p * torch.rand(p.shape, generator=generator, dtype=p.dtype)).sum() for p in parts]).sum()
    total.backward()
    named = cama.modules.named_parameters()
    return weights, {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in named}


def same(one: tuple[LogWeights, dict[str, Tensor]], other: tuple[LogWeights, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(one[0].w, other[0].w, **CLOSE)
    torch.testing.assert_close(one[0].context.expand_as(one[0].w), other[0].context.expand_as(other[0].w), **CLOSE)
    for name, slope in one[1].items():
        torch.testing.assert_close(slope, other[1][name], **CLOSE, msg=lambda m, n=name: f"{n}: {m}")
    assert any(slope.any() for slope in one[1].values())


# mechanisms at rest --------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(specs(max_nodes=7), st.randoms(use_true_random=False), st.booleans())
def test_mechanisms_at_rest_need_not_be_worked_out(spec: dict[str, Any], rng: Any, trace: bool) -> None:
    with in_double():
        torch.manual_seed(rng.randrange(1000))
        cama = jittered(small(spec, sites=3))
        m = cama.graph.m
        if m is None:
            return
        batch = rows_of(cama, 4, lambda: rng.random() < 0.2)
        options = {
            "do": clean_do(cama.graph),
            "samples": rng.choice([1, 2]),
            "classes": rng.random() < 0.5,
            "trace": trace,
        }
        quick = measured(cama, batch, **options)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Manipulation, "is_identity", lambda self, m: False)
            same(measured(cama, batch, **options), quick)


@pytest.mark.parametrize("mechanism", ["warp", "field", "intensity", "concat", "warp+intensity"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "normal"])
@pytest.mark.parametrize("trace", [False, True])
def test_images_at_rest_are_not_moved(
    monkeypatch: pytest.MonkeyPatch, mechanism: Any, likelihood: str, trace: bool
) -> None:
    with in_double():
        nodes = {**IMAGE["nodes"], "i": {**IMAGE["nodes"]["i"], "likelihood": likelihood, "channels": 3}}
        m = {"dim": 3, "mechanism": {"i": mechanism}}
        cama = jittered(small({**IMAGE, "nodes": nodes, "latents": {"z": {"dim": 2}, "m": m}}, hidden=5))
        batch = rows_of(cama, 4)
        quick = measured(cama, batch, do={"m": 0.0}, samples=2, classes=True, trace=trace)
        monkeypatch.setattr(Manipulation, "is_identity", lambda self, m: False)
        same(measured(cama, batch, do={"m": 0.0}, samples=2, classes=True, trace=trace), quick)


def test_what_is_seen_to_rest() -> None:
    cama = small({**IMAGE, "latents": {"m": {"dim": 2, "scope": "dataset"}}})
    manipulation: Any = cama.manipulation
    assert manipulation.is_identity(torch.zeros(2))
    assert not manipulation.is_identity(torch.tensor([0.0, 0.1]))
    assert not manipulation.is_identity(torch.zeros(3, 2))  # a value a row
    assert not manipulation.is_identity(torch.zeros(2, requires_grad=True))  # its gradient is not zero
    table = small({"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]})
    affine: Any = table.manipulation
    assert affine.is_identity(torch.zeros(affine.dim))
    with affine.calibrated():  # the calibration composes with the identity: there is something to work out
        assert not affine.is_identity(torch.zeros(affine.dim))


def test_a_gradient_in_m_at_zero_is_kept() -> None:
    cama = jittered(small({"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]}))
    assert cama.graph.m is not None
    m = torch.zeros(cama.graph.m.dim, requires_grad=True)
    log_weights(cama.model, cama.guide, rows_of(cama, 3), do={"m": m}).w.sum().backward()
    assert m.grad is not None
    assert m.grad.any()


# closed forms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (3, 2, 4), (1, 1, 4)])
def test_the_ratio_of_a_draw(shape: tuple[int, ...]) -> None:
    with in_double():
        loc, scale = torch.randn(4, 3, requires_grad=True), torch.rand(4, 3).add(0.1).requires_grad_()
        prior = dist.Normal(torch.zeros(3), torch.ones(3)).to_event(1)
        q = dist.Normal(loc, scale).to_event(1).expand(shape)
        value = q.rsample()
        weight = torch.rand(shape)
        found, expected = _ratio(prior, q, value), prior.log_prob(value) - q.log_prob(value)
        torch.testing.assert_close(found, expected, **CLOSE)
        slopes = [torch.autograd.grad((r * weight).sum(), [loc, scale], retain_graph=True) for r in (found, expected)]
        for one, other in zip(*slopes, strict=True):
            torch.testing.assert_close(one, other, **CLOSE)
            assert one.any()


@pytest.mark.parametrize(
    "q",
    [
        dist.StudentT(torch.tensor(5.0), torch.zeros(4, 3), torch.ones(4, 3)).to_event(1),
        dist.MultivariateNormal(torch.zeros(4, 3), torch.eye(3) + 0.5),
        dist.LogNormal(torch.zeros(4, 3), torch.ones(4, 3)).to_event(1),
    ],
)
def test_the_ratio_of_any_other_draw(q: Any) -> None:
    prior = dist.Normal(torch.zeros(3), torch.ones(3)).to_event(1)
    value = q.rsample()
    torch.testing.assert_close(_ratio(prior, q, value), prior.log_prob(value) - q.log_prob(value))


@pytest.mark.parametrize("name", [n for n, likelihood in LIKELIHOODS.items() if likelihood.constants])
def test_constants_beside_what_depends_on_the_causes(name: str) -> None:
    with in_double():
        likelihood = LIKELIHOODS[name]
        size = {"normal": 2, "student_t": 3, "negative_binomial": 2}[name]
        free = torch.randn(3, 1, 5, 4, size - likelihood.constants)
        constants = torch.randn(4, likelihood.constants)
        whole = torch.cat([free, constants.expand(*free.shape[:-1], -1)], -1)
        x = torch.randint(0, 5, (5, 4)).double()
        found, expected = likelihood.joined(free, constants), likelihood.distribution(whole)
        torch.testing.assert_close(found.log_prob(x), expected.log_prob(x), **CLOSE)


class Doubled(Normal):
    """Says how its numbers become a distribution, and that ``joined`` is to ask for it."""

    joined = Likelihood.joined

    def distribution(self, params: Tensor) -> Any:
        return dist.Normal(2 * params[..., 0], 1.0)


def test_a_likelihood_that_overrides_the_distribution_is_asked_for_it() -> None:
    found: Any = Doubled().joined(torch.ones(3, 1), torch.zeros(1))
    assert found.mean.tolist() == [2.0] * 3
    with pytest.raises(
        TypeError, match=r"Own gets its distribution from Own, and a joined .*: joined = Likelihood.joined"
    ):
        type("Own", (Normal,), {"distribution": Doubled.distribution})


def test_intensities_are_scored_as_bernoulli_scores_them() -> None:
    with in_double():
        logits = torch.randn(2, 3, 1, 4, 4, 1).mul(4).requires_grad_()
        x = torch.rand(3, 1, 4, 4)
        found: Any = PixelBernoulli().distribution(logits)
        assert type(found) is GreyBernoulli
        for d in (found, moved(found, lambda mean: 0.5 * mean), found.expand((5, 2, 3, 1, 4, 4))):
            assert type(d) is GreyBernoulli
            expected = dist.Bernoulli(probs=d.probs, validate_args=False).log_prob(x)  # type: ignore[attr-defined]
            torch.testing.assert_close(d.log_prob(x), expected, **CLOSE)
            (one,) = torch.autograd.grad(d.log_prob(x).square().sum(), [logits], retain_graph=True)
            (other,) = torch.autograd.grad(expected.square().sum(), [logits], retain_graph=True)
            torch.testing.assert_close(one, other, **CLOSE)
        edge = GreyBernoulli(probs=torch.tensor([MIN_PROBABILITY, 1 - MIN_PROBABILITY]), validate_args=False)
        torch.testing.assert_close(edge.log_prob(torch.tensor([0.0, 1.0])).exp(), torch.full((2,), 1 - MIN_PROBABILITY))


def test_a_warp_keeps_the_kind_of_distribution() -> None:
    d = PixelBernoulli().distribution(torch.randn(3, 1, 4, 4, 1))
    assert type(Warp().transform(d, torch.randn(3, 6) * 0.1)) is GreyBernoulli


# plates and columns of one -------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(specs(max_nodes=7), st.randoms(use_true_random=False), st.booleans())
def test_one_draw_is_the_first_of_a_plate_of_draws(spec: dict[str, Any], rng: Any, trace: bool) -> None:
    """With one draw the samples' plate is left out."""
    with in_double():
        torch.manual_seed(rng.randrange(1000))
        cama = jittered(small(spec, sites=3))
        batch = rows_of(cama, 4)
        found = {}
        for samples in (1, 2):
            with common_noise(5):
                found[samples] = log_weights(cama.model, cama.guide, batch, samples=samples, trace=trace)
        assert found[1].w.shape == (1, 1, 4)
        # what log p(a, c) varies by is part of w, relative to the mean over all draws
        one, two = (some.w + some.context.expand_as(some.w) for some in found.values())
        torch.testing.assert_close(one, two[:1], **CLOSE)


class Bare(CAMAGuide):
    """A posterior of z that no row has a part in."""

    def z_dist(self, batch: Batch, y: Tensor | None, m: Tensor | None) -> Any:
        assert self.graph.z is not None
        return dist.Normal(torch.zeros(self.graph.z.dim), 1.0).to_event(1)


@pytest.mark.parametrize("trace", [False, True])
def test_a_posterior_without_rows_is_drawn_for_each_of_them(trace: bool) -> None:
    spec = {"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]}
    cama = small(spec, guide=Bare)
    batch = Batch({"y": torch.ones(6), "x": torch.ones(6)}, {}, None, 6)
    pyro.set_rng_seed(0)
    assert len(log_weights(cama.model, cama.guide, batch, do={"m": 0.0}, trace=trace).w.unique()) == 6


@settings(max_examples=40)
@given(specs(max_nodes=7), st.randoms(use_true_random=False), st.booleans())
def test_flags_of_missing_values_are_left_out_where_none_is_missing(
    spec: dict[str, Any], rng: Any, trace: bool
) -> None:
    with in_double():
        torch.manual_seed(rng.randrange(1000))
        cama = jittered(small(spec, sites=3))
        batch = rows_of(cama, 4)
        flagged = Batch(batch.values, {n: torch.ones(4, dtype=torch.bool) for n in batch.values}, batch.site, 4)
        options: dict[str, Any] = {"samples": 2, "classes": rng.random() < 0.5, "trace": trace}
        same(measured(cama, flagged, **options), measured(cama, batch, **options))


@settings(max_examples=40)
@given(specs(max_nodes=7), st.randoms(use_true_random=False))
def test_a_power_is_the_same_traced_and_grouped(spec: dict[str, Any], rng: Any) -> None:
    with in_double():
        torch.manual_seed(rng.randrange(1000))
        cama = jittered(small(spec, sites=3))
        batch = rows_of(cama, 4)
        options: dict[str, Any] = {"samples": 2, "classes": rng.random() < 0.5, "power": 0.3}
        same(measured(cama, batch, trace=True, **options), measured(cama, batch, trace=False, **options))


# the package ---------------------------------------------------------------------------------------------------------


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@settings(max_examples=40)
@given(specs(max_nodes=7), st.randoms(use_true_random=False), st.sampled_from([1, 2, 3, 6]))
def test_draws_of_a_shared_m_in_runs_are_the_same_traced_and_grouped(spec: dict[str, Any], rng: Any, runs: int) -> None:
    torch.manual_seed(rng.randrange(1000))
    with in_double():
        cama = jittered(small(spec, sites=3, seed=rng.randrange(1000)))
        batch = rows_of(cama, 5, missing=lambda: rng.random() < 0.3)
        options: dict[str, Any] = {"samples": 6, "classes": True, "m_samples": runs}
        traced, grouped = (measured(cama, batch, trace=trace, **options) for trace in (True, False))
        same(traced, grouped)
        if grouped[0].shared is None:  # every row has its own m, or there is none
            same(grouped, measured(cama, batch, samples=6, classes=True))
            return
        assert traced[0].shared is not None
        torch.testing.assert_close(traced[0].shared, grouped[0].shared, **CLOSE)
        if cama.graph.require_m().per_row:  # a draw of every row's own m takes one of what rows share with it
            return
        each = grouped[0].shared.unflatten(0, (runs, -1))
        assert torch.equal(each, each[:, :1].expand_as(each))
        assert len(each[:, 0].unique(dim=0)) == runs


def test_the_import_alone_loads_nothing() -> None:
    heavy = ("torch", "pyro", "pandas", "numpy", "networkx", "lightning", "torchvision", "scipy", "pydantic")
    assert run(f"import sys, pyro_cama; print([m for m in {heavy} if m in sys.modules])") == "[]"


@pytest.mark.parametrize(
    "code",
    [
        "import pyro_cama.simulation, pyro_cama; print(callable(pyro_cama.simulate))",
        "from pyro_cama.simulation import Shift; from pyro_cama import simulate; print(callable(simulate))",
        "import pyro_cama; pyro_cama.simulate; import pyro_cama.simulation as s; print(pyro_cama.Shift is s.Shift)",
        "import pyro_cama; print(pyro_cama.inference.log_weights.log_weights.__name__ == 'log_weights')",
        "from pyro_cama import *; print(build.__name__ == 'build')",
    ],
)
def test_names_and_modules_are_found_whatever_came_first(code: str) -> None:
    assert run(code) == "True"


def test_every_public_name_is_there() -> None:
    homes: Callable[[str], Any] = vars(pyro_cama)["_HOMES"].get
    for name in pyro_cama.__all__:
        assert getattr(pyro_cama, name).__name__ == name
        assert homes(name)
        assert name in dir(pyro_cama)
    with pytest.raises(AttributeError, match="module 'pyro_cama' has no attribute 'nothing'"):
        pyro_cama.nothing  # noqa: B018
    assert not hasattr(pyro_cama, "__wrapped__")
