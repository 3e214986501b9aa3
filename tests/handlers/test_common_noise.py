"""Common noise: the right distributions, and the same noise for every row and class."""

import pytest
import torch
from pyro import distributions as dist
from pyro.distributions import transforms
from torch import Tensor

from pyro_cama.handlers.common_noise import NoCommonNoise, common_noise, draw_site

ROWS = torch.tensor([0.5, -1.0, 0.5])  # the first and the last alike
LOC = ROWS[:, None] * torch.tensor([1.0, 2.0])
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 2.0]])
FACTOR = torch.tensor([[1.0, 0.5], [-1.0, 0.5]])
SCALARS = {
    "normal": dist.Normal(ROWS, 2.0),
    "bernoulli": dist.Bernoulli(logits=ROWS),
    "categorical": dist.Categorical(logits=ROWS[:, None] * torch.tensor([1.0, 0.0, -1.0])),
    "laplace": dist.Laplace(ROWS, 0.5),
    "log-normal": dist.LogNormal(ROWS, 0.3),
    "student-t": dist.StudentT(torch.tensor([3.0, 8.0, 3.0]), ROWS, 0.5),
    "gamma": dist.Gamma(ROWS.exp() / 2, 0.7),
    "poisson": dist.Poisson(9 * ROWS.exp()),
    "rare poisson": dist.Poisson(0.1 * ROWS.exp()),
    "negative binomial": dist.GammaPoisson(ROWS.exp(), 0.1),
    "affine": dist.TransformedDistribution(dist.Laplace(ROWS, 0.5), [transforms.AffineTransform(1.0, -2.0)]),
}
VECTORS = {
    "normal": dist.Normal(LOC, torch.tensor([1.0, 2.0])).to_event(1),
    "full": dist.MultivariateNormal(LOC, COVARIANCE),
    "low rank": dist.LowRankMultivariateNormal(LOC, FACTOR, torch.tensor([0.5, 1.0])),
    "log-normal": dist.LogNormal(LOC, 0.3).to_event(1),
    "flow": dist.TransformedDistribution(
        dist.Normal(LOC, 1.0).to_event(1), [transforms.LowerCholeskyAffine(torch.zeros(2), FACTOR.abs().tril())]
    ),
}


def drawn(d: dist.TorchDistribution, samples: int = 20_000) -> Tensor:
    with common_noise(seed=0):
        return draw_site(d.expand(torch.Size((samples, 2, 3))), "z")


@pytest.mark.parametrize("kind", SCALARS)
def test_scalars(kind: str) -> None:
    d = SCALARS[kind]
    found = drawn(d)
    assert found.shape == (20_000, 2, 3)
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found[..., 0], found[..., 2])
    independent = d.sample(torch.Size((20_000,))).double()
    # equal quantiles, by the Kolmogorov-Smirnov distance
    grid = independent.quantile(torch.linspace(0.02, 0.98, 25).double(), 0)
    for row in range(3):
        share = [
            (values[:, None] <= grid[:, row]).double().mean(0) for values in (found[:, 0, row], independent[:, row])
        ]
        assert (share[0] - share[1]).abs().max() < 0.02


@pytest.mark.parametrize("kind", VECTORS)
def test_vectors(kind: str) -> None:
    d = VECTORS[kind]
    found = drawn(d)
    assert found.shape == (20_000, 2, 3, 2)
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found[..., 0, :], found[..., 2, :])
    independent = d.sample(torch.Size((20_000,)))
    for row in range(3):
        assert torch.allclose(found[:, 0, row].mean(0), independent[:, row].mean(0), atol=0.08)
        expected = torch.cov(independent[:, row].T)
        assert torch.allclose(torch.cov(found[:, 0, row].T), expected, atol=0.08 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", SCALARS)
def test_noise_depends_on_seed_and_name_alone(kind: str) -> None:
    d = SCALARS[kind].expand(torch.Size((64, 2, 3)))

    def one(seed: int, name: str) -> Tensor:
        torch.rand(3)
        with common_noise(seed):
            return draw_site(d, name)

    assert torch.equal(one(0, "z"), one(0, "z"))
    assert not torch.equal(one(0, "z"), one(1, "z"))
    assert not torch.equal(one(0, "z"), one(0, "m"))


def test_a_distribution_without_common_noise_says_so() -> None:
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(3, 2)), dist.Normal(torch.zeros(3, 2), 1.0))
    for d in (dist.VonMises(ROWS, 2.0), mixture):
        with common_noise(seed=0, strict=True), pytest.raises(NoCommonNoise, match=rf"'z': {type(d).__name__}"):
            draw_site(d, "z")
        before = torch.get_rng_state()
        with common_noise(seed=0):
            assert torch.equal(draw_site(d, "z"), draw_site(d, "z"))
        assert torch.equal(torch.get_rng_state(), before)


def test_quantiles_of_large_and_tiny_rates() -> None:
    def values(d: dist.TorchDistribution) -> Tensor:
        with common_noise(seed=0):
            return draw_site(d.expand(torch.Size((20_000, 1, 1))), "z").double().flatten()

    large = values(dist.Poisson(torch.tensor(1e6)))
    assert abs(float(large.mean()) - 1e6) < 4 * 1e3 / 20_000**0.5
    assert abs(float(large.std()) / 1e3 - 1) < 0.02
    assert not values(dist.Poisson(torch.tensor(1e-9))).any()
    thin = values(dist.Gamma(torch.tensor(0.01), torch.tensor(1.0)))  # nearly all mass at zero
    assert (thin > 0).all()
    assert thin.median() < 1e-20
