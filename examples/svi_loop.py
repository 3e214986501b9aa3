"""A training loop of your own: cama.model and cama.guide are ordinary Pyro programs, for pyro.infer.SVI.

The losses of pyro_cama know plates, classes and `do`: InterventionELBO is eq. 3 (clean rows, do(m=0)), JointELBO eq. 4
(manipulated rows), MarginalELBO eq. 7 (rows without labels).  Prints the loss a wine and the accuracy on unseen wines
as training goes on.

    python examples/svi_loop.py
"""

import pyro
import torch
from pyro.infer import SVI
from pyro.optim import ClippedAdam

from pyro_cama import InterventionELBO, build, datasets
from pyro_cama.data import TableEncoder
from support.howto import SMOKE, split, table

pyro.set_rng_seed(0)
train, test = split(*table("wine"))
cama = build(datasets.graph("wine"))
cama.take_encoder(TableEncoder(cama.graph).fit(train))  # units and categories, which fit would have learned too
rows = cama.encode(train)

svi = SVI(cama.model, cama.guide, ClippedAdam({"lr": 3e-3}), loss=InterventionELBO(samples=4))
epochs = 5 if SMOKE else 150
for epoch in range(1, epochs + 1):
    loss = sum(svi.step(rows.select(batch)) for batch in torch.randperm(rows.rows).split(32))
    if epoch == 1 or epoch % (epochs // 5) == 0:
        print(f"epoch {epoch:>3}   loss {loss / rows.rows:6.2f}   accuracy {cama.score(test):.3f}")

# the same parameters, so all that cama can do works on them
print(f"bound on log p(x, y) of an unseen wine: {float(cama.elbo(test).mean()):.2f}")
