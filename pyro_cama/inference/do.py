"""``do`` of the manipulation latent: as users write it, as tensors, and for some of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_cama._messages import shown
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.inference.bounds import sites_at_rest
from pyro_cama.model.pair import ModelGuidePair

UserDo = Mapping[str, Any] | None
"""An intervention as users write it: by latent a number or several; None infers the latent."""


def clean_do(graph: CausalGraph) -> UserDo:
    """Returns do(m=0): nothing is manipulated."""
    return None if graph.m is None else {graph.m.name: 0.0}


def encode_do(pair: ModelGuidePair, do: Literal["auto"] | UserDo, rows: int | None = None) -> dict[str, Tensor] | None:
    """Returns ``do`` as tensors.

    Shapes are ``(dim,)``, ``(rows, dim)`` in scope row, and ``(sites, dim)`` where a column is the scope.

    Args:
        do: "auto" is do(m=0) until the pair is said to infer m (``m_trained``), and None, the inferred m, after.
        rows: of the table; None where they are not counted yet.

    Raises:
        ValueError: no such latent, or a value that does not fit it or the rows.
    """
    m = pair.graph.m
    if isinstance(do, str) and do == "auto":
        do = None if pair.m_trained or m is None else {m.name: 0.0}
    if do is not None and not isinstance(do, Mapping):
        raise ValueError(f"do: expected 'auto', None or a mapping such as {{'m': 0.0}}, found {shown(do)}")
    if not do:
        return None
    unknown = [name for name in do if m is None or name != m.name]
    if unknown:
        expected = f"{m.name!r}" if m else "no latent: this graph has no manipulation"
        raise ValueError(
            f"do: {unknown} is not the manipulation latent; expected {expected} (nodes: use sample(do=...))"
        )
    assert m is not None
    try:
        value = torch.as_tensor(do[m.name], dtype=pair.model.like.dtype, device=pair.device)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"do: {m.name!r} takes a number or {m.dim} of them, found {do[m.name]!r}") from None
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"do: {m.name!r} has to be finite, found {do[m.name]!r}")
    if value.dim() == 0:
        value = value.expand(m.dim)
    if value.shape[-1] != m.dim or value.dim() > 2:
        raise ValueError(f"do: {m.name!r} has {m.dim} dimensions, found a value of shape {tuple(value.shape)}")
    if value.dim() > 1 and not m.per_row:
        sites = 1 if m.per_dataset else pair.model.sites
        if len(value) != sites:
            more = "" if m.per_dataset else f" or ({sites}, {m.dim}), one for every {m.scope!r}"
            raise ValueError(
                f"do: {m.name!r} has {_counted(len(value))}; scope {m.scope!r} has no value of every row: expected "
                f"a number or ({m.dim},), one for all{more}"
            )
    given = {m.name: value}
    if rows is not None:
        expect_rows(pair, given, rows)
    return given


def do_of_rows(pair: ModelGuidePair, do: dict[str, Tensor] | None, rows: Tensor) -> dict[str, Tensor] | None:
    """Returns ``do`` for some rows, in ascending order: a value of every row, or one for all.

    Raises:
        ValueError: fewer values than rows.
    """
    by_row = _by_row(pair.graph, do)
    for name, value in by_row.items():
        if int(rows[-1]) >= len(value):
            raise ValueError(f"do: {name!r} has {_counted(len(value))}; the table has more")
    return {**do, **{name: value[rows] for name, value in by_row.items()}} if do else None


def rows_at_rest(pair: ModelGuidePair, do: dict[str, Tensor] | None, site: Tensor | None) -> Tensor | None:
    """Returns the rows whose m is 0 though it is inferred, bool ``(rows,)``; None where no scope column says so.

    They are of a site that is not known, or of one that nothing was learnt of while others were: its q(m) stands at 0.
    """
    m = pair.graph.m
    if site is None or do or m is None or m.site_column is None:
        return None
    if not pair.m_trained:
        return site < 0
    resting = sites_at_rest(pair.guide)
    return (site < 0) | resting[site.clamp_min(0)]


def expect_rows(pair: ModelGuidePair, do: dict[str, Tensor] | None, rows: int) -> None:
    """Checks that ``do`` has a value of every row, where it has any by row.

    Raises:
        ValueError: more or fewer values than rows.
    """
    for name, value in _by_row(pair.graph, do).items():
        if len(value) != rows:
            raise ValueError(f"do: {name!r} has {_counted(len(value))}; the table has {rows}")


def _by_row(graph: CausalGraph, do: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """The part of ``do`` that is a value of every row."""
    by_row = graph.m is not None and graph.m.per_row
    return {name: value for name, value in (do or {}).items() if by_row and value.dim() > 1}


def _counted(rows: int) -> str:
    return f"{rows} row{'' if rows == 1 else 's'}"
