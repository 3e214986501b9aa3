"""An image beside a table: a picture whose brightness has two causes, what it shows and how long it was exposed.

Stained cells are darker than clear ones, and every picture is as bright as its exposure made it.  The exposure is a
column of the table: a continuous co-parent of the image.  A model of the image alone takes a new camera's longer
exposures for clear cells; one that knows the exposure does not.  Then the sensor itself drifts, which no column
tells: the mechanism `intensity` finds the new gain without labels.

    python examples/exposure.py    # half a minute on one core
"""

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from pyro_cama import build
from support.howto import SMOKE

SCAN = {"type": "image", "shape": [1, 8, 8], "channels": 8, "likelihood": "normal"}
ALONE: dict[str, Any] = {
    "target": "cell",
    "nodes": {"cell": {"type": "categorical", "levels": ["clear", "stained"]}, "scan": SCAN},
    "edges": ["cell -> scan"],
    "latents": {"z": {"dim": 8}, "m": {"dim": 2, "mechanism": "intensity", "scope": "dataset"}},
}
# the exposure: log of milliseconds, say
BESIDE = ALONE | {"nodes": ALONE["nodes"] | {"exposure": "continuous"}, "edges": ["cell -> scan", "exposure -> scan"]}


def cells(rows: slice, seed: int, exposure: float = 0.0, gain: float = 1.0) -> dict[str, Any]:
    """Textures (scikit-learn's digits), stained or not, under exposures about ``exposure``."""
    generator = np.random.default_rng(seed)
    texture = load_digits().data[rows].reshape(-1, 1, 8, 8) / 16
    stained = generator.random(len(texture)) < 0.5
    exposures = exposure + generator.normal(size=len(texture))
    brightness = 0.45 * np.exp(0.35 * exposures - 0.45 * stained + 0.03 * generator.normal(size=len(texture)))
    light = (0.3 + 0.7 * texture) * brightness[:, None, None, None]
    scan = np.clip(gain * (light + 0.01 * generator.normal(size=light.shape)), 0.0, 1.0).astype("float32")
    return {"scan": scan, "exposure": exposures, "cell": np.where(stained, "stained", "clear")}


train, later = cells(slice(0, 900), seed=0), slice(900, None)
longer, weaker = "exposures one sd longer", "sensor gain 0.7"
tests = {"as in training": cells(later, 1), longer: cells(later, 1, exposure=1), weaker: cells(later, 1, gain=0.7)}
for name, graph in {"scan alone": ALONE, "with its exposure": BESIDE}.items():
    cama = build(graph, hidden=32, device="cpu")
    cama.fit(train, max_epochs=2 if SMOKE else 60, batch_size=64, lr=3e-3, anneal=True)
    adapted = cama.adapt(tests[weaker], steps=10 if SMOKE else 200)
    print(f"{name}: {', '.join(f'{test} {cama.score(cells):.3f}' for test, cells in tests.items())}")
    print(f"  adapted to the weaker sensor {adapted.score(tests[weaker]):.3f}, {adapted.adaptation}")
