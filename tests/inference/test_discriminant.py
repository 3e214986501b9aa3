"""Sums over rows where classes differ in their means alone: those of the model, and their gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_cama import CAMA, Mechanism
from pyro_cama.inference.discriminant import Classes, Rows, differ_in_means, scored
from pyro_cama.inference.exact import joint_of_thetas, summed_evidence
from pyro_cama.mechanisms import Affine
from pyro_cama.mechanisms.base import Line
from pyro_cama.training.objective import fit_loss
from pyro_cama.training.summed_loss import SummedLoss, can_sum
from tests.helpers.precision import in_double
from tests.helpers.training import COLUMNS
from tests.training.test_whole_table import fitted, spec, styled

PROBLEMS, SITES, MOST, WIDTH, DIM, CLASSES = 2, 3, 6, 4, 2, 3


def given(seed: int = 0) -> tuple[Rows, list[Tensor]]:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=draw)

    rows = Rows.of(normal(SITES, WIDTH, MOST), (normal(PROBLEMS, SITES, MOST) > 0).double())
    of_classes = [normal(CLASSES, WIDTH), normal(WIDTH, DIM), normal(WIDTH).exp()]
    lines = [normal(PROBLEMS, SITES, WIDTH) for _ in range(3)] + [normal(PROBLEMS, SITES, WIDTH).exp()]
    return rows, [part.requires_grad_() for part in of_classes + lines]


def test_scores_are_those_of_normal_densities() -> None:
    rows, parts = given()
    (means, loadings, variances), lines = parts[:3], Line(*parts[3:])
    shared, apart = scored(rows, Classes(means, loadings, variances), lines)
    clean = lines.slope.unsqueeze(-2) * rows.x.mT + lines.offset.unsqueeze(-2)
    noise = torch.diag_embed(variances + lines.variance).unsqueeze(2)
    for y, mean in enumerate(means):
        normal = torch.distributions.MultivariateNormal(mean, loadings @ loadings.mT + noise)
        expected = ((normal.log_prob(clean) + lines.log_slope.sum(-1, keepdim=True)) * rows.weights).sum(-1)
        torch.testing.assert_close(shared + (apart[:, :, y] * rows.weights).sum(-1), expected, atol=1e-8, rtol=1e-8)


def test_the_gradient_by_hand_is_that_of_finite_differences() -> None:
    rows, parts = given(1)

    def of(*some: Tensor) -> tuple[Tensor, Tensor]:
        return scored(rows, Classes(*some[:3]), Line(*some[3:]))

    assert torch.autograd.gradcheck(of, parts)


def model_of(edges: list[str], **latents: Any) -> CAMA:
    """A child that is a count, and one that is moved and causes another, beside those of the style."""
    graph = spec(loadings="shared", children=COLUMNS)
    graph["latents"] |= latents
    graph["nodes"] = {**graph["nodes"], "n": "count", "k": {"type": "categorical", "levels": ["a", "b", "c"]}}
    graph["edges"] = [*graph["edges"], ["y", "n"], *(edge.split(" -> ") for edge in edges)]
    return fitted(frame_of(300), graph, max_epochs=3)


def frame_of(rows: int) -> Any:
    return styled(rows).assign(n=range(rows), k=["abc"[i % 3] for i in range(rows)], site=[i % 2 for i in range(rows)])


@pytest.mark.parametrize("scope", ["dataset", "site"])
@pytest.mark.parametrize("edges", [[], ["k -> y"], ["y -> k"], ["x0 -> n"]])
def test_sums_are_those_of_the_joint_density_of_every_row(edges: list[str], scope: str) -> None:
    with in_double():
        cama = model_of(edges, m={"dim": 8, "scope": scope, "affects": {"x0": "measurement"}})
        batch = cama.encode(frame_of(40).assign(site=[f"{i % 2}" if i % 5 else "new" for i in range(40)]), "ignore")
        draw = torch.Generator().manual_seed(0)
        theta = torch.randn(3, cama.model.sites, cama.manipulation.size, generator=draw) * 0.5
        ratio, weights = torch.randn(3, 2, generator=draw), (torch.rand(3, 40, generator=draw) < 0.7).double()
        assert differ_in_means(cama.model, batch)
        with cama.manipulation.calibrated():
            found = summed_evidence(cama.model, batch, weights)(theta, ratio)
            joint, _ = joint_of_thetas(cama.model, batch, theta)
    expected = (torch.logsumexp(joint + ratio[:, :, None], 1) * weights).sum(1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-8)


@pytest.mark.parametrize("edges", [[], ["k -> y", "x0 -> n"]])
def test_the_loss_of_a_fit_is_that_of_every_row(edges: list[str]) -> None:
    with in_double():
        cama = model_of(edges)
        batch = cama.encode(frame_of(40))
        assert can_sum(cama.model, batch)
        options: dict[str, Any] = {"mixing": 0.5, "interventions": None, "conditional_weight": 30.0, "samples": 1}
        expected = fit_loss(cama.model, cama.guide, None, **options)(batch)
        found = SummedLoss(cama.model, batch, 30.0)()
        moving = [p for p in cama.model.parameters() if p.requires_grad]
        gradients = [torch.autograd.grad(loss, moving, allow_unused=True) for loss in (expected, found)]
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)
    for one, other in zip(*gradients, strict=True):
        if one is not None or other is not None:
            torch.testing.assert_close(other, one, atol=1e-8, rtol=1e-6)


def test_what_no_line_maps_and_what_is_missing_goes_the_general_way() -> None:
    class Bent(Affine):
        def pull_back(self, x: Tensor, theta: Tensor) -> Any:
            return super().pull_back(x, theta)

    assert Affine.linear
    assert not Bent.linear
    assert not Mechanism.linear
    cama = fitted(graph=spec(loadings="shared"), max_epochs=1)
    whole = cama.encode(styled(30), "ignore")
    assert differ_in_means(cama.model, whole)
    frame = styled(30)
    frame.loc[3, COLUMNS[1]] = float("nan")
    assert not differ_in_means(cama.model, cama.encode(frame, "ignore"))
    assert not differ_in_means(fitted(max_epochs=1).model, whole)  # loadings of every class


def test_affine_lines_are_those_of_its_pull_back() -> None:
    theta = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    for mechanism, own in ((Affine(), theta), (Affine(shared=False), theta[:, :2])):
        for found, expected in zip(mechanism.line(own), Mechanism.line(mechanism, own), strict=True):
            torch.testing.assert_close(found, expected.expand_as(found), atol=1e-10, rtol=1e-8)
