"""What lies over an image: shapes are drawn, and every pixel outside of them is left as it was."""

import torch

from pyro_cama import Node
from pyro_cama.mechanisms.overlay import Overlay
from pyro_cama.mechanisms.registry import mechanism_named

NODE = Node("i", "image", shape=(3, 20, 28))


def test_what_is_not_hidden_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    x = torch.rand(400, 3, 20, 28)
    covered, hidden = Overlay().cover(x)
    assert hidden.shape == (400, 1, 20, 28)
    assert torch.equal(torch.where(hidden, x, covered), x)
    share = hidden.float().mean((1, 2, 3))
    assert 0.05 < share.mean() < 0.4
    assert (share > 0).float().mean() > 0.8
    assert bool(((covered >= 0) & (covered <= 1)).all())


def test_inks_are_negatives_black_white_colours_and_specks() -> None:
    torch.manual_seed(0)
    x = torch.full((300, 3, 20, 28), 0.25)
    covered, hidden = Overlay().cover(x)
    inks = [covered[i][:, hidden[i, 0]] for i in range(300) if hidden[i].any()]
    assert any(bool((ink == 0.75).all()) for ink in inks)
    assert any(bool((ink == 0).all()) for ink in inks)
    assert any(bool((ink == 1).all()) for ink in inks)
    assert any(len(ink.unique()) == 2 and {*ink.unique().tolist()} == {0.0, 1.0} for ink in inks)
    assert any(len(ink.unique()) == 3 for ink in inks)  # a colour


def test_it_takes_no_numbers_of_theta_and_moves_nothing() -> None:
    x, overlay = torch.rand(4, 3, 20, 28), Overlay()
    assert overlay.size(NODE) == 0
    assert overlay.families(0) == {}
    assert torch.equal(overlay.push(x, torch.zeros(4, 0)), x)
    both, alone = (mechanism_named(name, "row", "here") for name in ("intensity+overlay", "intensity"))
    theta = torch.tensor([-0.5, 0.1]).expand(4, 2)
    assert both.size(NODE) == 2
    assert both.families(2) == alone.families(2)
    torch.testing.assert_close(both.push(x, theta), alone.push(x, theta))
    assert both.cover(x)[1].any()  # type: ignore[attr-defined]
