"""An image beside a table: a picture whose brightness has two causes, what it shows and how long it was exposed.

Stained cells are darker than clear ones, and every picture is as bright as its exposure made it.  The exposure is a
column of the table: a continuous co-parent of the image.  A model of the image alone takes a new camera's longer
exposures for clear cells; one that knows the exposure does not.  Then the sensor itself drifts, which no column
tells: the mechanism `intensity` finds the new gain without labels.

    python examples/exposure.py    # half a minute on one core
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from pyro_cama import build

GRAPH: dict[str, Any] = {
    "target": "cell",
    "nodes": {
        "cell": {"type": "categorical", "levels": ["clear", "stained"]},
        "exposure": "continuous",  # log of milliseconds, say
        "scan": {"type": "image", "shape": [1, 8, 8], "channels": 8, "likelihood": "normal"},
    },
    "edges": ["cell -> scan", "exposure -> scan"],
    "latents": {"z": {"dim": 8}, "m": {"dim": 2, "mechanism": "intensity", "scope": "dataset"}},
}


def cells(rows: slice, seed: int, exposure: float = 0.0, gain: float = 1.0) -> dict[str, Any]:
    """Textures (scikit-learn's digits), stained or not, under exposures about ``exposure``."""
    generator = np.random.default_rng(seed)
    texture = load_digits().data[rows].reshape(-1, 1, 8, 8) / 16
    stained = generator.random(len(texture)) < 0.5
    exposures = exposure + generator.normal(size=len(texture))
    brightness = 0.45 * np.exp(0.35 * exposures - 0.45 * stained + 0.03 * generator.normal(size=len(texture)))
    light = (0.3 + 0.7 * texture) * brightness[:, None, None, None]
    light += 0.01 * generator.normal(size=light.shape)
    return {
        "scan": np.clip(gain * light, 0.0, 1.0).astype("float32"),
        "exposure": exposures,
        "cell": np.where(stained, "stained", "clear"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="seconds: few epochs")
    parser.add_argument("--out", type=Path, help="not used: nothing is written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, half = cells(slice(0, 900), seed=0), slice(900, None)
    tests = {
        "as in training": cells(half, seed=1),
        "exposures one sd longer": cells(half, seed=1, exposure=1.0),
        "sensor gain 0.7": cells(half, seed=1, gain=0.7),
    }
    alone = {key: value for key, value in GRAPH["nodes"].items() if key != "exposure"}
    graphs = {"scan alone": GRAPH | {"nodes": alone, "edges": ["cell -> scan"]}, "with its exposure": GRAPH}
    print(f"{'accuracy':<22}" + "".join(f"{name:>26}" for name in tests) + f"{'gain 0.7, adapted':>20}")
    for name, graph in graphs.items():
        cama = build(graph, hidden=32, device="cpu")
        cama.fit(train, max_epochs=2 if options.smoke else 60, batch_size=64, lr=3e-3, anneal=True)
        adapted = cama.adapt(tests["sensor gain 0.7"], steps=10 if options.smoke else 200)
        found = [cama.score(test) for test in tests.values()]
        print(
            f"{name:<22}"
            + "".join(f"{accuracy:>26.3f}" for accuracy in found)
            + f"{adapted.score(tests['sensor gain 0.7']):>20.3f}  {adapted.adaptation.reason}"
        )


if __name__ == "__main__":
    main()
