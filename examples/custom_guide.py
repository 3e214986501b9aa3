"""A guide of your own: q(z | x, y, a, c) with correlated components instead of independent ones.

Subclass CAMAGuide, override `z_dist` (or `m_dist`) and pass the class to build(guide=...); a saved model wants the
class again, since no code is stored.  Prints the bound on log p(x, y) and the accuracy on unseen wines.  Both guides
do about as well here: the prior of z is round, so the model turns its axes until the posterior is nearly uncorrelated.

    python examples/custom_guide.py
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_cama import build, load
from pyro_cama.data.batch import Batch
from pyro_cama.model.guide import CAMAGuide
from support.howto import split, table

GRAPH = Path(__file__).parents[1] / "graphs" / "wine.yaml"


class LowRankGuide(CAMAGuide):
    """z's posterior has a covariance of rank two beside its diagonal."""

    RANK = 2

    def __init__(self, *args: Any, **sizes: Any) -> None:
        super().__init__(*args, **sizes)
        assert self.graph.z is not None
        self.factor = nn.Linear(sizes["hidden"], self.graph.z.dim * self.RANK)

    def z_dist(self, batch: Batch, y: Tensor | None, m: Tensor | None) -> TorchDistribution:
        loc, scale = self.z_params(batch, y, m)  # what the guide would have used
        factor = self.factor(self.encode(batch, y, m)).unflatten(-1, (-1, self.RANK))
        return dist.LowRankMultivariateNormal(loc, 0.1 * factor, scale**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="seconds: few epochs")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    frame, target = table("wine")
    train, test = split(frame, target)
    for guide in (CAMAGuide, LowRankGuide):
        cama = build(GRAPH, guide=guide)
        cama.fit(train, conditional_weight=0, lr=3e-3, max_epochs=5 if options.smoke else 200)
        print(f"{guide.__name__:<13} bound {float(cama.elbo(test).mean()):7.2f}   accuracy {cama.score(test):.3f}")
    folder = cama.save(options.out / "custom_guide", overwrite=True)
    again = load(folder, guide=LowRankGuide)
    print(f"saved in {folder}, loaded: accuracy {again.score(test):.3f}")


if __name__ == "__main__":
    main()
