"""Whether rows simulated from a fitted model look like the data, node by node."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.diagnosis.ci_tests import observed_values
from pyro_cama.graph.nodes import Node
from pyro_cama.handlers.contexts import fast
from pyro_cama.handlers.interventions import intervene
from pyro_cama.inference.do import clean_do, encode_do
from pyro_cama.model.pair import ModelGuidePair

_FEWEST_IN_CLASS = 25  # rows of a class whose density is compared
_MISFIT = 0.15  # distance between distributions that is taken for a misfit, beyond what chance explains


def check_densities(pair: ModelGuidePair, batch: Batch, draws: int, seed: int) -> dict[str, tuple[float, float, str]]:
    """Compares every node's rows with the model's.

    Returns:
        By node the distance from the model's distribution, what is allowed, and the class where it is worst.

    Children are simulated given the rows' label, parents and co-parents, z drawn anew, and compared class by class; all
    other nodes are simulated from the model alone.  The density is the one that adaptation compares, see
    :meth:`pyro_cama.model.manipulation.Manipulation.calibrated`.
    """
    graph = pair.graph
    labelled = batch.select(torch.from_numpy(observed_values(batch, graph.target)).to(pair.device).nonzero()[:, 0])
    program = intervene(pair.model, encode_do(pair, clean_do(pair.graph)))
    children = graph.blanket.children
    codes = labelled.values[graph.target].cpu().numpy().round().astype(int)
    classes: list[tuple[str, NDArray[np.bool_]]] = [
        (str(level), codes == code)
        for code, level in enumerate(pair.classes)
        if (codes == code).sum() >= _FEWEST_IN_CLASS
    ]
    everything: list[tuple[str, NDArray[np.bool_]]] = [("", np.ones(len(codes), dtype=bool))]
    rng = np.random.default_rng(seed)
    given = labelled.without(*children)
    calibrated = pair.manipulation.calibrated() if graph.m is not None else nullcontext()
    with torch.no_grad(), fast(), pair.seeded(seed), calibrated:
        parts = [program(given, samples=min(10, draws - done)) for done in range(0, draws, 10)]  # bounds the memory
        alone = program(rows=labelled.rows, samples=1)
    found = {}
    for name in graph.order:
        node, real = graph.nodes[name], labelled.values[name].cpu()
        values = [part[name] for part in parts] if name in children else [alone[name]]
        simulated = torch.cat([_spread(value, real) for value in values]).cpu()
        known = observed_values(labelled, name)
        scored = []
        for level, rows in classes if name in children else everything:
            if (chosen := rows & known).sum() >= _FEWEST_IN_CLASS:
                distance, allowed = _distance(node, real[chosen].numpy(), simulated[:, chosen].numpy(), rng)
                scored.append((distance, allowed, level))
        if scored:
            found[name] = max(scored, key=lambda score: score[0] - score[1])
    return found


def _spread(value: Tensor, like: Tensor) -> Tensor:
    """Returns a simulated value as ``(draws, rows, ...)``."""
    event = like.shape[1:]
    return value.expand(*torch.broadcast_shapes(value.shape, (1, 1, *like.shape))).reshape(-1, len(like), *event)


def _distance(node: Node, real: NDArray[Any], simulated: NDArray[Any], rng: np.random.Generator) -> tuple[float, float]:
    """Returns the distance of rows from draws for each (draws, rows, ...), and how much of it is allowed.

    Levels: total variation.  Numbers: Kolmogorov's, of the ranks of the rows among their own draws from uniform (of the
    rows from all draws, where there is one draw a row), the worst component's.  Allowed is 0.15 beyond what about one
    right model in a hundred exceeds by chance.
    """
    n = len(real)
    if node.levels:
        shares = [
            np.bincount(values.ravel().round().astype(int), minlength=node.classes) for values in (real, simulated)
        ]
        distance = abs(shares[0] / n - shares[1] / simulated.size).sum() / 2
        return float(distance), _MISFIT + (0.4 * np.sqrt(node.classes - 1) + 1.2) / np.sqrt(n)
    flat, draws = real.reshape(n, -1), simulated.reshape(len(simulated), n, -1)
    chance = 1.63 / np.sqrt(n)
    worst = 0.0
    for real_part, drawn in zip(flat.T, np.moveaxis(draws, -1, 0), strict=True):
        if len(drawn) == 1:
            pool = np.sort(drawn[0])
            below, upto = (np.searchsorted(pool, real_part, side) for side in ("left", "right"))
            total = len(pool)
        else:
            below, upto = (drawn < real_part).sum(0), (drawn <= real_part).sum(0)
            total = len(drawn)
        ranks = np.sort((below + (upto - below + 1) * rng.uniform(size=n)) / (total + 1))
        grid = np.arange(1, n + 1) / n
        worst = max(worst, float(np.maximum(grid - ranks, ranks - grid + 1 / n).max()))
    return worst, _MISFIT + chance * (np.sqrt(2) if len(draws) == 1 else 1)
