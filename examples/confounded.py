"""A manipulation that goes with the class by accident: digits below 5 were printed in red, nine times in ten.

`small -> colour` is an edge from the target into the manipulation.  Every training image has a colour, so there are no
clean rows: fit(None, rows).  p(colour | small) is learned from them (eq. 4), and a prediction cuts the edge, as it must
where colours may come with other digits; `regime="observational"` keeps it, as it may where nothing has changed.  The
image is grey apart from its colour (`likelihood: grey`), so that no class can take the colour for its own doing.

Prints accuracies on digits printed like the training ones, and on digits whose colours are exchanged; of a model that
knows no manipulation too.

    python examples/confounded.py
"""

from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from pyro_cama import build
from support.howto import SMOKE


def printed(images: Any, digits: Any, agrees: float, seed: int) -> dict[str, Any]:
    """Images in red, or in green, ``(rows, 2, 8, 8)``; red goes with the digits below 5 in a share of them."""
    rng = np.random.default_rng(seed)
    small = (digits < 5).astype(int)
    red = (small == 1) == (rng.random(len(digits)) < agrees)
    both = np.stack([images, images], 1).astype(np.float32) / 16
    both[red, 1] = both[~red, 0] = 0.0
    return {"small": small, "image": both}


def graph(likelihood: str, edges: list[str], latents: dict[str, Any]) -> dict[str, Any]:
    """The graph of a label and its image."""
    image = {"type": "image", "shape": [2, 8, 8], "likelihood": likelihood, "channels": 16}
    nodes = {"small": "binary", "image": image}
    return {"target": "small", "nodes": nodes, "edges": ["small -> image", *edges], "latents": latents}


x, test_x, y, test_y = train_test_split(*load_digits(return_X_y=True), test_size=600, random_state=0)
x, test_x = (pixels.reshape(-1, 8, 8)[: 60 if SMOKE else None] for pixels in (x, test_x))
rows = printed(x, y[: len(x)], 0.9, seed=0)
same, exchanged = (printed(test_x, test_y[: len(test_x)], agrees, seed=1) for agrees in (0.9, 0.1))
options: dict[str, Any] = {"max_epochs": 2 if SMOKE else 30, "conditional_share": 1.0, "progress": False}

colour = {"colour": {"manipulation": True, "dim": 1, "mechanism": "colour"}}
plain = build(graph("bernoulli", [], {"m": None})).fit(rows, **options)
cama = build(graph("grey", ["small -> colour"], colour)).fit(None, rows, **options)

print(f"{'':28} printed alike   exchanged")
asked: dict[str, dict[str, Any]] = {"... observational": {"regime": "observational"}}
for name, model in (("no manipulation", plain), ("small -> colour", cama), ("... observational", cama)):
    found = [model.score(part, **asked.get(name, {})) for part in (same, exchanged)]
    print(f"{name:28} {found[0]:13.3f} {found[1]:11.3f}")
