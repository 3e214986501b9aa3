"""p(y | x, a, c) of rows by Bayes' rule, eq. 6 of the paper: common noise, chunks of bounded memory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_cama._messages import caller_level
from pyro_cama.data.batch import Batch
from pyro_cama.data.open_stream import DataSource, open_stream
from pyro_cama.handlers.common_noise import NoCommonNoise, common_noise
from pyro_cama.handlers.contexts import fast
from pyro_cama.inference.bounds import class_log_probs
from pyro_cama.inference.chunks import chunk_size, draws_per_row
from pyro_cama.inference.class_prior import ClassPrior, prior_log_ratio
from pyro_cama.inference.do import UserDo, clean_do, do_at_means, do_of_rows, encode_do, expect_rows, rows_at_rest
from pyro_cama.inference.options import PredictionOptions
from pyro_cama.inference.proposals import weights_within
from pyro_cama.inference.unfamiliar_causes import UnfamiliarCauses
from pyro_cama.model.pair import ModelGuidePair

NUMBERS = 2**22  # in all draws of a shared theta: a confusion of many levels is large


def class_posterior(
    pair: ModelGuidePair,
    data: DataSource,
    do: Literal["auto"] | UserDo,
    class_prior: ClassPrior,
    **options: Any,
) -> NDArray[np.float64]:
    """Returns p(y | x, a, c), ``(rows, classes)``; see :meth:`pyro_cama.CAMA.predict_proba`."""
    stream = open_stream(data, pair.graph)
    source = pair.encode(data, "ignore") if stream is None else stream  # type: ignore[arg-type]
    given = encode_do(pair, do, source.rows if isinstance(source, Batch) else None)
    chosen = PredictionOptions.checked("predict", pair.graph, given, **options)
    parts, start, causes = [], 0, UnfamiliarCauses(pair)
    for batch in pair.batches(source, "ignore"):
        own = do_of_rows(pair, given, torch.arange(start, start + batch.rows, device=pair.device))
        parts.append(class_log_posterior(pair, batch, own, chosen))
        start += batch.rows
        causes.add(batch)
    causes.warn("predict", "fit to rows that cover them")
    expect_rows(pair, given, start)  # the rows of a stream are counted by now
    log_p = torch.cat(parts, 1)
    ratio = prior_log_ratio(pair, class_prior, log_p)
    if ratio is not None:
        log_p = torch.log_softmax(log_p + ratio[:, None], 0)
    probabilities: NDArray[np.float64] = log_p.T.double().exp().cpu().numpy()
    return probabilities / probabilities.sum(1, keepdims=True)


def most_probable(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the code of every row's most probable class, ``(rows,)``; -1 for a row without probabilities.

    >>> most_probable(np.array([[0.4, 0.6], [np.nan, np.nan]])).tolist()
    [1, -1]
    """
    return np.where(np.isfinite(probabilities).all(1), probabilities.argmax(1), -1)


def most_probable_labels(pair: ModelGuidePair, probabilities: NDArray[np.float64]) -> NDArray[Any]:
    """Returns the label of every row's most probable class, ``(rows,)``; None for a row without probabilities.

    Args:
        probabilities: of the classes, ``(rows, classes)``.
    """
    codes = most_probable(probabilities)
    labels = pair.encoder.labels(codes.clip(0))
    if (untold := codes < 0).any():
        labels = labels.astype(object)
        labels[untold] = None
    return labels


