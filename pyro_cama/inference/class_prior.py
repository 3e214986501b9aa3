"""Class proportions p(y) of new rows: given, or estimated without labels by EM (Saerens et al. 2002).

Few rows say little of their mix, and a single one would be taken for a world of its own class.  So the estimate is a
posterior mode: beside the new rows there are :data:`IMAGINED` ones of the training classes (a Dirichlet prior), in
``adapt`` too.  And where a likelihood-ratio test does not reject the training mix, that stands: with readings that tell
little of the class, the most likely mix is far from the true one, often of one class alone, and no more likely for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_cama._messages import listed
from pyro_cama.model.pair import ModelGuidePair

IMAGINED = 10.0  # rows of the expected classes: proportions wander only where the new rows insist
LEVEL = 0.05  # of the test of the training mix
ClassPrior = Literal["train", "estimate"] | NDArray[np.float64] | Mapping[Any, float] | pd.Series
"""Class proportions: the training ones, estimated ones, or given in the classes' order or by label."""

UNSEEN = 1e-3  # share of a level without training rows that no one can have meant


def imagined_rows(rows: Tensor, ambiguity: float) -> Tensor:
    """Returns how many rows of the expected classes an adaptation imagines beside so many new ones.

    While theta may move, evidence for another mix is mostly the model's own error where readings tell little of the
    class: teenagers' heights are explained a fifth of a nat a row better as those of women alone.

    Args:
        ambiguity: share of rows whose class is not recognised: of none, three are imagined for ten that there are, and
            of a sixth as many.
    """
    return (rows * min(1.0, 0.3 + 4 * ambiguity)).clamp_min(IMAGINED)


def estimate_proportions(log_p: Tensor, train: Tensor, steps: int = 200) -> Tensor:
    """Estimates class proportions of unlabelled rows by EM, from p(y | x) under the training ones.

    After Saerens et al. 2002, *Adjusting the Outputs of a Classifier to New a Priori Probabilities*.  A step is
    ``(sum of p(y | x) + IMAGINED train) / (rows + IMAGINED)``; the training proportions come back where the rows are as
    likely under them.

    Args:
        log_p: ``(classes, rows)``; rows without probabilities (NaN) have no part in it.
        train: ``(classes,)``.
    """
    from scipy.special import chdtri  # scipy.stats takes most of a second to import

    log_p = log_p[:, ~log_p.isnan().any(0)].double()
    expected = train.double()
    if _likelihood_ratio(log_p, expected, steps) < chdtri(max(int((train > 0).sum()) - 1, 1), LEVEL):
        return train
    return posterior_mode(log_p, expected, IMAGINED, steps).to(train)


def posterior_mode(log_p: Tensor, train: Tensor, imagined: float, steps: int = 200) -> Tensor:
    """The proportions of highest posterior density; with no imagined rows, of highest likelihood."""
    new = train
    for _ in range(steps):
        posterior = torch.softmax(log_p + log_ratio_of(new, train)[:, None], 0)
        last, new = new, (posterior.sum(1) + imagined * train) / (log_p.shape[1] + imagined)
        if float((new - last).abs().max()) < 1e-7:
            break
    return new


def _likelihood_ratio(log_p: Tensor, train: Tensor, steps: int) -> float:
    """Twice the log of the rows' likelihood under their own mix over that under the training one.

    Under the training mix it is chi-squared of as many degrees of freedom as proportions are free, also for a model
    whose p(y | x) is too sure: the curvature of the log-likelihood is minus the squares of the scores, whatever the
    model, and these have mean 0 as long as the mean of p(y | x) is the training proportions.
    """
    if not log_p.shape[1]:
        return 0.0
    ratio = log_ratio_of(posterior_mode(log_p, train, 0.0, steps), train)
    return 2 * float(torch.logsumexp(log_p + ratio[:, None], 0).sum())


def log_ratio_of(new: Tensor, train: Tensor) -> Tensor:
    """Returns log of new over training proportions, ``(classes,)``; 0 for a class that no training row had."""
    return torch.where(train > 0, (new / train.clamp_min(1e-12)).clamp_min(1e-12).log(), torch.zeros_like(train))


def prior_log_ratio(pair: ModelGuidePair, class_prior: Any, log_p: Tensor) -> Tensor | None:
    """Returns log of new over training class proportions, ``(classes,)``; None where they are the training ones.

    Args:
        class_prior: "train", "estimate" (by EM on these rows), or proportions that sum to 1: ``(classes,)`` in the
            order of ``pair.classes``, or by label, a mapping or a series.  A class of a share of 0 is ruled out.
        log_p: log p(y | x, a, c) under the training proportions, ``(classes, rows)``.

    Raises:
        ValueError: neither of these, or a share of a level that no training row had.
    """
    train = pair.encoder.statistics[pair.graph.target]["frequencies"].to(log_p)
    if isinstance(class_prior, str):
        if class_prior == "train":
            return None
        if class_prior != "estimate":
            raise ValueError(f"class_prior: expected 'train', 'estimate' or proportions, found {class_prior!r}")
        return log_ratio_of(estimate_proportions(log_p, train), train)
    class_prior = _in_order(class_prior, pair.classes)
    new = torch.as_tensor(np.asarray(class_prior, dtype=float)).to(log_p)
    if new.shape != train.shape or bool((new < 0).any()) or not torch.isclose(new.sum(), new.new_ones(()), atol=1e-4):
        raise ValueError(
            f"class_prior: expected {len(train)} proportions that sum to 1, for {list(pair.classes)}; "
            f"found {np.asarray(class_prior).tolist()}"
        )
    unseen = torch.nonzero((train == 0) & (new > UNSEEN)).flatten().tolist()
    if unseen:
        raise ValueError(
            f"class_prior: found a share of {', '.join(f'{float(new[i]):g}' for i in unseen)} for "
            f"{listed(pair.classes[i] for i in unseen)}, of which no training row was; expected 0 there, since nothing "
            "is known of such rows: fit with some of them, or leave the level out"
        )
    return log_ratio_of(new, train).masked_fill(new == 0, -torch.inf)


def _in_order(class_prior: Any, classes: Sequence[Any]) -> Any:
    """Proportions in the order of the classes; those that are not by label are in it.

    Raises:
        ValueError: labels that are not the classes', each once.
    """
    if not isinstance(class_prior, Mapping | pd.Series):
        return class_prior
    found = dict(class_prior.items())
    by_text = {str(label): share for label, share in found.items()}
    if len(by_text) != len(class_prior) or by_text.keys() != {str(label) for label in classes}:
        raise ValueError(
            f"class_prior: found shares of {listed(class_prior.keys())}; expected one of each of {listed(classes)}, "
            "0 for a class that there is none of"
        )
    return [by_text[str(label)] for label in classes]
