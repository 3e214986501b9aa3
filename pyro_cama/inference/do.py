"""``do`` of manipulation latents: as users write it, as tensors, and for some of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_cama._messages import listed, shown
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.nodes import Latent
from pyro_cama.inference.bounds import shared_means, sites_at_rest
from pyro_cama.model.pair import ModelGuidePair

UserDo = Mapping[str, Any] | None
"""An intervention as users write it: by latent a number or several; None infers the latent."""


def clean_do(graph: CausalGraph) -> UserDo:
    """Returns do(m=0) of every manipulation: nothing is manipulated."""
    return {m.name: 0.0 for m in graph.manipulations} or None


def encode_do(pair: ModelGuidePair, do: Literal["auto"] | UserDo, rows: int | None = None) -> dict[str, Tensor] | None:
    """Returns ``do`` as tensors, by name; a manipulation that it lacks is inferred.

    Shapes are ``(dim,)``, ``(rows, dim)`` in scope row, and ``(sites, dim)`` where a column is the scope.

    Args:
        do: "auto" is do(m=0) of every manipulation that the pair is not said to infer (``trained``); None infers all.
        rows: of the table; None where they are not counted yet.

    Raises:
        ValueError: no such latent, or a value that does not fit it or the rows.
    """
    latents = {m.name: m for m in pair.graph.manipulations}
    if isinstance(do, str) and do == "auto":
        do = {name: 0.0 for name in latents if name not in pair.trained}
    if do is not None and not isinstance(do, Mapping):
        raise ValueError(f"do: expected 'auto', None or a mapping such as {{'m': 0.0}}, found {shown(do)}")
    if not do:
        return None
    unknown = [name for name in do if name not in latents]
    if unknown:
        which = "a manipulation latent" if len(latents) > 1 else "the manipulation latent"
        expected = listed(latents) if latents else "no latent: this graph has no manipulation"
        raise ValueError(f"do: {unknown} is not {which}; expected {expected} (nodes: use sample(do=...))")
    given = {name: _value_of(pair, latents[name], value) for name, value in do.items()}
    if rows is not None:
        expect_rows(pair, given, rows)
    return given


def _value_of(pair: ModelGuidePair, m: Latent, given: Any) -> Tensor:
    """The value of a manipulation as a tensor, ``(dim,)``, ``(rows, dim)`` or ``(sites, dim)``."""
    try:
        value = torch.as_tensor(given, dtype=pair.model.like.dtype, device=pair.device)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"do: {m.name!r} takes a number or {m.dim} of them, found {given!r}") from None
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"do: {m.name!r} has to be finite, found {given!r}")
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
    return value


def do_at_means(pair: ModelGuidePair, do: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Returns ``do`` with manipulations that rows share, and that it lacks, at the means of their posteriors."""
    return shared_means(pair.guide) | dict(do or {})


def held_do(pair: ModelGuidePair) -> dict[str, Tensor]:
    """Returns ``do`` of the manipulations that stand still while others are adapted: 0, or the mean of what is shared.

    Those of every row's own that have been trained are not among them: they are inferred.
    """
    still = [m for m in pair.graph.manipulations if m.name not in pair.moving]
    means = shared_means(pair.guide)
    nothing = {m.name: pair.model.like.new_zeros(m.dim) for m in still if m.name not in pair.trained}
    return {m.name: means[m.name] for m in still if m.name in means} | nothing


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
    of_sites = {m.name for m in pair.graph.manipulations if m.site_column is not None}
    if site is None or not of_sites - (do or {}).keys():
        return None
    if not of_sites & pair.trained:
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
    by_row = {m.name for m in graph.manipulations if m.per_row}
    return {name: value for name, value in (do or {}).items() if name in by_row and value.dim() > 1}


def _counted(rows: int) -> str:
    return f"{rows} row{'' if rows == 1 else 's'}"
