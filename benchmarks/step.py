"""Milliseconds of one training step (eq. 3, forward, backward, Adam): plain PyTorch, grouped scorer, Pyro's traces.

    python benchmarks/step.py         # batch 128, hidden 64, 8 and 30 children, one thread; run it alone

The plain loop uses the very same modules and does the same sums without Pyro.  Medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyro
import torch
import torch.nn.functional as F
from torch import Tensor

import pyro_cama
from pyro_cama.cama import CAMA
from pyro_cama.data import Batch
from pyro_cama.distributions import MIN_SCALE
from pyro_cama.elbo import log_weights, mean_bound


def model_of(children: int, hidden: int) -> CAMA:
    names = [f"x{i}" for i in range(children)]
    nodes: dict[str, Any] = {"y": {"type": "categorical", "levels": ["a", "b"]}} | dict.fromkeys(names, "continuous")
    edges = [f"y -> {name}" for name in names]
    return pyro_cama.build({"target": "y", "nodes": nodes, "edges": edges}, hidden=hidden, device="cpu")


def steps(cama: CAMA, rows: int) -> dict[str, Callable[[], Tensor]]:
    """The negative ELBO of a batch, three ways."""
    children = cama.graph.blanket.children
    x, y = torch.randn(rows, len(children)), torch.randint(2, (rows,))
    batch = Batch(values={"y": y} | dict(zip(children, x.unbind(1), strict=True)), observed={}, site=None, rows=rows)
    do = {"m": 0.0}
    model: Any = cama.model._modules["networks"]
    guide: Any = cama.guide._modules["networks"]
    target, group = (model["merges"][i] for i in range(2))
    features, encoder = model["features"].networks, guide["encoder"].projections

    def plain() -> Tensor:
        one_hot = F.one_hot(y, 2).float()
        missing = torch.zeros(rows, len(children))
        seen = (
            guide["encoder"].bias
            + encoder["values"](x)
            + encoder["missing flags"](missing)
            + encoder["target"](one_hot)
        )
        loc, raw = guide["z"](guide["encoder"].output(F.silu(seen))).chunk(2, -1)
        scale = F.softplus(raw) + 1e-3
        eps = torch.randn_like(loc)
        z = loc + scale * eps
        log_q = (-0.5 * eps.square() - scale.log()).sum(-1)
        log_p = (-0.5 * z.square()).sum(-1)
        merged = group.bias + group.projections["y"](features["y"](one_hot)) + group.projections["z"](features["z"](z))
        mean = group.output(F.silu(merged))
        sd = F.softplus(model["constants"][1][:, 0]) + MIN_SCALE
        log_p = log_p + (-0.5 * ((x - mean) / sd).square() - sd.log()).sum(-1) - 0.9189 * len(children)
        log_p = log_p + F.log_softmax(target.bias, 0)[y]
        return -(log_p - log_q).mean()

    def ours(trace: bool) -> Callable[[], Tensor]:
        return lambda: -mean_bound(log_weights(cama.model, cama.guide, batch, do=do, trace=trace)).mean()

    return {"plain PyTorch": plain, "grouped scorer": ours(False), "Pyro traces": ours(True)}


def measure(children: int, rows: int, hidden: int, rounds: int) -> dict[str, float]:
    cama = model_of(children, hidden)
    optimizer = torch.optim.Adam(cama.modules.parameters(), lr=1e-3)
    return medians(steps(cama, rows), optimizer, rounds, draws=50, within=0.1)


def medians(
    losses: Mapping[str, Callable[[], Tensor]],
    optimizer: torch.optim.Optimizer,
    rounds: int,
    *,
    draws: int,
    within: float,
) -> dict[str, float]:
    """Median milliseconds of a step on each loss, in interleaved rounds.

    Args:
        draws: evaluations of each over which their means have to agree.
        within: the largest relative difference of these means.

    Raises:
        AssertionError: the losses are not the same.
    """
    values: dict[str, float] = {}
    with torch.random.fork_rng():
        for name, loss in losses.items():
            torch.manual_seed(0)
            values[name] = float(sum(loss().detach() for _ in range(draws)) / draws)
    low, high = min(values.values()), max(values.values())
    if high - low > within * abs(low):
        raise AssertionError(f"the contenders do not compute the same loss: {values}")
    times: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(rounds):
        for name, loss in losses.items():
            start = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            loss().backward()
            optimizer.step()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(found[rounds // 10 :]) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--children", type=int, nargs="+", default=[8, 30])
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    with pyro.settings.context(module_local_params=True), pyro.validation_enabled(False):
        for children in options.children:
            found = measure(children, options.rows, options.hidden, options.rounds)
            print(f"\n{children} children, batch {options.rows}, hidden {options.hidden}, one thread")
            for name, value in found.items():
                ratio = value / found["plain PyTorch"]
                print(f"  {name:<16}{value:7.2f} ms {ratio:6.2f} x")
                results.append({"name": f"step, {children} children, {name}", "value": round(value, 3), "unit": "ms"})
    options.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
