"""What lies over an image: shapes are drawn, and every pixel outside of them is left as it was."""

import torch

from pyro_cama import Node
from pyro_cama.mechanisms.overlay import Overlay
from pyro_cama.mechanisms.registry import mechanism_named

NODE = Node("i", "image", shape=(3, 20, 28))


def test_what_is_not_hidden_is_left_as_it_was_and_what_is_absent_hides_nothing() -> None:
    torch.manual_seed(0)
    x, theta = torch.rand(400, 3, 20, 28), torch.tensor([2.0, 0.0]).repeat(200)[:, None]
    covered, hidden = Overlay().cover(x, theta)
    assert hidden.shape == (400, 1, 20, 28)
    assert torch.equal(torch.where(hidden, x, covered), x)
    assert torch.equal(covered[1::2], x[1::2])
    assert not hidden[1::2].any()
    share = hidden[::2].float().mean((1, 2, 3))
    assert 0.05 < share.mean() < 0.4
    assert (share > 0).float().mean() > 0.8
    assert bool(((covered >= 0) & (covered <= 1)).all())


def test_inks_are_negatives_black_white_colours_and_specks() -> None:
    torch.manual_seed(0)
    x = torch.full((300, 3, 20, 28), 0.25)
    covered, hidden = Overlay().cover(x, torch.ones(300, 1))
    inks = [covered[i][:, hidden[i, 0]] for i in range(300) if hidden[i].any()]
    assert any(bool((ink == 0.75).all()) for ink in inks)
    assert any(bool((ink == 0).all()) for ink in inks)
    assert any(bool((ink == 1).all()) for ink in inks)
    assert any(len(ink.unique()) == 2 and {*ink.unique().tolist()} == {0.0, 1.0} for ink in inks)
    assert any(len(ink.unique()) == 3 for ink in inks)  # a colour


def test_behind_others_it_lies_over_what_they_have_moved() -> None:
    torch.manual_seed(0)
    mechanism = mechanism_named("intensity+overlay", "row", "here")
    x, theta = torch.rand(50, 3, 20, 28), torch.tensor([-0.5, 0.1, 2.0]).expand(50, 3)
    covered, hidden = mechanism.cover(x, theta)  # type: ignore[attr-defined]
    torch.testing.assert_close(covered.where(~hidden, 0.0), (0.5 * x + 0.1).where(~hidden, 0.0))
    assert hidden.any()
