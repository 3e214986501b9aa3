"""Noise: against draws, scipy's filter and numbers worked out by hand; in sums; and found by gradient steps."""

import math
from collections.abc import Iterator

import pytest
import torch
from pyro import distributions as dist
from scipy.signal import wiener
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.image import ImageMechanism
from pyro_cama.mechanisms.noise import Noise
from pyro_cama.mechanisms.registry import mechanism_named
from tests.helpers.precision import in_double

NODE = Node("i", "image", shape=(1, 28, 28))


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with in_double():
        yield


def theta_of(deviation: float) -> Tensor:
    """theta of noise with this standard deviation, which is bounded at .5."""
    return torch.tensor([10 * 0.25 * math.atanh(deviation**2 / 0.25)])


@pytest.mark.parametrize("deviation", [0.05, 0.2, 0.4])
def test_pixels_get_normal_noise_of_a_variance(deviation: float) -> None:
    pushed = Noise().push(torch.full((200, 1, 20, 20), 0.3), theta_of(deviation))
    assert float(pushed.mean()) == pytest.approx(0.3, abs=0.01)
    assert float(pushed.std()) == pytest.approx(deviation, rel=0.02)
    told = Noise().describe(theta_of(deviation), NODE, {})
    assert told == {"change": pytest.approx(deviation), "noise": pytest.approx(deviation)}


def test_a_normal_likelihood_gets_the_variance_of_both_and_keeps_its_mean() -> None:
    clean = dist.Normal(torch.rand(4, 1, 6, 6), torch.tensor(0.3))
    found = Noise().transform(clean, theta_of(0.4))
    assert isinstance(found, dist.Normal)
    assert torch.equal(found.mean, clean.mean)
    torch.testing.assert_close(found.stddev, torch.full_like(found.mean, 0.5))


def test_a_bernoulli_likelihood_gets_the_mean_grey_of_black_and_white_pixels() -> None:
    black_and_white = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2).expand(20_000, 1, 1, 2)
    grey = Noise().push(black_and_white, theta_of(0.25)).clamp(0.0, 1.0).mean((0, 1, 2))
    clean = dist.Bernoulli(probs=black_and_white[:1], validate_args=False)
    found = Noise().transform(clean, theta_of(0.25)).mean.flatten()
    torch.testing.assert_close(found, grey, atol=0.01, rtol=0.0)


@pytest.mark.parametrize("deviation", [0.05, 0.2, 0.4])
def test_what_is_read_of_the_clean_image_is_scipys_wiener_filter(deviation: float) -> None:
    images = torch.rand(6, 2, 12, 15)
    found = Noise().invert(images, theta_of(deviation), None)
    inside = slice(2, -2)  # scipy has black beyond the frame
    for image, own in zip(images.flatten(0, 1), found.flatten(0, 1), strict=True):
        expected = torch.from_numpy(wiener(image.numpy(), 5, deviation**2))
        torch.testing.assert_close(own[inside, inside], expected[inside, inside])


def test_every_likelihood_has_a_gradient_at_rest() -> None:
    for clean in (dist.Normal(torch.rand(1, 6, 6), 0.3), dist.Bernoulli(probs=torch.rand(1, 6, 6))):
        theta = torch.zeros(1, requires_grad=True)
        Noise().transform(clean, theta).log_prob(torch.rand(1, 6, 6).round()).sum().backward()
        assert theta.grad is not None
        assert theta.grad.isfinite().all()
        assert theta.grad.abs().item() > 1e-3


@pytest.mark.parametrize("name", ["intensity+noise", "noise+intensity"])
def test_in_a_sum_the_mean_moves_first_and_the_noise_is_of_recording(name: str) -> None:
    mechanism = mechanism_named(name, "row", "here")
    assert isinstance(mechanism, ImageMechanism)
    gain, noise = torch.tensor([0.5, 0.1]), theta_of(0.4)
    theta = torch.cat([gain, noise] if name.startswith("intensity") else [noise, gain])
    clean = dist.Normal(torch.rand(2, 1, 6, 6), torch.tensor(0.3))
    found = mechanism.transform(clean, theta)
    torch.testing.assert_close(found.mean, 1.5 * clean.mean + 0.1)
    torch.testing.assert_close(found.stddev, torch.full_like(found.mean, 0.5))
    assert mechanism.random


def test_the_likelihood_finds_the_level_from_rest() -> None:
    clean = dist.Normal(torch.rand(8, 1, 12, 12), torch.tensor(0.1))
    images = Noise().push(clean.sample(), theta_of(0.3))
    theta = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.Adam([theta], lr=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        (-Noise().transform(clean, theta).log_prob(images).mean()).backward()
        optimiser.step()
    assert Noise().describe(theta.detach(), NODE, {})["noise"] == pytest.approx(0.3, rel=0.1)
