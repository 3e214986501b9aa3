"""The prior of theta under a shared m: a Laplace, with a part in common for columns that move together.

A sensor that nothing happened to stays put; of one that aged all features move, each in its own way.  So within a group
of columns (``groups:`` of the graph file) every number of theta is a part that all of them have in common and one of
its own, with a Laplace prior each:

    -log p(theta) = min over c of |c| + sum over columns |theta_j - c|, in prior scales

The best c is a median, that of the columns' numbers and 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_cama.errors import GraphError
from pyro_cama.graph.nodes import Latent
from pyro_cama.model.groups import MovedGroup


class ThetaPrior:
    """Minus the log-prior of theta, but for a constant.

    Args:
        latent: m, whose ``groups`` are columns that move together; of several manipulations, each by its own numbers.
        groups: what m acts on, in the order of theta.

    Raises:
        GraphError: columns of a group whose mechanisms have no theta, or not the same numbers of it.
    """

    def __init__(self, latent: Latent, groups: Sequence[MovedGroup]) -> None:
        places: dict[tuple[int, ...], list[Tensor]] = {}
        together = [(one, *group) for one in latent.each for group in one.groups.items()]
        for one, name, columns in together:
            numbers = numbers_of_columns(groups, one.name)
            sizes = {column: numbers[column].shape[1] for column in columns}
            if len(set(sizes.values())) > 1 or 0 in sizes.values():
                found = ", ".join(f"{column} {size}" for column, size in sizes.items())
                raise GraphError(
                    f"latent {one.name!r}: groups: {name!r}: found mechanisms with these numbers of parameters: "
                    f"{found}; expected the same number, one or more, of all its columns"
                )
            own = torch.cat([numbers[column] for column in columns])
            places.setdefault(tuple(own.shape), []).append(own)
        self._places = [torch.stack(own) for own in places.values()]  # (groups, components, theta_size)
        self._alone = torch.ones(sum(group.units * group.theta_size for group in groups), dtype=torch.bool)
        for place in self._places:
            self._alone[place.flatten()] = False

    def extent(self, moved: Tensor, even: Tensor, corner: float = 0.0) -> Tensor:
        """Returns how far theta is from rest, ``(...)``.

        Args:
            moved: theta in prior scales, ``(..., size)``.
            even: which numbers act by their size alone, ``(size,)``.
            corner: within which the Laplace prior is round.
        """

        def rounded(x: Tensor) -> Tensor:
            return (x.square() + corner**2).sqrt() - corner if corner else x.abs()

        if not self._places:
            return rounded(moved).sum(-1)
        total = rounded(moved[..., self._alone.to(moved.device)]).sum(-1)
        moved = torch.where(even, moved.abs(), moved)
        for place in self._places:
            own = moved[..., place.to(moved.device)]
            common = torch.cat([own, torch.zeros_like(own[..., :1, :])], -2).median(-2, keepdim=True).values
            total = total + (rounded(common).sum(-2) + rounded(own - common).sum(-2)).sum((-1, -2))
        return total


def numbers_of_columns(groups: Sequence[MovedGroup], latent: str) -> dict[str, Tensor]:
    """Returns where a manipulation's numbers of every column it moves stand in theta, ``(components, numbers)``."""
    found, start = {}, 0
    for group in groups:
        own = [acting.numbers for acting in group.acting if acting.latent == latent]
        for name, width in zip(group.nodes, (1,) if group.image else group.widths, strict=True):
            stop = start + width * group.theta_size
            if own:
                found[name] = torch.arange(start, stop).reshape(width, group.theta_size)[:, own[0]]
            start = stop
    return found
