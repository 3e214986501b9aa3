"""A table of five columns, a model trained on it, and a way to die while at it."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from pyro_cama import CAMA, build

COLUMNS = [f"x{i}" for i in range(5)]
GRAPH: dict[str, Any] = {
    "target": "y",
    "nodes": {"y": {"type": "binary"}, **dict.fromkeys(COLUMNS, "continuous")},
    "edges": [f"y -> {name}" for name in COLUMNS],
    "latents": {
        "z": {"dim": 2, "children": COLUMNS, "effect": "deep"},
        "m": {"dim": 3, "children": COLUMNS, "mechanism": "affine", "scope": "dataset"},
    },
}


def table(rows: int = 300, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 2, rows)
    x = 1.5 * y[:, None] + generator.normal(size=(rows, len(COLUMNS)))
    return pd.DataFrame({"y": y, **dict(zip(COLUMNS, x.T, strict=True))})


def fitted(graph: dict[str, Any] = GRAPH, data: Any = None, **options: Any) -> CAMA:
    cama = build(graph, seed=3, hidden=16, device="cpu")
    return cama.fit(table() if data is None else data, progress=False, **{"max_epochs": 4, **options})


def same(a: CAMA, b: CAMA) -> bool:
    pairs = zip(a.modules.state_dict().values(), b.modules.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


# checkpoints --------------------------------------------------------------------------------------------------------


class Killed(Exception):
    """Raised in the midst of a fit."""


class Kill(Callback):
    """Stops a fit before a block of minibatches."""

    def __init__(self, epoch: int, block: int) -> None:
        self.at = (epoch, block)

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        if (trainer.current_epoch, index) == self.at:
            raise Killed
