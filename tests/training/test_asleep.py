"""What fit trains asleep: networks that tell theta and hidden pixels of rows manipulated on purpose."""

from typing import Any

import pytest
import torch

import pyro_cama
from pyro_cama import CAMA
from pyro_cama.data.batch import Batch
from pyro_cama.networks.hidden_pixels import HiddenPixels
from pyro_cama.training.asleep import (
    IMAGES,
    TIMES,
    WIDE,
    _acting,
    asleep_epochs,
    asleep_loss,
    laid_over,
    manipulated,
    prior_variance,
)


def model(mechanism: str = "warp", **m: Any) -> CAMA:
    graph = {
        "target": "y",
        "nodes": {"y": "binary", "i": {"type": "image", "shape": [2, 8, 8], "channels": 4}},
        "edges": ["y -> i"],
        "latents": {"z": {"dim": 2}, "m": {"dim": 8, "mechanism": mechanism, **m}},
    }
    return pyro_cama.build(graph, hidden=16, layers=1, device="cpu", seed=0)


def train(cama: CAMA, batch: Batch, steps: int) -> list[float]:
    """Minimises the loss asleep over all parameters, and returns it at every step."""
    loss, optimiser, losses = asleep_loss(cama), torch.optim.Adam(cama.modules.parameters(), 5e-3), []
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        value = loss(batch)
        value.backward()
        optimiser.step()
        losses.append(value.item())
    return losses


def rows(n: int = 64) -> Batch:
    return Batch({"i": 0.5 * torch.rand(n, 2, 8, 8).round(), "y": torch.zeros(n)}, {}, None, n)


@pytest.mark.parametrize(
    ("mechanism", "m", "learns"),
    [
        ("warp", {}, True),
        ("warp+overlay", {}, True),
        ("overlay", {"scope": "dataset"}, True),
        ("warp", {"scope": "dataset"}, False),
        ("concat", {}, False),
    ],
)
def test_epochs_are_of_as_many_images(mechanism: str, m: dict[str, Any], learns: bool) -> None:
    cama = model(mechanism, **m)
    assert asleep_epochs(cama, 100_000, 10) == learns * IMAGES // 100_000
    assert asleep_epochs(cama, 1000, 10) == learns * TIMES * 10


@pytest.mark.parametrize("mechanism", ["warp", "warp+overlay"])
def test_known_manipulations_are_learnt_from_clean_rows_and_nothing_else_is(mechanism: str) -> None:
    torch.manual_seed(0)
    cama, batch = model(mechanism), rows()
    before = {name: value.clone() for name, value in cama.modules.named_parameters()}
    losses = train(cama, batch, 150)
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    moved = {name for name, value in cama.modules.named_parameters() if not torch.equal(value, before[name])}
    assert moved
    assert all(".recognition." in name or ".detectors." in name for name in moved)


def test_means_are_learnt_of_numbers_that_mostly_rest() -> None:
    # the likelihood of so many is highest where their deviations are small and their means 0, and stays there
    torch.manual_seed(0)
    cama, n = model("warp+blur+illumination", dim=60), 128
    image = torch.zeros(n, 2, 8, 8)
    image[:, :, 2:6, 3:5], image[:, 0, 3:5, 2:6] = 0.9, 0.6
    batch = Batch({"i": image, "y": torch.zeros(n)}, {}, None, n)
    train(cama, batch, 300)
    moves = torch.zeros(n, cama.manipulation.size)
    moves[:, 0] = torch.linspace(-0.8, 0.8, n)
    with torch.no_grad():
        theta = moves * cama.manipulation.prior_scale() * WIDE
        read = cama.guide.recognised(manipulated(cama.manipulation, batch, theta)).mean[:, 0]
    slope = (read @ moves[:, 0]) / moves[:, 0].square().sum()
    assert 0.7 < slope < 1.4


def test_labels_have_no_part() -> None:
    cama, batch = model("warp+overlay"), rows()
    losses = []
    for y in (batch.values["y"], 1 - batch.values["y"]):
        torch.manual_seed(0)
        losses.append(asleep_loss(cama)(Batch({**batch.values, "y": y}, {}, None, batch.rows)))
    assert torch.equal(*losses)


def test_rows_are_recorded_as_theta_says() -> None:
    cama, batch = model("warp+intensity"), rows()
    theta = torch.zeros(batch.rows, 8)
    theta[:, 7] = 0.7  # the offset: white is the most that can be recorded
    found = manipulated(cama.manipulation, batch, theta)
    assert torch.allclose(found.values["i"], (batch.values["i"] + 0.7).clamp(max=1.0))
    assert torch.equal(found.values["y"], batch.values["y"])
    assert torch.equal(batch.values["i"].unique(), torch.tensor([0.0, 0.5]))


def test_what_seems_hidden_is_unknown_in_a_share_of_the_rows() -> None:
    torch.manual_seed(0)
    cama, batch = model("warp+overlay"), rows(400)
    detector = cama.manipulation.detectors["i"]
    assert isinstance(detector, HiddenPixels)
    assert detector.logits.bias is not None
    torch.nn.init.constant_(detector.logits.bias, 1.0)  # all of every image
    found = laid_over(cama.manipulation, batch, ["i"], 0.3)
    assert found.unknown == {"i"}
    unknown = found.values["i"].isnan().flatten(1)
    assert torch.equal(unknown.any(1), unknown.all(1))
    assert 0.2 < unknown.any(1).double().mean() < 0.4
    assert torch.equal(found.values["i"][~unknown.any(1)], batch.values["i"][~unknown.any(1)])
    assert laid_over(cama.manipulation, batch, []).unknown == frozenset()


@pytest.mark.parametrize("mechanism", ["warp", "warp+illumination+overlay"])
def test_numbers_move_as_often_as_the_prior_says(mechanism: str) -> None:
    torch.manual_seed(0)
    manipulation = model(mechanism).manipulation
    often = _acting(manipulation, 40_000).double().mean(0)
    assert (often - prior_variance(manipulation)).abs().max() < 0.02
