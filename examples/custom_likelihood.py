"""A likelihood of your own: Laplace instead of normal, for measurements of which some are far off.

Subclass Likelihood and pass an object a node to build(likelihoods=...): it turns the numbers that a network puts out
into a distribution.  One entry in ten of the wine table is spoilt here; prints the accuracy and the bound on
log p(x, y) of unseen wines, which are spoilt as well.
"""

import numpy as np
import torch.nn.functional as F
from pyro import distributions as dist
from torch import Tensor

from pyro_cama import Likelihood, Node, build, datasets
from pyro_cama.testing import check_likelihood
from support.howto import SMOKE, split, table


class Laplace(Likelihood):
    types = ("continuous",)  # the node types it serves
    constants = 1  # the last number, the scale, is learned but does not depend on the causes

    def size(self, node: Node) -> int:
        return 2  # numbers a component

    def distribution(self, params: Tensor) -> dist.TorchDistribution:
        return dist.Laplace(params[..., 0], F.softplus(params[..., 1]) + 0.01)


check_likelihood(Laplace(), Node("measurement", "continuous"))
frame, target = table("wine")
columns = frame.columns.drop(target)
rng = np.random.default_rng(0)
spoilt = rng.random((len(frame), len(columns))) < 0.1
frame[columns] += spoilt * rng.normal(0, 5, spoilt.shape) * frame[columns].std().to_numpy()
train, test = split(frame, target)
for name, likelihoods in (("normal", {}), ("Laplace", dict.fromkeys(columns, Laplace()))):
    cama = build(datasets.graph("wine"), likelihoods=likelihoods)
    cama.fit(train, conditional_weight=0, lr=3e-3, max_epochs=5 if SMOKE else 300)
    print(f"{name:<8} accuracy {cama.score(test):.3f}   bound {float(cama.elbo(test).mean()):7.2f}")
