"""A network of your own: a convolution for a cause that is a curve.

Patients breathe in a toxin over 48 hours.  A short peak poisons, the same dose spread evenly does not, and the peak
may come at any hour.  The dose curve causes the poisoning, which causes two symptoms; a convolution finds peaks
wherever they are, and learns that from 200 patients.

build(networks={cause: factory}) takes, by the name of a cause, a function from (inputs, outputs) to the module that
makes its features; everything else is generated as before.  Prints the accuracy on new patients.

    python examples/custom_network.py
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pyro_cama import build

HOURS = 48
GRAPH = {
    "target": "poisoned",
    "nodes": {
        "dose": {"type": "continuous", "dim": HOURS},
        "poisoned": {"type": "binary", "levels": ["no", "yes"]},
        "pulse": "continuous",
        "nausea": "continuous",
    },
    "edges": ["dose -> poisoned", "poisoned -> pulse", "poisoned -> nausea"],
}


class PeakNetwork(nn.Module):
    """Features of a curve, whatever the hour."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv1d(1, 16, kernel_size=5, padding=2),
            nn.SiLU(),
            nn.AdaptiveMaxPool1d(1),
            nn.Flatten(),
            nn.Linear(16, outputs),
            nn.SiLU(),
        )

    def forward(self, curve: Tensor) -> Tensor:
        """(..., hours) -> (..., outputs): there may be samples and classes in front of the rows."""
        features: Tensor = self.network(curve.reshape(-1, 1, curve.shape[-1]))
        return features.unflatten(0, curve.shape[:-1])


def patients(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    dose = rng.gamma(4.0, 0.25, (rows, HOURS))
    peak = rng.random(rows) < 0.5
    hour = rng.integers(2, HOURS - 2, rows)
    for offset in (-1, 0, 1):
        dose[peak, hour[peak] + offset] += 2.5
    dose[~peak] += 7.5 / HOURS  # the same amount, spread evenly
    poisoned = rng.random(rows) < np.where(peak, 0.95, 0.05)
    return pd.DataFrame(
        {
            "dose": list(dose),
            "poisoned": np.where(poisoned, "yes", "no"),
            "pulse": 70 + 8 * poisoned + rng.normal(0, 10, rows),
            "nausea": poisoned + rng.normal(0, 1.5, rows),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="seconds: few epochs")
    parser.add_argument("--out", type=Path, help="not used: nothing is written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, test = patients(200, seed=0), patients(1000, seed=1)
    for name, networks in (("generated", {}), ("convolution", {"dose": PeakNetwork})):
        cama = build(GRAPH, networks=networks)
        cama.fit(train, lr=3e-3, max_epochs=5 if options.smoke else 150)
        print(f"{name:<12} accuracy {cama.score(test):.3f}")


if __name__ == "__main__":
    main()
