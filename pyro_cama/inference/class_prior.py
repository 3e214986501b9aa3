"""Class proportions p(y) of new rows: given, or estimated without labels by EM (Saerens et al. 2002)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_cama.model.pair import ModelGuidePair


def estimate_proportions(log_p: Tensor, train: Tensor, steps: int = 200) -> Tensor:
    """Estimates class proportions of unlabelled rows by EM, from p(y | x) under the training ones.

    After Saerens et al. 2002, *Adjusting the Outputs of a Classifier to New a Priori Probabilities*.

    Args:
        log_p: ``(classes, rows)``; rows without probabilities (NaN) have no part in it.
        train: ``(classes,)``.
    """
    log_p = log_p[:, ~log_p.isnan().any(0)]
    if not log_p.shape[1]:
        return train
    new = train
    for _ in range(steps):
        posterior = torch.softmax(log_p + _log_ratio(new, train)[:, None], 0)
        new = posterior.mean(1)
    return new.clamp_min(1e-6)


def _log_ratio(new: Tensor, train: Tensor) -> Tensor:
    """log of new over training proportions, ``(classes,)``; 0 for a class that no training row had."""
    return torch.where(train > 0, (new / train.clamp_min(1e-12)).clamp_min(1e-12).log(), torch.zeros_like(train))


def prior_log_ratio(pair: ModelGuidePair, class_prior: Any, log_p: Tensor) -> Tensor | None:
    """Returns log of new over training class proportions, ``(classes,)``; None where they are the training ones.

    Args:
        class_prior: "train", "estimate" (by EM on these rows), or proportions ``(classes,)`` that sum to 1.
        log_p: log p(y | x, a, c) under the training proportions, ``(classes, rows)``.

    Raises:
        ValueError: neither of these.
    """
    train = pair.encoder.statistics[pair.graph.target]["frequencies"].to(log_p)
    if isinstance(class_prior, str):
        if class_prior == "train":
            return None
        if class_prior != "estimate":
            raise ValueError(f"class_prior: expected 'train', 'estimate' or proportions, found {class_prior!r}")
        return _log_ratio(estimate_proportions(log_p, train), train)
    new = torch.as_tensor(np.asarray(class_prior, dtype=float)).to(log_p)
    if new.shape != train.shape or bool((new < 0).any()) or not torch.isclose(new.sum(), new.new_ones(()), atol=1e-4):
        raise ValueError(
            f"class_prior: expected {len(train)} proportions that sum to 1, for {list(pair.classes)}; "
            f"found {np.asarray(class_prior).tolist()}"
        )
    return _log_ratio(new, train)
