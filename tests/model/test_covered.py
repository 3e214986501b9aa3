"""Images over which something lies: densities by hand, in double precision, and what the guide is shown of them."""

import itertools
import math
from typing import Any

import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

import pyro_cama
from pyro_cama import CAMA
from pyro_cama.data.batch import Batch
from pyro_cama.handlers.common_noise import common_noise
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.likelihoods import GreyBernoulli
from pyro_cama.model.covered import Covered, log_shape
from pyro_cama.model.groups import MovedGroup
from tests.helpers.precision import in_double


def digits(mechanism: str, dim: int = 8) -> CAMA:
    graph = {
        "target": "y",
        "nodes": {"y": "binary", "i": {"type": "image", "shape": [1, 8, 8], "channels": 4}},
        "edges": ["y -> i"],
        "latents": {"z": {"dim": 2}, "m": {"dim": dim, "mechanism": mechanism}},
    }
    return pyro_cama.build(graph, hidden=8, layers=1, device="cpu", seed=0)


def group_of(cama: CAMA) -> MovedGroup:
    (group,) = cama.manipulation.groups
    return group


@in_double()
def test_the_ways_in_which_pixels_can_be_hidden_sum_to_one() -> None:
    """On an image of 2 x 3 pixels, over all 64 of them."""
    seen = dist.Normal(torch.zeros(1, 2, 3), 1.0)
    x, total = torch.randn(1, 2, 3), 0.0
    for bits in itertools.product([False, True], repeat=6):
        hidden = torch.tensor(bits).reshape(1, 2, 3)
        found = Covered(seen, hidden, torch.tensor([[[True]]])).log_prob(x).sum()
        total += math.exp(float(found - (seen.log_prob(x) * ~hidden).sum()))  # a hidden intensity's density is 1
    assert total == pytest.approx(1.0)


@in_double()
def test_the_density_of_a_shape_by_hand_and_shapes_are_likelier_than_scattered_pixels() -> None:
    """One pixel of 3 x 3, in the middle: its right and its three lower neighbours have it among theirs, each alone."""
    one = torch.zeros(1, 3, 3, dtype=torch.bool)
    assert float(log_shape(one)) == pytest.approx(-math.log(10))
    one[0, 1, 1] = True
    of_others = math.log(1 / 2)  # right of it; right below, below and left below: a context each, none hidden
    assert float(log_shape(one)) == pytest.approx(-math.log(6 * 5) + 4 * of_others)
    stripe, scattered = torch.zeros(2, 1, 28, 28, dtype=torch.bool)
    stripe[:, :, 10:17] = True
    scattered.view(-1)[torch.randperm(784)[: int(stripe.sum())]] = True
    assert -60 > float(log_shape(scattered)) + 300 > -200
    assert -60 < float(log_shape(stripe)) < -10
    both = torch.stack([stripe, scattered])
    assert torch.equal(log_shape(both)[0], log_shape(stripe))


@in_double()
@pytest.mark.parametrize("manipulated", [False, True])
def test_hidden_pixels_are_of_one_colour_whatever_the_image(manipulated: bool) -> None:
    x, probs = torch.rand(2, 3, 4, 5), 0.01 + 0.98 * torch.rand(2, 3, 4, 5)
    hidden = torch.rand(2, 1, 4, 5) < 0.4
    seen = GreyBernoulli(probs=probs, validate_args=False)
    found = Covered(seen, hidden, torch.full((2, 1, 1, 1), manipulated)).log_prob(x)
    n, lit = hidden.sum((2, 3)).double(), (x * hidden).sum((2, 3))
    ink = torch.special.gammaln(lit + 1) + torch.special.gammaln(n - lit + 1) - torch.special.gammaln(n + 2)
    as_covered = torch.where(hidden, 0.0, seen.log_prob(x)).sum((1, 2, 3)) + ink.sum(1) + log_shape(hidden).flatten()
    expected = as_covered if manipulated else seen.log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(found.sum((1, 2, 3)), expected, atol=1e-5, rtol=0)
    if not manipulated:
        assert torch.equal(found, seen.log_prob(x))


def test_it_expands_draws_and_has_the_mean_of_what_lies_beneath() -> None:
    seen = dist.Normal(torch.rand(3, 4, 5), 0.1)
    covered = Covered(seen, torch.rand(7, 1, 4, 5) < 0.5, torch.ones(7, 1, 1, 1, dtype=torch.bool))
    assert covered.batch_shape == (7, 3, 4, 5)
    assert torch.equal(covered.mean, seen.loc.expand(7, 3, 4, 5))
    larger = covered.expand((2, 7, 3, 4, 5))
    assert larger.sample().shape == larger.rsample().shape == (2, 7, 3, 4, 5)
    x = torch.rand(7, 3, 4, 5)
    assert torch.equal(larger.log_prob(x)[1], covered.log_prob(x))