def class_log_posterior(
    pair: ModelGuidePair, batch: Batch, do: dict[str, Tensor] | None, options: PredictionOptions
) -> Tensor:
    """Returns log p(y | x, a, c), ``(classes, rows)``, in chunks of bounded memory; each row's result is its own."""
    inferred = any(m.site_column is not None and m.name not in (do or {}) for m in pair.graph.manipulations)
    if batch.site is not None and inferred and bool((batch.site < 0).any()):
        message = "rows of a site the model was never adapted to are read with m = 0"
        warnings.warn(message, UserWarning, stacklevel=caller_level())

    chunk = chunk_size(pair, draws_per_row(pair, at_mean(pair, do, options), options))

    def one(rows: Tensor) -> Tensor:
        return log_posterior_of(pair, batch.select(rows), rows, do, options)

    everything = torch.arange(batch.rows, device=pair.device)
    with torch.no_grad(), fast():
        try:
            with common_noise(pair.settings.seed, strict=True):
                return torch.cat([one(rows) for rows in everything.split(chunk)], 1)
        except NoCommonNoise:
            parts = []
            for rows in everything.split(1):  # one row at a time, from one seed: still each row's own
                with pair.seeded():
                    parts.append(one(rows))
            return torch.cat(parts, 1)


def log_posterior_of(
    pair: ModelGuidePair, part: Batch, rows: Tensor, do: dict[str, Tensor] | None, options: PredictionOptions
) -> Tensor:
    """Returns log p(y | x, a, c) of ``part``, rows number ``rows`` of those that ``do`` is for, ``(classes, rows)``.

    Where m is inferred, it is the mean of p(y | x, a, c) over the modes of its posterior.
    """
    if not averages_modes(pair, do):
        return _of_mode(pair, part, rows, do, options)
    found = [_of_mode(pair, part, rows, do, options) for _ in pair.each_mode()]
    return torch.stack(found).logsumexp(0) - math.log(len(found))


def _of_mode(
    pair: ModelGuidePair, part: Batch, rows: Tensor, do: dict[str, Tensor] | None, options: PredictionOptions
) -> Tensor:
    """The same at one mode; rows of a site without an m of its own get what do(m=0) gives them, from the same draws."""
    do = at_mean(pair, do, options)
    resting = rows_at_rest(pair, do, part.site)
    if resting is None or not bool(resting.any()):
        return posterior_within(pair, part, do_of_rows(pair, do, rows), options)
    if bool(resting.all()):
        return posterior_within(pair, part, do_of_rows(pair, at_rest(pair, do), rows), options)
    parts = [torch.nonzero(own).flatten() for own in (resting, ~resting)]
    found = [_of_mode(pair, part.select(own), rows[own], do, options) for own in parts]
    return torch.cat(found, 1)[:, torch.cat(parts).argsort()]


def averages_modes(pair: ModelGuidePair, do: Mapping[str, Tensor] | None) -> bool:
    """Returns whether a prediction is the mean over the modes of the posterior of m: there are some, and m is drawn."""
    return bool(pair.modes) and not (do or {}).keys() >= {m.name for m in pair.graph.manipulations}


def at_rest(pair: ModelGuidePair, do: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """Puts what belongs to sites at 0 where it is not given, as for rows of a site without an m of its own."""
    clean = encode_do(pair, clean_do(pair.graph)) or {}
    return {m.name: clean[m.name] for m in pair.graph.manipulations if m.site_column is not None} | (do or {})


def at_mean(pair: ModelGuidePair, do: dict[str, Tensor] | None, options: PredictionOptions) -> dict[str, Tensor] | None:
    """Puts shared manipulations at their mean where draws of theta would not fit, as evidence has it.

    And beside manipulations of every row's own, which take the draws.
    """
    m = pair.graph.m
    if m is None or m.name in (do or {}):
        return do
    beside = m.per_row and any(not latent.per_row for latent in m.each)
    fit = not m.per_dataset or draws_per_row(pair, do, options) * pair.manipulation.size <= NUMBERS
    if fit and not beside:
        return do
    return do_at_means(pair, do)


def posterior_within(
    pair: ModelGuidePair, part: Batch, do: dict[str, Tensor] | None, options: PredictionOptions
) -> Tensor:
    """Returns log p(y | x, a, c) at one mode, of rows that differ in nothing but what ``do`` and they say."""
    weights = weights_within(pair, part, do, draws_per_row(pair, do, options), options)
    return class_log_probs(weights, m_samples=options.m_samples)
