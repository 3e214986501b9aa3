"""What the training rows of every class are like, column by column: moments of numbers, shares of levels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_cama.graph.nodes import Node

FARTHEST = 4.0  # training deviations: a reading beyond counts as one there, so that a few do not rule


def comparable(node: Node, statistics: Mapping[str, Tensor], value: Tensor) -> Tensor:
    """Returns encoded numbers ``(rows, ...)`` in training deviations, cut at :data:`FARTHEST`, float64."""
    value = value.double()
    if node.type == "count":
        value = (value.clamp_min(0).log1p() - statistics["log_mean"]) / statistics["log_sd"]
    return value.clamp(-FARTHEST, FARTHEST)


def moments_by_class(
    node: Node, statistics: Mapping[str, Tensor], value: Tensor, label: Tensor, classes: int
) -> dict[str, Tensor]:
    """Computes the moments of encoded numbers by class.

    Args:
        value: observed entries, ``(rows, ...)``.
        label: class of each, -1 where it is not known, ``(rows,)``.
        classes: of the target.

    Returns:
        What :func:`moment_shapes` names; a class without rows has the moments of all.
    """
    of_class = torch.nn.functional.one_hot(label.long() + 1, classes + 1)[:, 1:].T.double()
    rows = of_class.sum(1)
    of_class[rows == 0] = 1.0
    shares = of_class / of_class.sum(1, keepdim=True)
    read = comparable(node, statistics, value).reshape(len(label), -1)
    found = {"rows": rows.clamp_min(1.0)}
    for key, power in (("mean", 1), ("square", 2), ("fourth", 4)):
        found[key] = (shares @ read**power).reshape(classes, *node.event_shape)
    return found


def frequencies_by_class(counts: Tensor) -> dict[str, Tensor]:
    """Returns shares of levels by class from counts ``(classes, levels)``; a class without rows has those of all."""
    counts = counts.double()
    rows = counts.sum(1)
    counts = torch.where(rows[:, None] > 0, counts, counts.sum(0))
    return {"rows": rows.clamp_min(1.0), "frequencies": counts / counts.sum(1, keepdim=True)}


def moment_shapes(node: Node, classes: int) -> dict[str, tuple[int, ...]]:
    """Returns what is known of a node by class, and the shape of each; nothing of an image.

    ``rows``, at least 1; of numbers the means of x, x^2 and x^4 as :func:`comparable` has x; of levels their shares.
    """
    if node.is_image:
        return {}
    if node.levels:
        return {"rows": (classes,), "frequencies": (classes, node.classes)}
    return {"rows": (classes,)} | dict.fromkeys(("mean", "square", "fourth"), (classes, *node.event_shape))
