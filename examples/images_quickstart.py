"""Moved digits: small scans, learned as they are; the model follows when every one is shifted its own way.

Prints accuracies before and after adapting to 200 unlabelled shifted scans, and draws shifted digits above what do(m=0)
makes of them, in results/digits.png.

    python examples/images_quickstart.py    # a minute
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from pyro_cama import build
from pyro_cama.image_manipulations import manipulate
from support.howto import SMOKE

bunch = load_digits(n_class=5)
order = np.random.default_rng(0).permutation(len(bunch.target))
scans = np.pad(bunch.images[order] / 16, ((0, 0), (4, 4), (4, 4)))[:, None].astype(np.float32)  # a margin: room to move
digits = bunch.target[order]
clean = {"scan": scans[:500], "digit": digits[:500]}
moved = manipulate(torch.tensor(scans[500:]), "vertical_shift", 0.2, seed=0).numpy()

graph = {
    "target": "digit",
    "nodes": {
        "digit": {"type": "categorical", "levels": [0, 1, 2, 3, 4]},
        "scan": {"type": "image", "shape": [1, 16, 16], "channels": 8},
    },
    "edges": ["digit -> scan"],
    "latents": {"z": {"dim": 8}, "m": {"dim": 6, "scope": "row", "mechanism": "warp"}},  # each moves its own way
}
cama = build(graph, seed=0, hidden=64, device="cpu")
cama.fit(clean, max_epochs=1 if SMOKE else 20, batch_size=32, lr=1e-2, anneal=True, conditional_share=1.0)
adapted = cama.adapt({"scan": moved[:200]}, clean, steps=2 if SMOKE else 200)

later, shifted = {"scan": scans[700:], "digit": digits[700:]}, {"scan": moved[200:], "digit": digits[700:]}
print(f"before: clean {cama.score(later):.3f}, moved {cama.score(shifted):.3f}")
print(f"after:  clean {adapted.score(later):.3f}, moved {adapted.score(shifted):.3f}")
print(adapted.adaptation)

back = adapted.reconstruct({"scan": moved[200:212], "digit": digits[700:712]})["scan"]
figure = Figure(figsize=(7.2, 1.4), layout="constrained")
for axis, picture in zip(figure.subplots(2, 12).flat, (*moved[200:212], *back), strict=True):
    axis.imshow(picture[0], cmap="gray_r", vmin=0, vmax=1)
    axis.set_axis_off()
Path("results").mkdir(exist_ok=True)
figure.savefig("results/digits.png", dpi=130)
