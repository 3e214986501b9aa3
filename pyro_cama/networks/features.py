"""Feature networks and shallow merges (the paper's Figure 4): deep NN_v per cause v, a merge per group of effects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_cama.networks.images import encode_images

NetworkFactory = Callable[[int, int], nn.Module]


class NamedModules(nn.Module):
    """Modules under free-text names: columns may be called ``type``, ``a.b`` or ``keys``; ``nn.ModuleDict`` refuses."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._index = {name: str(i) for i, name in enumerate(modules)}
        self.items_ = nn.ModuleDict({self._index[name]: module for name, module in modules.items()})

    def __getitem__(self, name: str) -> nn.Module:
        return self.items_[self._index[name]]

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)


NetworkT = TypeVar("NetworkT", bound=nn.Module)


def network_of(networks: nn.ModuleDict, name: str, kind: type[NetworkT]) -> NetworkT:
    """Returns the network of a name, as the type that stands there."""
    found = networks[name]
    assert isinstance(found, kind)
    return found


def mlp(inputs: int, hidden: int, outputs: int, layers: int) -> nn.Sequential:
    """Returns ``layers`` hidden layers of SiLU units, then a linear one; ``layers=0`` is one linear map.

    Args:
        inputs, hidden, outputs: widths of the input, of every hidden layer and of the output.
        layers: how many are hidden.
    """
    widths = [inputs, *[hidden] * layers]
    modules: list[nn.Module] = []
    for before, after in pairwise(widths):
        modules += [nn.Linear(before, after), nn.SiLU()]
    return nn.Sequential(*modules, nn.Linear(widths[-1], outputs))


class NumberFeatures(nn.Module):
    """Features of a number: a quarter of them straight lines, the others a bounded curve.

    A cause may come to lie beyond its training range, and p(v | pa(v)) has to hold there: every effect goes on as a
    straight line, where SiLU units would go on as they happened to end.
    """

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        lines = max(1, hidden // 4)
        self.lines = nn.Linear(inputs, lines)
        widths = [inputs, *[hidden] * (layers - 1), hidden - lines]
        self.curve = nn.Sequential(*(m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.Tanh())))

    def forward(self, value: Tensor) -> Tensor:
        """Returns features ``(..., hidden)`` from ``(..., inputs)``."""
        return torch.cat([self.lines(value), self.curve(value)], -1)


class FeatureNetworks(nn.Module):
    """NN_v for every cause v: deep, one per cause, shared by all its effects; the identity where ``layers=0``.

    Args:
        widths: how many numbers a cause's value is, by cause.
        hidden, layers: features of a cause, and layers of its network.
        chosen: networks that a user gave, by cause.
        numbers: the causes whose features are :class:`NumberFeatures`.
        images: encoders of the causes that are images, from ``(n, C, H, W)`` to ``(n, hidden)``.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        hidden: int,
        layers: int,
        numbers: Collection[str] = (),
        chosen: Mapping[str, NetworkFactory] | None = None,
        images: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        chosen = chosen or {}
        images = images or {}
        networks: dict[str, nn.Module] = {}
        for name, width in widths.items():
            if name in images:
                networks[name] = images[name]
            elif name in chosen:
                networks[name] = chosen[name](width, hidden)
            elif layers == 0:
                networks[name] = nn.Identity()
            elif name in numbers and hidden > 1:
                networks[name] = NumberFeatures(width, hidden, layers)
            else:
                networks[name] = nn.Sequential(mlp(width, hidden, hidden, layers - 1), nn.SiLU())
        self.networks = NamedModules(networks)
        self.widths = {n: hidden if n in chosen or n in images or layers else w for n, w in widths.items()}
        self._images = frozenset(images)

    def forward(self, name: str, value: Tensor) -> Tensor:
        """Returns features ``(..., hidden)`` from ``(..., width)`` or images ``(..., C, H, W)``."""
        network = self.networks[name]
        features: Tensor = encode_images(network, value) if name in self._images else network(value)
        return features


class Merge(nn.Module):
    """One shallow network over several sources: a projection each, their sum, one hidden layer, one linear layer.

    Summing projections equals projecting the concatenation, and lets every source keep its own shape until the sum:
    class features stay ``(classes, 1, H)``, rows ``(rows, H)``, samples ``(samples, classes, rows, H)``.
    Without sources only the bias is left: a learned constant.
    """

    def __init__(self, widths: Mapping[str, int], hidden: int, outputs: int, layers: int) -> None:
        super().__init__()
        first = hidden if layers and widths else outputs
        self.projections = NamedModules({name: nn.Linear(width, first, bias=False) for name, width in widths.items()})
        total = sum(widths.values())
        for name, width in widths.items():  # as one layer over the concatenation would start
            nn.init.uniform_(self.projections[name].weight, -(total**-0.5), total**-0.5)  # type: ignore[arg-type]
            assert width > 0
        self.bias = nn.Parameter(torch.zeros(first))
        self.output = nn.Linear(hidden, outputs) if layers and widths else None

    @property
    def last_bias(self) -> nn.Parameter:
        """The bias of the last layer."""
        return self.bias if self.output is None else self.output.bias

    def forward(self, sources: Iterable[tuple[str, Tensor]]) -> Tensor:
        """Returns ``(..., outputs)``; the sources' leading shapes are broadcast against one another."""
        total: Tensor = self.bias
        for name, value in sources:
            total = total + self.projections[name](value)
        return total if self.output is None else self.output(F.silu(total))
