"""Log-probabilities of counts in float32 beside those of float64, for counts and means from 0 to 1e8."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pyro_cama.counts import GammaPoisson, Poisson

MEANS = (1e-6, 0.5, 5.0, 100.0, 1e4, 1e6, 1e8)
CONCENTRATIONS = (0.01, 0.5, 10.0, 1e3, 1e6)


def counts_near(mean: float, sd: float) -> Any:
    """Counts of all sizes, and some within a few standard deviations."""
    near = mean + np.array([-4.0, -1.0, -0.1, 0.0, 0.1, 1.0, 4.0]) * sd
    far = [0.0, 1.0, 2.0, 5.0, 7.0, 8.0, 9.0, 100.0, 1e4, 1e6, 1e8]
    return np.unique(np.r_[far, near.clip(0)].round().astype(np.float32)).astype(float)


def expect_close(found: Tensor, expected: Any) -> None:
    """To .002 nats where there is any probability, else to 2e-6 of them."""
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=2e-6, atol=4e-3)


@pytest.mark.parametrize("mean", MEANS)
def test_poisson_in_float32(mean: float) -> None:
    rate = float(np.float32(mean))
    x = counts_near(mean, mean**0.5)
    expect_close(
        Poisson(torch.tensor(rate)).log_prob(torch.tensor(x, dtype=torch.float32)), stats.poisson.logpmf(x, rate)
    )


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
@pytest.mark.parametrize("mean", MEANS)
def test_gamma_poisson_in_float32(mean: float, concentration: float) -> None:
    r = torch.tensor(concentration)
    rate = r / torch.tensor(mean)
    x = counts_near(mean, mean * (1 / mean + 1 / concentration) ** 0.5)
    p = rate.double() / (1 + rate.double())
    expected = stats.nbinom.logpmf(x, float(r), float(p))
    expect_close(GammaPoisson(r, rate).log_prob(torch.tensor(x, dtype=torch.float32)), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mean", [0.5, 1e4, 1e8])
@pytest.mark.parametrize("x", [0.0, 1.0, 1e4, 1e8])
def test_slopes_are_those_of_the_textbook_form(mean: float, x: float, dtype: torch.dtype) -> None:
    def slopes(kind: Any, dtype: torch.dtype) -> Tensor:
        numbers = torch.tensor([10.0, mean], dtype=dtype, requires_grad=True)
        value = torch.tensor(x, dtype=dtype)
        log_p = Poisson(numbers[1]).log_prob(value) + kind(numbers[0], numbers[0] / numbers[1]).log_prob(value)
        slopes: Tensor = torch.autograd.grad(log_p, numbers)[0] * numbers  # by their logarithms
        return slopes.detach().double()

    def textbook(r: Tensor, rate: Tensor) -> Any:
        return torch.distributions.NegativeBinomial(r, probs=1 / (1 + rate))

    expected = slopes(textbook, torch.float64)
    tolerance = 1e-4 if dtype is torch.float32 else 1e-7
    torch.testing.assert_close(slopes(GammaPoisson, dtype), expected, rtol=tolerance, atol=tolerance)


def test_expanded_ones_are_scored_the_same_way() -> None:
    x = torch.tensor(1e8)
    for one in (Poisson(x), GammaPoisson(torch.tensor(10.0), 10 / x)):
        wide = one.expand([3])
        assert type(wide) is type(one)
        torch.testing.assert_close(wide.log_prob(x), one.log_prob(x).expand(3))
