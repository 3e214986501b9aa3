"""A model of five readings, and batches of worlds in which some of them are off."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from pyro_cama import CAMA, build

COLUMNS = [f"x{i}" for i in range(5)]
GRAPH: dict[str, Any] = {
    "target": "y",
    "nodes": {"y": {"type": "categorical", "levels": ["a", "b", "c"]}, **dict.fromkeys(COLUMNS, "continuous")},
    "edges": [f"y -> {name}" for name in COLUMNS],
    "latents": {
        "z": {"dim": 2, "children": COLUMNS, "effect": "linear"},
        "m": {"dim": 5, "children": COLUMNS, "mechanism": "affine", "scope": "dataset"},
    },
}
WORLDS = {"A": {}, "B": {"x0": 4.0, "x3": -3.0}, "C": {"x1": -5.0}}
MEANS = np.random.default_rng(5).normal(0, 3, (3, len(COLUMNS)))


def batch(seed: int, world: str | dict[str, float] = "A", rows: int = 120, mix: Any = None) -> pd.DataFrame:
    """Rows of a world; ``mix`` are class proportions."""
    generator = np.random.default_rng(seed)
    y = generator.choice(3, rows, p=mix)
    x = MEANS[y] + generator.normal(size=(rows, len(COLUMNS)))
    moved = WORLDS[world] if isinstance(world, str) else world
    frame = pd.DataFrame({"y": np.array(["a", "b", "c"])[y], **dict(zip(COLUMNS, x.T, strict=True))})
    return frame.assign(**{name: frame[name] + by for name, by in moved.items()})


@cache
def model() -> CAMA:
    """A fitted one; it is shared, so leave it as it is."""
    return build(GRAPH, seed=3, hidden=8, device="cpu").fit(batch(0, rows=400), max_epochs=30, progress=False)
