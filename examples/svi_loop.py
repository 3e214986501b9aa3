"""A training loop of your own: cama.model and cama.guide are ordinary Pyro programs, for pyro.infer.SVI.

The losses of pyro_cama know plates, classes and `do`: InterventionELBO is eq. 3 (clean rows, do(m=0)), JointELBO
eq. 4 (manipulated rows), MarginalELBO eq. 7 (rows without labels).  Prints the loss a wine and the accuracy on unseen
wines as training goes on.

    python examples/svi_loop.py
"""

import argparse
from pathlib import Path

import pyro
import torch
from pyro.infer import SVI
from pyro.optim import ClippedAdam

from pyro_cama import build
from pyro_cama.inference.elbo import InterventionELBO
from support.howto import split, table

GRAPH = Path(__file__).parents[1] / "graphs" / "wine.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="seconds: few epochs")
    parser.add_argument("--out", type=Path, help="not used: nothing is written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pyro.set_rng_seed(0)
    frame, target = table("wine")
    train, test = split(frame, target)
    cama = build(GRAPH).fit(train, max_epochs=0, progress=False)  # learns how to encode the table, nothing else
    rows = cama.encode(train)
    svi = SVI(cama.model, cama.guide, ClippedAdam({"lr": 3e-3}), loss=InterventionELBO(samples=4))
    epochs = 5 if options.smoke else 150
    for epoch in range(1, epochs + 1):
        loss = sum(svi.step(rows.select(batch)) for batch in torch.randperm(rows.rows).split(32))
        if epoch == 1 or epoch % (epochs // 5) == 0:
            print(f"epoch {epoch:>3}   loss {loss / rows.rows:6.2f}   accuracy {cama.score(test):.3f}")
    # the same parameters, so all that cama can do works on them
    print(f"bound on log p(x, y) of an unseen wine: {float(cama.elbo(test).mean()):.2f}")


if __name__ == "__main__":
    main()
