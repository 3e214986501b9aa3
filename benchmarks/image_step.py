"""Milliseconds of one step on images, ours over plain PyTorch: training (eq. 3) and adapting (eq. 8, 32 + 32 images).

    python benchmarks/image_step.py         # 28x28, 32 channels, hidden 256, one thread; run it alone

The plain loop uses the very same modules, undoes the warp and draws every class as the model does, without Pyro and
without our scorer.  Medians of interleaved rounds; both losses are checked to agree.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
import torch.nn.functional as F
from torch import Tensor

import pyro_cama
from pyro_cama.adaptation import _loss
from pyro_cama.cama import CAMA
from pyro_cama.data import Batch
from pyro_cama.distributions import MIN_PROBABILITY
from pyro_cama.elbo import log_weights, mean_bound
from pyro_cama.image_mechanisms import Warp
from step import medians

LEVELS = list(range(10))


def model_of(side: int, channels: int, hidden: int) -> CAMA:
    """The model of graphs/mnist.yaml at a size, its encoding learned from noise."""
    graph: dict[str, Any] = {
        "target": "digit",
        "nodes": {
            "digit": {"type": "categorical", "levels": LEVELS},
            "image": {"type": "image", "shape": [1, side, side], "channels": channels},
        },
        "edges": ["digit -> image"],
        "latents": {"z": {"dim": 32}, "m": {"dim": 8, "mechanism": "warp"}},
    }
    cama = pyro_cama.build(graph, hidden=hidden, device="cpu")
    rows = {"digit": LEVELS * 10, "image": torch.rand(100, 1, side, side)}
    return cama.fit(rows, max_epochs=0, progress=False)


def batch_of(rows: int, side: int) -> Batch:
    values = {"digit": torch.randint(10, (rows,)), "image": torch.rand(rows, 1, side, side)}
    return Batch(values=values, observed={}, site=None, rows=rows)


class Plain:
    """The log-weights by hand, one draw of the latents, ``(classes, rows)``."""

    def __init__(self, cama: CAMA) -> None:
        self.cama, self.warp = cama, Warp()
        self.model: Any = cama.model._modules["networks"]
        self.guide: Any = cama.guide._modules["networks"]

    def __call__(self, x: Tensor, y: Tensor, *, infer: bool) -> Tensor:
        """
        Args:
            y: one-hot, ``(classes or 1, rows or 1, 10)``.
            infer: draw m from q(m | x); else do(m=0).
        """
        rows = len(x)
        ratio = torch.zeros(rows)
        m = torch.zeros(8)
        if infer:
            q = self.guide["m"]
            seen = torch.cat([torch.zeros(rows, 1), q.encoders["image"](x)], -1)
            loc, raw = q.network(seen).chunk(2, -1)
            m, ratio = draw(loc, F.softplus(raw) + 1e-3)
        network = self.model["manipulation"].network
        theta = network(m) - network(torch.zeros(1, 8) if infer else torch.zeros(8))
        clean = self.warp.invert(x, theta, None)
        encoder = self.guide["encoder"]
        seen = encoder.bias + encoder.projections["image image"](self.guide["images"]["image"](clean))
        seen = seen + encoder.projections["missing flags"](torch.zeros(rows, 1)) + encoder.projections["target"](y)
        loc, raw = self.guide["z"](encoder.output(F.silu(seen))).chunk(2, -1)
        z, z_ratio = draw(loc, F.softplus(raw) + 1e-3)
        merge, features = self.model["merges"][1], self.model["features"].networks
        maps = merge.bias + merge.projections["digit"](features["digit"](y))
        maps = maps + merge.projections["z"](features["z"](z))
        lead = maps.shape[:-1]
        logits = self.model["decoders"]["image"](maps.flatten(0, -2)).reshape(*lead, *x.shape[1:])
        probs = MIN_PROBABILITY + (1 - 2 * MIN_PROBABILITY) * torch.sigmoid(logits)
        probs = self.warp.push(probs, theta).clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
        log_p = (x * probs.log() + (1 - x) * (1 - probs).log()).sum((-1, -2, -3))
        prior = (F.log_softmax(self.model["merges"][0].bias, 0) * y).sum(-1)
        return log_p + prior + ratio + z_ratio


def draw(loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """A reparameterised draw and log p - log q, p standard normal."""
    eps = torch.randn_like(loc)
    value = loc + scale * eps
    return value, (0.5 * eps.square() + scale.log() - 0.5 * value.square()).sum(-1)


def contenders(cama: CAMA, rows: int, side: int) -> dict[str, dict[str, Callable[[], Tensor]]]:
    """The negative objective of a batch by hand and by us, for every kind of step."""
    plain, classes = Plain(cama), F.one_hot(torch.arange(10), 10).float()[:, None]
    batch, new, clean = batch_of(128, side), batch_of(rows, side), batch_of(rows, side)
    nothing = torch.zeros(10)
    theirs = _loss(cama, new, clean, 0.5, 1, 0.0, nothing, nothing)

    def one_hot(part: Batch) -> Tensor:
        return F.one_hot(part.values["digit"], 10).float()

    def trained() -> Tensor:
        return -plain(batch.values["image"], one_hot(batch), infer=False).mean()

    def adapted() -> Tensor:
        marginal = torch.logsumexp(plain(new.values["image"], classes, infer=True), 0).mean()
        expected = torch.softmax(nothing, 0)  # ten imagined rows of the expected classes
        marginal = marginal + 10.0 / rows * (expected * torch.log_softmax(nothing, 0)).sum()
        pick = torch.randint(rows, (rows,))
        part = clean.select(pick)
        return -0.5 * (marginal + plain(part.values["image"], one_hot(part), infer=True).mean())

    do = {"m": 0.0}
    return {
        "training": {
            "plain PyTorch": trained,
            "pyro_cama": lambda: -mean_bound(log_weights(cama.model, cama.guide, batch, do=do)).mean(),
        },
        "adaptation": {"plain PyTorch": adapted, "pyro_cama": lambda: theirs(torch.arange(rows))},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=28)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--rows", type=int, default=32, help="new images, and clean ones, of an adaptation step")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "image_results.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cama = model_of(options.side, options.channels, options.hidden)
    results = []
    with pyro.settings.context(module_local_params=True), pyro.validation_enabled(False):
        for step, losses in contenders(cama, options.rows, options.side).items():
            cama.modules.requires_grad_(step == "training")
            for parameter in cama.manipulation_parameters().values():
                parameter.requires_grad_(True)
            moving = [p for p in cama.modules.parameters() if p.requires_grad]
            optimizer = torch.optim.Adam(moving, lr=1e-4, fused=True)
            found = medians(losses, optimizer, options.rounds, draws=10, within=0.02)
            print(f"\n{step} step")
            for name, value in found.items():
                print(f"  {name:<16}{value:7.1f} ms {value / found['plain PyTorch']:6.2f} x")
                results.append({"name": f"image {step} step, {name}", "value": round(value, 2), "unit": "ms"})
    options.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
