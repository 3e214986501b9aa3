"""A mechanism of your own: sensors that compress, or spread, what lies above their usual reading.

x = exp(g) x~ where x~ > 0, else x = x~, in training standard deviations from the mean; theta = (g,).  Prints accuracies
before and after adapting without labels: with the affine mechanism, which cannot undo this, then with the right one.
"""

from collections.abc import Mapping

import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_cama import Mechanism, Node, build, datasets
from pyro_cama.testing import check_mechanism
from support.howto import SMOKE, split, table


class Above(dist.transforms.Transform):
    domain = codomain = dist.constraints.real

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.g = 2 * torch.tanh(theta[..., 0])  # no theta overflows

    def _call(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x * self.g.exp(), x)

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.where(y > 0, y * (-self.g).exp(), y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(x > 0, self.g, 0.0)


class Compression(Mechanism):
    types = ("continuous",)
    guesses = True  # there is a guess_from_moments

    def size(self, node: Node) -> int:
        return 1  # numbers of theta a column

    def transform(self, clean: dist.TorchDistribution, theta: Tensor) -> dist.TorchDistribution:
        return dist.TransformedDistribution(clean, [Above(theta)])

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        return Above(theta).inv(x)

    def guess_from_moments(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor:
        tried = torch.linspace(-2, 2, 81)[:, None, None]  # the best brings the readings' mean back to where it was
        return tried[(self.invert(x, tried, None).mean(-1) - statistics["mean"]).abs().argmin(), 0]


check_mechanism(Compression(), Node("sensor", "continuous"))
train, test = split(*table("breast_cancer"))
sensors, mean = test.columns.drop("diagnosis"), train.mean(numeric_only=True)
drifted = test.assign(**test[sensors].where(test[sensors] < mean, mean + 0.3 * (test[sensors] - mean)))
for mechanisms in ({}, dict.fromkeys(sensors, Compression())):
    cama = build(datasets.graph("breast_cancer"), mechanisms=mechanisms).fit(train, max_epochs=5 if SMOKE else 300)
    adapted = cama.adapt(drifted.drop(columns="diagnosis"), steps=10 if SMOKE else 100)
    print(f"clean {cama.score(test):.3f}   drifted {cama.score(drifted):.3f}   adapted {adapted.score(drifted):.3f}")
