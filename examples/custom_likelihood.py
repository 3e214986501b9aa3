"""A likelihood of your own: Laplace instead of normal, for measurements of which some are far off.

Subclass Likelihood and pass an object a node to build(likelihoods=...): it turns the numbers that a network puts out
into a distribution.  One entry in ten of the wine table is spoilt here; prints the accuracy and the bound on
log p(x, y) of unseen wines, which are spoilt as well.

    python examples/custom_likelihood.py
"""

import argparse
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama import build
from pyro_cama.graph.nodes import Node
from pyro_cama.likelihoods import Likelihood
from support.howto import split, table

GRAPH = Path(__file__).parents[1] / "graphs" / "wine.yaml"


class Laplace(Likelihood):
    types: ClassVar[tuple[str, ...]] = ("continuous",)  # the node types it serves
    constants = 1  # the last number, the scale, is learned but does not depend on the causes

    def size(self, node: Node) -> int:
        return 2  # numbers a component

    def distribution(self, params: Tensor) -> TorchDistribution:
        return dist.Laplace(params[..., 0], F.softplus(params[..., 1]) + 0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="seconds: few epochs")
    parser.add_argument("--out", type=Path, help="not used: nothing is written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    frame, target = table("wine")
    columns = [str(name) for name in frame if name != target]
    rng = np.random.default_rng(0)
    spoilt = rng.random((len(frame), len(columns))) < 0.1
    frame[columns] += spoilt * rng.normal(0, 5, spoilt.shape) * frame[columns].std().to_numpy()
    train, test = split(frame, target)
    for name, chosen in (("normal", {}), ("Laplace", dict.fromkeys(columns, Laplace()))):
        cama = build(GRAPH, likelihoods=chosen)
        cama.fit(train, conditional_weight=0, lr=3e-3, max_epochs=5 if options.smoke else 300)
        print(f"{name:<8} accuracy {cama.score(test):.3f}   bound {float(cama.elbo(test).mean()):7.2f}")


if __name__ == "__main__":
    main()
