"""Class proportions of rows without labels: where they are told, and where the training ones stand."""

import numpy as np
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_cama.inference.class_prior import estimate_proportions, posterior_mode


def test_proportions_found_without_labels() -> None:
    rng = np.random.default_rng(0)
    true = np.array([0.1, 0.9])
    x = rng.normal(rng.choice([-1.0, 1.0], 20_000, p=true), 1.0)
    train = torch.tensor([0.6, 0.4], dtype=torch.float64)
    joint = dist.Normal(torch.tensor([[-1.0], [1.0]]), 1.0).log_prob(torch.tensor(x)) + train.log()[:, None]
    found = estimate_proportions(torch.log_softmax(joint, 0), train)
    assert found.numpy() == pytest.approx(true, abs=0.02)


def informative(distance: float, share: float, rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """log p(y | x) under training proportions .6/.4 of x from N(-distance / 2, 1) or N(distance / 2, 1), and y."""
    generator = torch.Generator().manual_seed(seed)
    y = (torch.rand(rows, generator=generator) < share).long()
    x = torch.randn(rows, generator=generator, dtype=torch.float64) + distance * (y - 0.5)
    joint = torch.stack([-distance * x / 2, distance * x / 2]) + torch.tensor([[0.6], [0.4]]).double().log()
    return torch.log_softmax(joint, 0), y


def test_a_single_row_keeps_its_probabilities() -> None:
    train = torch.tensor([0.4, 0.6], dtype=torch.float64)
    assert torch.equal(estimate_proportions(torch.tensor([[0.4], [0.6]], dtype=torch.float64).log(), train), train)
    sure = torch.tensor([[1e-9], [1 - 1e-9]], dtype=torch.float64).log()
    assert float((estimate_proportions(sure, train) - train).abs().max()) < 0.05
    rare = torch.tensor([0.99, 0.01], dtype=torch.float64)  # a row of a rare class rejects the mix, and is one row
    assert float(estimate_proportions(sure, rare)[1]) == pytest.approx((1 + 10 * 0.01) / 11, abs=1e-3)


@pytest.mark.parametrize("distance", [0.1, 0.5, 2.0])  # accuracy .6, .6, .84
def test_estimated_proportions_never_cost_much_and_gain_what_is_to_gain(distance: float) -> None:
    train = torch.tensor([0.6, 0.4], dtype=torch.float64)

    def losses(share: float, rows: int) -> tuple[float, float]:
        both = []
        for seed in range(max(20, 200 // rows)):
            log_p, y = informative(distance, share, rows, seed)
            new = torch.log_softmax(log_p + (estimate_proportions(log_p, train) / train).log()[:, None], 0)
            both.append([float(-p.gather(0, y[None]).mean()) for p in (log_p, new)])
        return tuple(np.mean(both, 0))

    for rows in (1, 5, 20, 100, 300):  # the training mix
        before, after = losses(0.4, rows)
        assert after < before + 0.02, rows
    before, after = losses(0.95, 1000)
    assert after < before + 0.01
    if distance >= 0.5:
        assert after < before - (0.4 if distance < 1 else 0.2)


@pytest.mark.parametrize("sureness", [1.0, 3.0])
def test_readings_that_tell_little_do_not_collapse_onto_a_class(sureness: float) -> None:
    """Of ten draws at the training mix most keep it, though EM alone would go far, also with p(y | x) too sure."""
    train, kept, far = torch.tensor([0.6, 0.4], dtype=torch.float64), 0, 0
    for seed in range(10):
        log_p, _ = informative(0.1, 0.4, 200, seed)
        odds = sureness * (log_p[1] - log_p[0] - np.log(0.4 / 0.6))
        log_p = torch.log_softmax(torch.stack([torch.zeros_like(odds), odds]) + train.log()[:, None], 0)
        kept += int(torch.equal(estimate_proportions(log_p, train), train))
        far += int(float((posterior_mode(log_p, train, 0.0, 1000) - train).abs().max()) > 0.2)
    assert kept >= 8
    assert sureness > 1 or far >= 5
