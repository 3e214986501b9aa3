"""Two things happen to a patient's readings at once, and each is undone by its name.

Every clinic calibrates its scales in its own way (scope: clinic), and a patient may lean on them (scope: row):
weight, waist and grip then read too low together.  The model learns from two clinics' labelled rows, some of which were
leaned on, and adapts to a third without labels.

What `fit` has learnt of leaning serves in any clinic, so that the calibration alone is adapted.

Prints what was decided, what moved at the new clinic, the mean weight as recorded and with the
calibration undone, and how well the leaning of each patient is told.

    python examples/two_manipulations.py
"""

import numpy as np
import pandas as pd

from pyro_cama import build
from support.howto import SMOKE

COLUMNS = ("weight", "waist", "grip", "pulse")
LEANING = np.array([-6.0, -2.0, -3.0, 0.0])  # what a leaning of 1 takes off
GRAPH = {
    "target": "frail",
    "nodes": {"frail": "binary", **dict.fromkeys(COLUMNS, "continuous")},
    "edges": [f"frail -> {column}" for column in COLUMNS],
    "latents": {
        "z": {"dim": 2},
        "m": None,
        "calibration": {"manipulation": True, "scope": "clinic", "dim": 4},
        "leaning": {"manipulation": True, "scope": "row", "dim": 1, "children": ["weight", "waist", "grip"]},
    },
}


def patients(clinic: str, n: int, seed: int, leaning: float = 0.0, gain: float = 1.0, offset: float = 0.0):
    """Records of a clinic, and how much every patient leaned."""
    rng = np.random.default_rng(seed)
    frail = rng.integers(0, 2, n)
    build_ = rng.normal(size=(n, 1))
    clean = np.where(frail[:, None], [62, 85, 20, 84], [74, 92, 34, 72]) + build_ * [7, 6, 3, 0]
    clean = clean + rng.normal(size=(n, 4)) * [4, 4, 4, 8]
    calibrated = clean * [gain, 1, 1, 1] + [offset, 0, 0, 0]
    leant = leaning * np.abs(rng.normal(size=n))
    records = pd.DataFrame(calibrated + leant[:, None] * LEANING, columns=list(COLUMNS))
    return records.assign(frail=frail, clinic=clinic), leant, clean[:, 0].mean()


rows = 60 if SMOKE else 500
north, _, _ = patients("north", rows, 0)
leant_on, _, _ = patients("south", rows, 1, leaning=1.5)
east, leant, weight = patients("east", rows, 2, leaning=1.5, gain=1.2, offset=8.0)

cama = build(GRAPH)
cama.fit(north, leant_on, max_epochs=2 if SMOKE else 60)
adapted = cama.adapt(east.drop(columns="frail"), steps=10 if SMOKE else 100)
print(f"adaptation {adapted.adaptation}")
print(f"\naccuracy at the new clinic {cama.score(east):.3f}, adapted {adapted.score(east):.3f}")

found = adapted.explain_shift().table
print(found[found["moved"] == True][["column", "manipulation", "reading"]].to_string(index=False))  # noqa: E712 - or missing

undone = adapted.reconstruct(east, do={"calibration": 0.0, "leaning": 0.0})["weight"].mean()
print(f"\nmean weight: recorded {east['weight'].mean():.1f}, both undone {undone:.1f}, true {weight:.1f}")

(told,) = (q for q in adapted.guide.m_dists(adapted.encode(east, target="ignore"), ["leaning"]) if q is not None)
mean = told.mean[:, 0].detach().numpy()
print(f"leaning told of every patient: correlation {abs(np.corrcoef(mean, leant)[0, 1]):.2f}")
