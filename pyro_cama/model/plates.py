"""What one call of model or guide is given: its plates, its rows, every class of the target, m of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.nodes import Latent

EncodedRows = Batch | Mapping[str, Tensor]


class Plates:
    """The plates of one call of model or guide; ones not asked for are empty contexts.

    Attributes:
        rows: at dim -1.
        samples: draws of the latents, at -3.
        classes: of the target, at -2.
        sites: at -1.
    """

    def __init__(self, graph: CausalGraph, rows: int, samples: int | None, classes: bool, sites: int) -> None:
        free = partial(_free_name, graph)
        self.rows = pyro.plate(free("rows"), rows, dim=-1)
        self.samples: AbstractContextManager[Any] = (
            pyro.plate(free("samples"), samples, dim=-3) if samples is not None else nullcontext()
        )
        self.classes: AbstractContextManager[Any] = (
            pyro.plate(free("classes"), graph.nodes[graph.target].classes, dim=-2) if classes else nullcontext()
        )
        self.sites: AbstractContextManager[Any] = (
            pyro.plate(free("sites"), sites, dim=-1) if graph.site_column is not None else nullcontext()
        )

    def of(self, latent: Latent) -> AbstractContextManager[Any]:
        """Returns where a manipulation stands: ``rows`` in scope row, none in scope dataset, ``sites`` for a column."""
        if latent.per_row:
            return self.rows
        return nullcontext() if latent.per_dataset else self.sites


def _free_name(graph: CausalGraph, name: str) -> str:
    """A plate name that no node or latent has taken."""
    taken = {*graph.nodes, *(latent.name for latent in graph.latents)}
    while name in taken:
        name += "_"
    return name


def as_batch(data: EncodedRows | None, rows: int | None) -> Batch:
    """Returns rows of encoded values from what a caller passed; an empty batch where nothing was."""
    if isinstance(data, Batch):
        return data
    values = dict(data or {})
    if rows is None:
        rows = next(iter(values.values())).shape[0] if values else 1
    return Batch(values=values, observed={}, site=None, rows=rows)


def class_values(graph: CausalGraph, like: Tensor) -> Tensor:
    """Returns every class of the target in its encoding, ``(classes, 1)``."""
    node = graph.nodes[graph.target]
    values = torch.arange(node.classes, device=like.device)[:, None]
    return values.to(like.dtype) if node.type == "binary" else values


def joined(latent: Latent, values: Mapping[str, Tensor], site: Tensor | None) -> Tensor:
    """Returns the value of m from those of the manipulations that it is made of, by name.

    Args:
        latent: m.
        values: as sampled or given by ``do``, see :func:`m_of_rows`.
        site: of the rows.

    Returns:
        Their values side by side; where their scopes differ, as every row sees them.
    """
    if any(one.scope != latent.scope for one in latent.each):
        values = {one.name: m_of_rows(values[one.name], one, site) for one in latent.each if one.name in values}
    return side_by_side(latent, values)


def side_by_side(latent: Latent, values: Mapping[str, Tensor]) -> Tensor:
    """Returns the value of m from those of its manipulations by name, their leading shapes broadcast.

    One that has no value here, of several, is at 0.
    """
    if not latent.parts:
        return values[latent.name]
    like = next(values[one.name] for one in latent.each if one.name in values)
    own = [values[one.name] if one.name in values else like.new_zeros(one.dim) for one in latent.each]
    lead = torch.broadcast_shapes(*(value.shape[:-1] for value in own))
    return torch.cat([value.expand(*lead, value.shape[-1]) for value in own], -1)


def m_of_rows(m: Tensor, latent: Latent, site: Tensor | None) -> Tensor:
    """Returns m as every row sees it, zero at an unknown site.

    Args:
        m: as sampled or given by ``do``, ``(dim,)`` or ``(..., rows or sites, dim)``.
        latent: whose scope says to what a value of m belongs.
        site: the rows' sites, ``(rows,)``, -1 for an unknown one; None where they are not known.

    Returns:
        ``(..., rows, dim)``, ``(..., 1, dim)`` or ``(dim,)``.
    """
    if m.dim() == 1 or latent.site_column is None:
        return m
    if site is None:  # rows of no known origin: the first site's
        return m[..., :1, :]
    return m.index_select(-2, site.clamp_min(0)) * (site >= 0).unsqueeze(-1)
