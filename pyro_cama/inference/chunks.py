"""Rows at a time: how many keep the tensors of a prediction small."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.inference.log_weights import is_exact
from pyro_cama.inference.options import PredictionOptions
from pyro_cama.model.pair import ModelGuidePair

SHARED = 4  # draws of a shared m that predictions take


def draws_per_row(pair: ModelGuidePair, do: dict[str, Tensor] | None, options: PredictionOptions) -> int:
    """Counts the draws of the latents a row: ``samples`` of z for each of ``m_samples`` of a shared m not given."""
    return options.samples * (options.m_samples if draws_shared(pair, do) else 1)


def draws_shared(pair: ModelGuidePair, do: dict[str, Tensor] | None) -> bool:
    """Returns whether a manipulation that rows share is drawn, not given."""
    return any(not m.per_row and m.name not in (do or {}) for m in pair.graph.manipulations)


def chunk_size(pair: ModelGuidePair, draws: int) -> int:
    """Counts the rows at a time that keep a prediction's widest tensor within what caches hold; see docs/speed.md."""
    images = [8 * g.width for g in pair.model.groups if g.image]  # a decoder's widest layers
    widest = max(pair.settings.hidden, *(g.width * g.size for g in pair.model.groups), *images)
    if is_exact(pair.model, pair.guide):
        widest = sum(g.width for g in pair.model.groups)
        if pair.graph.m is None or not pair.graph.m.per_row:  # z is summed out, and draws of a shared m are few
            draws = min(draws, SHARED)
    if pair.graph.m is not None and not pair.graph.m.per_dataset:  # every row has a theta, whatever its class
        widest = max(widest, pair.manipulation.size // len(pair.classes))
    numbers = 2**25 if pair.device.type == "cuda" else 2**23 if images else 2**21
    return max(1, numbers // (draws * len(pair.classes) * widest))


def row_chunks(pair: ModelGuidePair, batch: Batch, draws: int) -> tuple[Tensor, ...]:
    """Returns row numbers in parts of bounded memory."""
    return torch.arange(batch.rows, device=pair.device).split(chunk_size(pair, draws))