def test_what_has_left_the_frame_is_unknown_to_the_guide() -> None:
    """Shifted by two pixels to the right: nothing is known of the clean image's last two columns."""
    cama, x = digits("warp"), torch.rand(3, 1, 8, 8)
    group, theta = group_of(cama), torch.tensor([0.5, 0.0, 0.0, 0.0, 0.0, 0.0])
    back = cama.manipulation.undo({"i": x}, theta, group)["i"]
    assert back[..., 6:].isnan().all()
    torch.testing.assert_close(back[..., :6], x[..., 2:], atol=0.05, rtol=0)  # bounded: 1.96 pixels
    again = cama.manipulation.undo({"i": back}, -theta, group)["i"]  # what was unknown stays so, where it comes to lie
    assert again[..., :2].isnan().all()
    assert not again[..., 2:].isnan().any()


def found_at(cama: CAMA, hidden: Tensor) -> None:
    """Has the network of hidden pixels find these, bool ``(1, 8, 8)``, whatever the image."""

    class Told(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.where(hidden, 5.0, -5.0).to(images).expand(len(images), 1, 8, 8)

    cama.manipulation.detectors._modules["items_"]._modules["0"] = Told()  # type: ignore[union-attr]


def rows_of(x: Tensor) -> Batch:
    return Batch({"i": x, "y": torch.zeros(len(x))}, {}, None, len(x))


def weights_of(cama: CAMA, x: Tensor, m: Tensor, **options: Any) -> Tensor:
    with common_noise(0):
        return log_weights(cama.model, cama.guide, rows_of(x), do={"m": m}, classes=True, **options).w


@pytest.mark.parametrize("trace", [True, False])
def test_hidden_pixels_tell_nothing_of_the_class(trace: bool) -> None:
    """Whatever lies there, the classes' weights differ by as much; under do(m=0) it is part of the image."""
    cama = digits("warp+overlay")
    hidden = torch.zeros(1, 8, 8, dtype=torch.bool)
    hidden[:, 2:5] = True
    found_at(cama, hidden)
    present = torch.zeros(7)
    present[6] = 2.0
    m = torch.eye(8)[0]
    cama.manipulation.solve_for(m[None], present[None])
    x = torch.rand(4, 1, 8, 8)
    other = torch.where(hidden, torch.rand(4, 1, 8, 8), x)
    with torch.no_grad():
        one, two = (weights_of(cama, images, m, trace=trace) for images in (x, other))
        torch.testing.assert_close(one.diff(dim=1), two.diff(dim=1), atol=1e-3, rtol=0)
        still = [weights_of(cama, images, torch.zeros(8), trace=trace) for images in (x, other)]
    assert (still[0].diff(dim=1) - still[1].diff(dim=1)).abs().min() > 0.01
    back = cama.manipulation.undo({"i": x}, cama.manipulation(m), group_of(cama))["i"]
    assert torch.equal(back.isnan(), hidden.expand(4, 1, 8, 8))


def test_without_an_overlay_nothing_is_hidden_and_a_graph_without_one_has_no_network() -> None:
    assert not list(digits("warp+intensity").manipulation.detectors)
    cama = digits("warp+blur+overlay")
    assert list(cama.manipulation.detectors) == ["i"]
    x, group = torch.rand(5, 1, 8, 8), group_of(cama)
    hidden, manipulated = cama.manipulation.hidden_pixels(x, torch.zeros(5, 8), group) or ()
    assert not hidden.any()
    assert not manipulated.any()
    assert not {n for n in cama.manipulation_parameters() if "detector" in n}


def test_the_posterior_of_m_is_shown_which_pixels_seem_hidden() -> None:
    cama, x = digits("warp+overlay"), torch.rand(4, 1, 8, 8)
    before = cama.guide.m_dist(rows_of(x)).mean
    hidden = torch.zeros(1, 8, 8, dtype=torch.bool)
    hidden[:, 2:5] = True
    found_at(cama, hidden)
    after = cama.guide.m_dist(rows_of(x)).mean
    assert (before - after).abs().max() > 1e-3
    torch.testing.assert_close(cama.guide.m_dist(rows_of(torch.where(hidden, 0.0, x))).mean, after)


def test_an_overlay_comes_last() -> None:
    with pytest.raises(pyro_cama.GraphError, match=r"'overlay\+warp': found a part behind one that hides pixels"):
        digits("overlay+warp")
