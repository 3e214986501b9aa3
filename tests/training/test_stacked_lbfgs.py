"""Many small problems at once: each ends where it would by itself."""

import torch
from torch import Tensor

from pyro_cama.training.stacked_lbfgs import minimise_stacked, rooted, unrooted


def test_quadratics_are_minimised_each_at_its_own_scale() -> None:
    torch.manual_seed(0)
    scales = torch.logspace(0, 3, 6, dtype=torch.float64) * torch.tensor([[0.01], [1.0], [100.0]], dtype=torch.float64)
    centres = torch.randn(3, 6, dtype=torch.float64)
    found = minimise_stacked(
        lambda x: (scales * (x - centres).square()).sum(1), torch.zeros_like(centres), steps=300, tolerance=1e-15
    )
    torch.testing.assert_close(found, centres, atol=1e-4, rtol=0)


def test_a_bent_valley_is_followed_to_its_end() -> None:
    def valley(x: Tensor) -> Tensor:
        return 100 * (x[:, 1] - x[:, 0].square()).square() + (1 - x[:, 0]).square()

    start = torch.tensor([[-1.2, 1.0], [0.0, 0.0], [2.0, -1.0]], dtype=torch.float64)
    found = minimise_stacked(valley, start, steps=300, tolerance=1e-14)
    torch.testing.assert_close(found, torch.ones_like(found), atol=1e-4, rtol=0)


def test_a_problem_does_not_depend_on_those_beside_it() -> None:
    torch.manual_seed(1)
    centres = torch.randn(4, 3, dtype=torch.float64)

    def loss(x: Tensor, c: Tensor) -> Tensor:
        return ((x - c).square() + 0.3 * (x - c).pow(4)).sum(1)

    together = minimise_stacked(lambda x: loss(x, centres), torch.zeros(4, 3, dtype=torch.float64), steps=7)
    for i in range(4):
        alone = minimise_stacked(
            lambda x, i=i: loss(x, centres[i : i + 1]), torch.zeros(1, 3, dtype=torch.float64), steps=7
        )
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-12, rtol=0)


def test_a_problem_without_a_finite_loss_stays_and_holds_up_no_other() -> None:
    def loss(x: Tensor) -> Tensor:
        return (x - 1).square().sum(1) + torch.tensor([0.0, torch.nan])

    found = minimise_stacked(loss, torch.zeros(2, 2))
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0], [0.0, 0.0]]))


def test_steps_never_leave_where_the_loss_is_finite() -> None:
    seen = []

    def loss(x: Tensor) -> Tensor:  # minus a log, its end at 3
        value = x.sum(1) - 3 * x.sum(1).log()
        seen.append(value.detach())
        return value

    found = minimise_stacked(loss, torch.full((1, 1), 0.01), steps=50, tolerance=1e-9)
    assert abs(float(found) - 3) < 1e-2
    assert len(seen) < 100


def test_numbers_that_act_by_their_size_move_off_zero_and_come_back_to_it() -> None:
    even = torch.tensor([False, True])
    x = torch.tensor([[-0.5, -0.25]])
    torch.testing.assert_close(unrooted(rooted(x, even), even), torch.tensor([[-0.5, 0.25]]))
    wanted = torch.tensor([[1.0, 0.0], [1.0, 0.7]])  # |s| at its corner, and off it
    found = minimise_stacked(
        lambda root: (unrooted(root, even) - wanted).square().sum(1), rooted(torch.zeros(2, 2), even), steps=100
    )
    torch.testing.assert_close(unrooted(found, even), wanted, atol=1e-2, rtol=0)
