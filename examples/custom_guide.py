"""A guide of your own: q(z | x, y, a, c) with correlated components instead of independent ones.

Subclass CAMAGuide, override `z_dist` (or `m_dist`) and pass the class to build(guide=...); a saved model wants the
class again, since no code is stored.  Prints the bound on log p(x, y) and the accuracy on unseen wines.  Both guides
do about as well here: the prior of z is round, so the model turns its axes until the posterior is nearly uncorrelated.

    python examples/custom_guide.py
"""

from pathlib import Path
from typing import Any

from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_cama import Batch, CAMAGuide, build, datasets, load
from support.howto import SMOKE, split, table


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


train, test = split(*table("wine"))
for guide in (CAMAGuide, LowRankGuide):
    cama = build(datasets.graph("wine"), guide=guide)
    cama.fit(train, conditional_weight=0, lr=3e-3, max_epochs=5 if SMOKE else 200)
    print(f"{guide.__name__:<13} bound {float(cama.elbo(test).mean()):7.2f}   accuracy {cama.score(test):.3f}")

folder = cama.save(Path("results") / "custom_guide", overwrite=True)
again = load(folder, guide=LowRankGuide)
print(f"saved in {folder}, loaded: accuracy {again.score(test):.3f}")
