"""Images of which a part is taken for unknown: which pixels, and that only the others are scored."""

import pytest
import torch
from torch import Tensor

import pyro_cama
from pyro_cama import CAMA
from pyro_cama.data.batch import Batch
from pyro_cama.handlers.common_noise import common_noise
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.training.unknown_pixels import images_with_unknown, partly_unknown

Z = torch.tensor([0.3, -0.7])


def model(mechanism: str = "warp", likelihood: str = "bernoulli", effect: bool = False) -> CAMA:
    nodes = {"y": "binary", "i": {"type": "image", "shape": [2, 8, 8], "channels": 4, "likelihood": likelihood}}
    graph = {
        "target": "y",
        "nodes": nodes | ({"v": "continuous"} if effect else {}),
        "edges": ["y -> i", *(["i -> v", "y -> v"] if effect else [])],
        "latents": {"z": {"dim": 2}, "m": {"dim": 8, "mechanism": {"i": mechanism}, "children": ["i"]}},
    }
    return pyro_cama.build(graph, hidden=8, layers=1, device="cpu", seed=0)


def rows(n: int) -> Batch:
    return Batch({"i": torch.rand(n, 2, 8, 8), "y": torch.arange(n) % 2.0}, {}, None, n)


def test_a_share_of_the_rows_loses_pixels_of_all_channels() -> None:
    torch.manual_seed(0)
    batch = rows(1000)
    found = partly_unknown(batch, ("i",), 0.5)
    unknown = found.values["i"].isnan()
    assert found.unknown == {"i"}
    assert torch.equal(unknown[:, 0], unknown[:, 1])
    assert torch.equal(found.values["i"][~unknown], batch.values["i"][~unknown])
    assert 0.4 < unknown.any(-1).any(-1)[:, 0].float().mean() < 0.52
    assert 0.05 < unknown[unknown.any(-1).any(-1)[:, 0]].float().mean() < 0.5
    part = found.select(torch.arange(3))
    assert part.unknown == {"i"}
    assert partly_unknown(batch, ("i",), 0.0) is batch
    assert partly_unknown(batch, (), 0.5) is batch


@pytest.mark.parametrize(
    ("mechanism", "expected"),
    [("warp", True), ("field+intensity", True), ("intensity", False), ("overlay", True), ("concat", False)],
)
def test_parts_are_unknown_where_pixels_may_leave_the_frame_or_be_hidden(mechanism: str, expected: bool) -> None:
    assert images_with_unknown(model(mechanism).model.groups) == (("i",) if expected else ())


@pytest.mark.parametrize("likelihood", ["bernoulli", "normal"])
@pytest.mark.parametrize("effect", [False, True], ids=["", "with an effect"])
def test_traced_and_grouped_weights_agree_and_unknown_pixels_have_no_say(likelihood: str, effect: bool) -> None:
    cama = model(likelihood=likelihood, effect=effect)
    batch = rows(6)
    if effect:
        batch = Batch({**batch.values, "v": torch.randn(6)}, {}, None, 6)
    torch.manual_seed(1)
    some = partly_unknown(batch, ("i",), 1.0)
    found = []
    for trace in (True, False):
        with torch.no_grad(), common_noise(0):
            found.append(log_weights(cama.model, cama.guide, some, do={"m": 0.0}, classes=True, trace=trace).w)
    torch.testing.assert_close(*found)
    assert found[0].isfinite().all()
    if not effect:
        torch.testing.assert_close(likelihood_of(cama, some), by_hand(cama, some))


def likelihood_of(cama: CAMA, batch: Batch) -> Tensor:
    with torch.no_grad():
        causes = cama.model.causes(batch, Z.expand(batch.rows, 2), None, samples=1, classes=False)
        group = cama.model.group_of["i"]
        return cama.model.group_log_prob(group, causes, batch, False)


def by_hand(cama: CAMA, batch: Batch) -> Tensor:
    """The sum of the known pixels' log densities."""
    with torch.no_grad():
        causes = cama.model.causes(batch, Z.expand(batch.rows, 2), None, samples=1, classes=False)
        x = batch.values["i"]
        each = causes.distribution("i").log_prob(x.nan_to_num(0.5))
        return (each * ~x.isnan()).sum((-3, -2, -1))


def test_gradients_pass_images_with_unknown_pixels() -> None:
    cama = model()
    batch = partly_unknown(rows(20), ("i",), 1.0)
    log_weights(cama.model, cama.guide, batch, do={"m": 0.0}, classes=True).w.sum().backward()
    slopes = [p.grad for p in cama.modules.parameters() if p.grad is not None]
    assert slopes
    assert all(bool(slope.isfinite().all()) for slope in slopes)
