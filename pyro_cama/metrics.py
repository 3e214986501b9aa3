"""Metrics of predicted probabilities: accuracy, log loss, calibration error, and precision, recall and F1 by class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyro_cama.cama import CAMA
from pyro_cama.data.batch import Batch
from pyro_cama.data.row_numbers import rows_text
from pyro_cama.errors import DataError

BINS = 15


@dataclass(frozen=True)
class Scores:
    """Metrics of predictions on labelled rows.

    Attributes:
        rows: how many.
        accuracy: share of rows whose most probable class is right.
        log_loss: mean of -log p(label), in nats.
        calibration_error: expected calibration error.
        classes: a row per class: ``class``, ``precision``, ``recall``, ``f1`` (NaN where nothing was predicted to be of
            the class, or nothing was) and ``rows``.
    """

    rows: int
    accuracy: float
    log_loss: float
    calibration_error: float
    classes: pd.DataFrame

    def line(self) -> str:
        """Returns all but the classes, on one line."""
        return (
            f"accuracy {self.accuracy:.3f}, log-loss {self.log_loss:.3f}, "
            f"calibration error {self.calibration_error:.3f}"
        )

    def __str__(self) -> str:
        table = self.classes.to_string(index=False, float_format="{:.3f}".format, na_rep="-")
        return f"{self.rows} rows: {self.line()}\n\n{table}"


def scores(cama: CAMA, table: pd.DataFrame | Batch, **options: Any) -> Scores:
    """Computes the metrics of a model on labelled rows.

    Args:
        cama: a fitted model.
        table: labelled rows, in raw units or encoded.
        options: of :meth:`CAMA.predict_proba`.

    Raises:
        DataError: the rows do not fit the graph, a label is missing, or a reading is too far off for probabilities.
    """
    y = cama.encode(table, target="require").values[cama.graph.target].long().cpu().numpy()
    p = cama.predict_proba(table, **options)
    told = np.asarray(np.isfinite(p).all(1))
    if not told.all():
        raise DataError(f"found no probabilities for {rows_text(~told)}: readings are too far from the training rows")
    return classification_metrics(p, y, cama.classes)


def classification_metrics(p: NDArray[np.float64], y: NDArray[np.int64], classes: tuple[Any, ...]) -> Scores:
    """Computes metrics from probabilities ``(rows, classes)`` and the right codes ``(rows,)``.

    >>> print(classification_metrics(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]), ("a", "b")).line())
    accuracy 0.500, log-loss 0.511, calibration error 0.350
    """
    predicted = p.argmax(1)
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
        accuracy=float((predicted == y).mean()),
        log_loss=float(-np.log(chosen).mean()),
        calibration_error=calibration_error(p.max(1), predicted == y),
        classes=pd.DataFrame(rows),
    )


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> float:
    """Returns the expected calibration error: the mean gap of accuracy and confidence over bins of equal
    width, weighted by rows.

    Guo, Pleiss, Sun and Weinberger, *On Calibration of Modern Neural Networks*, ICML 2017, eq. 3.

    >>> calibration_error(np.array([0.8, 0.8, 0.8, 0.8, 0.8]), np.array([True, True, True, True, False])) < 1e-12
    True
    """
    gaps = np.bincount(bins_of(confidence, bins), right.astype(float) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(right))


def bins_of(confidence: NDArray[np.float64], bins: int = BINS) -> NDArray[np.int64]:
    """Returns the bins of confidences, ``(rows,)``, from 0; bin i is (i / bins, (i + 1) / bins], the first closed."""
    return np.ceil(confidence * bins).clip(1, bins).astype(int) - 1
