"""Values of one node, by its type: raw units and levels to numbers that the model reads, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_cama.data.columns import levels_of
from pyro_cama.data.row_numbers import Mask, rows_text
from pyro_cama.data.scales import off_scale, on_scale
from pyro_cama.errors import DataError
from pyro_cama.graph.nodes import Node


def encode_values(node: Node, raw: NDArray[Any], present: Mask, statistics: Mapping[str, Tensor]) -> Tensor:
    """Returns raw values (rows, ...) as the model reads them, missing rows filled in; ``raw`` may be changed.

    Raises:
        DataError: a value too far from the training rows for the float type.
    """
    dtype = torch.get_default_dtype()
    if node.levels:
        codes = torch.from_numpy(np.where(present, raw, int(statistics["frequencies"].argmax())))
        return codes if node.type == "categorical" else codes.to(dtype)
    if node.type == "continuous":
        raw = standardised(raw, statistics)
        raw[~present] = 0.0
    else:
        mean = statistics["mean"]
        raw[~present] = (mean.round() if node.type == "count" else mean).numpy()
    value = torch.from_numpy(raw).to(dtype)
    if not value.isfinite().all():
        bad = ~value.isfinite().reshape(len(raw), -1).all(-1).numpy()
        raise DataError(
            f"column {node.name!r}: found values too far from the training rows for {dtype} "
            f"in {rows_text(bad)}; check the unit, or set to NaN what is missing"
        )
    return value


def standardised(raw: NDArray[Any], statistics: Mapping[str, Tensor]) -> NDArray[Any]:
    """Returns readings ``(..., *event)`` of a continuous node on its scale, in training deviations from the mean."""
    mean, sd, unit = (statistics[key].numpy() for key in ("mean", "sd", "unit"))
    with np.errstate(over="ignore"):
        return np.asarray((on_scale(raw, unit) - mean) / sd)


def recorded(value: NDArray[Any], statistics: Mapping[str, Tensor]) -> NDArray[Any]:
    """Returns readings of a continuous node as they are recorded: the inverse of :func:`standardised`."""
    mean, sd, unit = (statistics[key].numpy() for key in ("mean", "sd", "unit"))
    return np.asarray(off_scale(mean + sd * value, unit))


def decode_values(node: Node, values: Tensor) -> NDArray[Any]:
    """Returns codes of a discrete node as its levels.

    Raises:
        DataError: a code that is no level.
    """
    levels = levels_of(node)
    codes = values.round().long() if values.is_floating_point() else values.long()
    if codes.numel() and not 0 <= codes.min() <= codes.max() < len(levels):
        raise DataError(
            f"node {node.name!r}: found codes {int(codes.min())} to {int(codes.max())}; expected 0 to {len(levels) - 1}"
        )
    names: NDArray[Any] = np.empty(len(levels), dtype=object)
    names[:] = levels
    if len({type(level) for level in levels}) == 1:
        native = np.array(levels)
        if native.tolist() == list(levels):  # numpy cuts trailing zero characters, and widens huge integers
            names = native
    return np.asarray(names[codes.numpy()])
