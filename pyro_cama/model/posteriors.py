"""NN_qM, the posterior of m in eq. 10: amortised where m is every row's own, a free normal where it is shared.

Beside its weights each keeps what is to be known of the rows that the model was last adapted to, so that the model can
draw such rows after a copy or a load as well: buffers, zero until then, which nothing trains.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_cama.networks.features import NamedModules, mlp
from pyro_cama.networks.images import encode_images

WORLD = 512  # draws of m that stand for the rows adapted to


class SharedPosterior(nn.Module):
    """q(m) of a dataset (one row) or of every site (one row each): a free normal instead of a network.

    A site whose mean is exactly 0 is at rest: nothing was learnt of it, and it is not manipulated.

    Attributes:
        share: of every site (or 1 of the dataset) among the rows last adapted to, ``(sites,)``.
    """

    share: Tensor

    def __init__(self, sites: int, dim: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(sites, dim))
        self.raw_scale = nn.Parameter(torch.full((sites, dim), -1.0))
        self.register_buffer("share", torch.zeros(sites))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Returns loc and scale, ``(sites, dim)`` each."""
        return self.loc, F.softplus(self.raw_scale) + 1e-7


class RowPosterior(nn.Module):
    """NN_qM: from the children as measured to loc and scale of q(m | x); images go through encoders of its own.

    Args:
        inputs: width of all that is no image, flags of missing values among it.
        hidden, layers: units of a layer, and hidden layers.
        dim: of m.
        encoders: of the children that are images, by name.

    Attributes:
        world: draws of the m of the rows last adapted to, from q's aggregate, ``(WORLD, dim)``.
    """

    world: Tensor

    def __init__(self, inputs: int, hidden: int, dim: int, layers: int, encoders: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoders = NamedModules(encoders)
        self.network = mlp(inputs + hidden * len(encoders), hidden, 2 * dim, max(layers, 1))
        self.register_buffer("world", torch.zeros(WORLD, dim))

    def forward(self, x: Tensor, images: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Returns loc and scale, ``(rows, dim)`` each."""
        seen = [encode_images(self.encoders[name], images[name]) for name in self.encoders]
        loc, raw_scale = self.network(torch.cat([x, *seen], -1)).chunk(2, -1)
        return loc, F.softplus(raw_scale) + 1e-3
