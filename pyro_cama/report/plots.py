"""Pictures of a model for a notebook, on axes that are given or new: calibration, and the course of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pyro_cama.cama import CAMA
from pyro_cama.data.tables import Table
from pyro_cama.inference.class_posterior import most_probable
from pyro_cama.inference.do import UserDo
from pyro_cama.metrics import BINS, bins_of
from pyro_cama.report.pictures import LOOK, new_axes
from pyro_cama.training.stages import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[str, NDArray[np.float64], NDArray[np.int64]]
"""A name, probabilities ``(rows, classes)``, and codes of the labels ``(rows,)``, -1 where there is none."""


def plot_calibration(cama: CAMA, data: Table, do: Literal["auto"] | UserDo = "auto", *, ax: Axes | None = None) -> Axes:
    """Draws the share of right answers against the confidence in them, on labelled rows.

    Args:
        cama: a fitted or adapted model.
        data: labelled rows, in raw units.
        do: as in :meth:`CAMA.predict_proba`.
        ax: matplotlib axes; left out, new ones.

    Raises:
        DataError: the rows do not fit the graph, or a label is missing.

    Example:
        >>> import pandas as pd, pyro_cama
        >>> graph = {"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]}
        >>> rows = pd.DataFrame({"y": [0, 1] * 50, "x": [0.1 * (i % 7) + i % 2 for i in range(100)]})
        >>> cama = pyro_cama.build(graph, hidden=8).fit(rows, max_epochs=2, progress=False)
        >>> plot_calibration(cama, rows).get_xlabel()
        'confidence in the answer'
    """
    labels = cama.encode(data, target="require").values[cama.graph.target].long().cpu().numpy()
    return draw_calibration([("", cama.predict_proba(data, do), labels)], new_axes(ax, kept=True))


def plot_training(cama: CAMA, *, ax: Axes | None = None) -> Axes:
    """Draws the loss of every epoch of the last fit, and which epoch's weights were kept.

    Args:
        cama: a model that was fitted in this process; the course of a fit is not stored.
        ax: matplotlib axes; left out, new ones.

    Raises:
        ValueError: the model was not fitted here.
    """
    if cama.history is None or not cama.history.rows:
        raise ValueError("plot_training: found no epochs; expected a model that was fitted in this process")
    return draw_training(cama.history, new_axes(ax, kept=True))


def draw_calibration(curves: Sequence[Curve], axis: Axes) -> Axes:
    """Draws one curve a reading of the rows; larger marks hold more rows."""
    axis.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle=":")
    for (name, p, labels), look in zip(curves, LOOK if len(curves) > 1 else LOOK[1:], strict=False):
        rows, confidence, right = calibration(p, labels)
        axis.plot(confidence, right, label=name, linewidth=1.5, markersize=0, **look)
        size = 12 + 90 * rows / max(rows.sum(), 1)
        axis.scatter(confidence, right, s=size, color=look["color"], marker=look["marker"], zorder=3)
    low = 1 / curves[0][1].shape[1]
    axis.set(
        xlabel="confidence in the answer", ylabel="share of right answers", xlim=(low - 0.02, 1.02), ylim=(-0.03, 1.03)
    )
    if len(curves) > 1:
        axis.legend(frameon=False)
    return axis


def draw_training(history: History, axis: Axes) -> Axes:
    """Draws losses by epoch, and a dotted line at the epoch that was kept."""
    epochs = [row["epoch"] for row in history.rows]
    for key, name, look in (("loss", "training", LOOK[0]), ("validation_loss", "validation", LOOK[1])):
        values = [row.get(key, math.nan) for row in history.rows]
        if not all(map(math.isnan, values)):
            axis.plot(epochs, values, label=name, linewidth=1.5, color=look["color"], linestyle=look["linestyle"])
    axis.axvline(history.best_epoch, color="#888888", linewidth=1, linestyle=":")
    axis.set(xlabel="epoch", ylabel="loss (nats a row)")
    axis.legend(frameon=False)
    return axis


def calibration(
    p: NDArray[np.float64], labels: NDArray[np.int64], bins: int = BINS
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Returns rows, mean confidence and share of right answers of every bin that holds rows; Guo et al. 2017, Figure 1.

    Bins are those of :func:`pyro_cama.metrics.bins_of`.

    >>> rows, confidence, right = calibration(np.array([[0.9, 0.1], [0.08, 0.92], [0.4, 0.6]]), np.array([0, 0, 1]), 5)
    >>> rows.tolist(), confidence.round(2).tolist(), right.tolist()
    ([1, 2], [0.6, 0.91], [1.0, 0.5])
    """
    read = most_probable(p)
    known = (labels >= 0) & (read >= 0)
    confidence, hit = p[known].max(1), read[known] == labels[known]
    bin_of = bins_of(confidence, bins)
    rows = np.bincount(bin_of, minlength=bins)
    there = rows > 0
    mean, share = (np.bincount(bin_of, w, minlength=bins)[there] / rows[there] for w in (confidence, hit.astype(float)))
    return rows[there], mean, share
