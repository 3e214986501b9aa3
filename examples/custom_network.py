"""A network of your own: a convolution for a cause that is a curve.

Patients breathe in a toxin over 48 hours.  A short peak poisons, the same dose spread evenly does not, and the peak
may come at any hour.  The dose curve causes the poisoning, which causes two symptoms; a convolution finds peaks
wherever they are, and learns that from 200 patients.

build(networks={cause: factory}) takes, by the name of a cause, a function from (inputs, outputs) to the module that
makes its features; everything else is generated as before.  Prints the accuracy on new patients.

    python examples/custom_network.py
"""

import numpy as np
import pandas as pd
from torch import Tensor, nn

from pyro_cama import build
from support.howto import SMOKE

HOURS = 48
GRAPH = {
    "target": "poisoned",
    "nodes": {"dose": {"type": "continuous", "dim": HOURS}, "poisoned": {"type": "binary", "levels": ["no", "yes"]}}
    | dict.fromkeys(("pulse", "nausea"), "continuous"),
    "edges": ["dose -> poisoned", "poisoned -> pulse", "poisoned -> nausea"],
}


class PeakNetwork(nn.Sequential):
    """Features of a curve, whatever the hour."""

    def __init__(self, inputs: int, outputs: int) -> None:
        peaks = [nn.Conv1d(1, 16, kernel_size=5, padding=2), nn.SiLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten()]
        super().__init__(*peaks, nn.Linear(16, outputs), nn.SiLU())

    def forward(self, curve: Tensor) -> Tensor:
        """(..., hours) -> (..., outputs): there may be samples and classes in front of the rows."""
        features: Tensor = super().forward(curve.reshape(-1, 1, curve.shape[-1]))
        return features.unflatten(0, curve.shape[:-1])


def patients(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    dose, peak = rng.gamma(4.0, 0.25, (rows, HOURS)), rng.random(rows) < 0.5
    hour = rng.integers(2, HOURS - 2, rows)
    for offset in (-1, 0, 1):
        dose[peak, hour[peak] + offset] += 2.5
    dose[~peak] += 7.5 / HOURS  # the same amount, spread evenly
    sick = rng.random(rows) < np.where(peak, 0.95, 0.05)
    symptoms = {"pulse": 70 + 8 * sick + rng.normal(0, 10, rows), "nausea": sick + rng.normal(0, 1.5, rows)}
    return pd.DataFrame({"dose": list(dose), "poisoned": np.where(sick, "yes", "no"), **symptoms})


train, test = patients(200, seed=0), patients(1000, seed=1)
for name, networks in (("generated", {}), ("convolution", {"dose": PeakNetwork})):
    cama = build(GRAPH, networks=networks)
    cama.fit(train, lr=3e-3, max_epochs=5 if SMOKE else 150)
    print(f"{name:<12} accuracy {cama.score(test):.3f}")
