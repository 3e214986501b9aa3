"""Metrics of predicted probabilities: accuracy, log loss, calibration error, and precision, recall and F1 by class.

A row without probabilities (NaN) has no part in any of them, and is counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyro_cama.cama import CAMA
from pyro_cama.data.batch import Batch
from pyro_cama.data.unknown_levels import Unknown, reading_unknown
from pyro_cama.inference.class_posterior import most_probable

BINS = 15


@dataclass(frozen=True)
class Scores:
    """Metrics of predictions on labelled rows.

    Attributes:
        rows: how many have probabilities; all else is of these, and NaN if there are none.
        accuracy: share of rows whose most probable class is right.
        log_loss: mean of -log p(label), in nats.
        calibration_error: expected calibration error.
        classes: a row per class: ``class``, ``precision``, ``recall``, ``f1`` (NaN where nothing was predicted to be of
            the class, or nothing was) and ``rows``.
        untold: how many have no probabilities, and are left out.
    """

    rows: int
    accuracy: float
    log_loss: float
    calibration_error: float
    classes: pd.DataFrame
    untold: int = 0

    def line(self) -> str:
        """Returns all but the classes, on one line."""
        left = f"{untold_text(self.untold)}, a reading being too far from the training rows"
        if not self.rows:
            return f"no figures; {left}"
        figures = (
            f"accuracy {self.accuracy:.3f}, log-loss {self.log_loss:.3f}, "
            f"calibration error {self.calibration_error:.3f}"
        )
        return f"{figures}; {left}" if self.untold else figures

    def __str__(self) -> str:
        table = self.classes.to_string(index=False, float_format="{:.3f}".format, na_rep="-")
        return f"{self.rows} rows: {self.line()}\n\n{table}"


def untold_text(rows: int) -> str:
    """Says how many rows are left out because they have no probabilities.

    >>> untold_text(1)
    '1 row without probabilities is left out'
    """
    return f"{rows} row{' without probabilities is' if rows == 1 else 's without probabilities are'} left out"


def scores(cama: CAMA, table: pd.DataFrame | Batch, *, unknown: Unknown = "error", **options: Any) -> Scores:
    """Computes the metrics of a model on labelled rows.

    Args:
        cama: a fitted model.
        table: labelled rows, in raw units or encoded.
        unknown, options: of :meth:`CAMA.predict_proba`.

    Raises:
        DataError: the rows do not fit the graph, or a label is missing.
    """
    with reading_unknown(unknown, "scores"):
        y = cama.encode(table, target="require").values[cama.graph.target].long().cpu().numpy()
        return classification_metrics(cama.predict_proba(table, **options), y, cama.classes)


def classification_metrics(p: NDArray[np.float64], y: NDArray[np.int64], classes: tuple[Any, ...]) -> Scores:
    """Computes metrics from probabilities ``(rows, classes)`` and the right codes ``(rows,)``.

    Rows without probabilities, NaN, are left out and counted.

    >>> print(classification_metrics(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]), ("a", "b")).line())
    accuracy 0.500, log-loss 0.511, calibration error 0.350
    """
    everything, predicted = len(p), most_probable(p)
    told = predicted >= 0
    p, y, predicted = p[told], y[told], predicted[told]
    chosen = p[np.arange(len(y)), y].clip(np.finfo(float).eps)
    rows = []
    for code, name in enumerate(classes):
        hits = int(((predicted == code) & (y == code)).sum())
        said, there = int((predicted == code).sum()), int((y == code).sum())
        rows.append(
            {
                "class": name,
                "precision": hits / said if said else np.nan,
                "recall": hits / there if there else np.nan,
                "f1": 2 * hits / (said + there) if said + there else np.nan,
                "rows": there,
            }
        )
    return Scores(
        rows=len(y),
        accuracy=float((predicted == y).mean()) if len(y) else np.nan,
        log_loss=float(-np.log(chosen).mean()) if len(y) else np.nan,
        calibration_error=calibration_error(p.max(1), predicted == y),
        classes=pd.DataFrame(rows),
        untold=everything - len(y),
    )


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> float:
    """Returns the expected calibration error: the mean gap of accuracy and confidence over bins of equal
    width, weighted by rows. One that is not told, NaN, has no part in it; NaN where none is.

    Guo, Pleiss, Sun and Weinberger, *On Calibration of Modern Neural Networks*, ICML 2017, eq. 3.

    >>> calibration_error(np.array([0.8, 0.8, 0.8, 0.8, 0.8]), np.array([True, True, True, True, False])) < 1e-12
    True
    """
    told = np.isfinite(confidence)
    if not told.any():
        return math.nan
    confidence, right = confidence[told], right[told]
    gaps = np.bincount(bins_of(confidence, bins), right.astype(float) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(right))


def bins_of(confidence: NDArray[np.float64], bins: int = BINS) -> NDArray[np.int64]:
    """Returns the bins of confidences, ``(rows,)``, from 0; bin i is (i / bins, (i + 1) / bins], the first closed.

    Raises:
        ValueError: a confidence is not finite.
    """
    if not np.isfinite(confidence).all():
        raise ValueError(f"bins_of: found {int((~np.isfinite(confidence)).sum())} confidences that are no numbers")
    return np.ceil(confidence * bins).clip(1, bins).astype(int) - 1
