"""The network that reads hidden pixels off an image."""

import pytest
import torch

from pyro_cama import Node
from pyro_cama.networks.hidden_pixels import SELDOM, HiddenPixels


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 12), (2, 5, 7), (1, 1, 3)])
def test_every_pixel_has_a_logit_which_starts_as_seldom(shape: tuple[int, int, int]) -> None:
    found = HiddenPixels(Node("i", "image", shape=shape))(torch.rand(3, *shape))
    assert found.shape == (3, 1, *shape[1:])
    assert torch.equal(found, torch.full_like(found, SELDOM))


def test_every_pixel_is_seen() -> None:
    """No pixel is lost where blocks of 2 x 2 become channels: each has a say in its own logit."""
    network = HiddenPixels(Node("i", "image", shape=(1, 7, 9)))
    torch.nn.init.normal_(network.logits.weight)
    x = torch.rand(1, 1, 7, 9, requires_grad=True)
    logits = network(x)
    for row in range(7):
        for column in range(9):
            (slope,) = torch.autograd.grad(logits[0, 0, row, column], x, retain_graph=True)
            assert slope[0, 0, row, column] != 0
