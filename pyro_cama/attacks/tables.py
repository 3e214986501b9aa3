"""Tables as an attack sees them: the numbers that may move, and p(y | x, a, c) as a differentiable function of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pyro_cama._arguments import expect
from pyro_cama.attacks.gradient import expect_tensor
from pyro_cama.data.columns import read_column
from pyro_cama.data.tables import Table, read_table
from pyro_cama.handlers.common_noise import NoCommonNoise, common_noise
from pyro_cama.handlers.contexts import fast, one_at_a_time
from pyro_cama.inference.chunks import chunk_size, draws_per_row
from pyro_cama.inference.class_posterior import log_posterior_of
from pyro_cama.inference.do import encode_do
from pyro_cama.inference.options import PredictionOptions
from pyro_cama.model.pair import ModelGuidePair


class AttackableTable:
    """Rows of a table as an attack sees them: numbers that may move, and a CAMA's log p(y | x, a, c) of them.

    Differentiable along the same path as :meth:`CAMA.predict_proba`, with the same noise: ``logits`` at the clean
    ``x`` are its log-probabilities.  A row's logits do not depend on the rows beside it.  Where a missing entry of a
    discrete or count node is drawn, the gradient takes the draw for a constant.

    Args:
        pair: fitted.
        data: the rows, in raw units; with the target's column to have ``y``.
        nodes: continuous nodes and images to attack, or one's name; None takes all such children and co-parents.
        fresh: new noise at every call of ``logits``, from torch's global generator (for ``draws`` of :func:`pgd`),
            instead of the same noise always.  Within a call all rows share it.
        do, budget: as in :meth:`CAMA.predict_proba`: ``samples``, ``refine_z`` and so on.  Where latents are refined,
            they are so anew at every call, and the gradient takes what was found for a constant: that of the
            explanation's own density, which at its maximum is the whole.

    Attributes:
        nodes: names of the attackable nodes.
        columns: name of every column of ``x``; ``name[i]`` for the components of a vector or an image.
        x: ``(rows, width)``, the nodes' values side by side, standardised: 1 is one training standard deviation.  An
            image's are its intensities, flat.
        bounds: low and high, ``(width,)`` each, for an attack: 0 and 1 for intensities, infinite for numbers.
        mask: ``(rows, width)``, False where an entry is missing; it is never attacked.
        y: class codes, ``(rows,)``, -1 where the label is missing; None without the target's column.

    Raises:
        ValueError: nodes that cannot be attacked (named), or an argument out of range.
        DataError: the table does not fit the graph.

    >>> import pyro_cama
    >>> from pyro_cama.attacks.gradient import pgd
    >>> graph = {"target": "y", "nodes": {"y": {"type": "binary"}, "x": "continuous"}, "edges": ["y -> x"]}
    >>> table = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "y": [0, 0, 1, 1]})
    >>> pair = pyro_cama.build(graph, device="cpu").fit(table, max_epochs=0, progress=False)
    >>> part = AttackableTable(pair, table)
    >>> adversarial = pgd(part.logits, part.x, part.y, eps=0.5, mask=part.mask, bounds=part.bounds)
    >>> (adversarial - part.x).abs().max().item() <= 0.5
    True
    >>> part.table(part.x).equals(table)
    True
    """

    nodes: tuple[str, ...]
    columns: tuple[str, ...]
    x: Tensor
    bounds: tuple[Tensor, Tensor]
    mask: Tensor
    y: Tensor | None

    @one_at_a_time
    def __init__(
        self,
        pair: ModelGuidePair,
        data: Table,
        nodes: str | Sequence[str] | None = None,
        *,
        do: Literal["auto"] | Mapping[str, Any] | None = "auto",
        fresh: bool = False,
        **budget: Any,
    ) -> None:
        self.nodes = _attackable(pair, nodes)
        self._pair, self._fresh = pair, fresh
        self._frame = _frame(pair, data)
        batch = pair.encode(self._frame)
        self.y = _codes(pair, batch.values, batch.observed)
        self._batch = batch.without(pair.graph.target)
        self._do = encode_do(pair, do, batch.rows)
        self._budget = PredictionOptions.checked("AttackableTable", pair.graph, self._do, **budget)
        values = [self._batch.values[name] for name in self.nodes]
        self._shapes = [pair.graph.nodes[name].event_shape for name in self.nodes]
        values = [
            value.flatten(1) if shape else value[:, None] for value, shape in zip(values, self._shapes, strict=True)
        ]
        self._widths = [value.shape[1] for value in values]
        self.columns = tuple(
            f"{name}[{i}]" if shape else name
            for name, shape, width in zip(self.nodes, self._shapes, self._widths, strict=True)
            for i in range(width)
        )
        self.x = torch.cat(values, 1)
        image = torch.tensor([node.type == "image" for node in (pair.graph.nodes[name] for name in self.nodes)])
        inside = image.repeat_interleave(torch.tensor(self._widths)).to(self.x.device)
        self.bounds = torch.where(inside, 0.0, -torch.inf).to(self.x), torch.where(inside, 1.0, torch.inf).to(self.x)
        masks = [self._batch.observed.get(name) for name in self.nodes]
        self.mask = torch.cat(
            [
                torch.ones_like(value, dtype=torch.bool) if mask is None else mask[:, None].expand_as(value)
                for value, mask in zip(values, masks, strict=True)
            ],
            1,
        )

    def __repr__(self) -> str:
        nodes = (f"{name}[{width}]" if shape else name
                 for name, shape, width in zip(self.nodes, self._shapes, self._widths, strict=True))  # fmt: skip
        return f"AttackableTable({len(self.x)} rows, {', '.join(nodes)})"

    def logits(self, x: Tensor) -> Tensor:
        """Returns log p(y | x, a, c), ``(rows, classes)``, of all rows with these values; differentiable in x.

        In chunks of bounded memory: where there are several, each is computed again for its gradient.

        Args:
            x: ``(rows, width)``; missing entries are not read.

        Raises:
            ValueError: x has another shape.
        """
        x = torch.where(self.mask, self._fitting("logits", x).to(self.x), self.x)
        seed = int(torch.randint(2**31, (), device="cpu")) if self._fresh else self._pair.settings.seed
        chunk = chunk_size(self._pair, draws_per_row(self._pair, self._do, self._budget))
        try:
            return self._chunked(x, chunk, seed, True)
        except NoCommonNoise:  # one row at a time, from one seed: still each row's own
            return self._chunked(x, 1, seed, False)

    def table(self, x: Tensor) -> pd.DataFrame:
        """Returns the rows in raw units, with these values of the attacked nodes.

        Entries of x that are as they were, and all other columns, stay exactly as given; a column with an entry that
        is not becomes float64.

        Args:
            x: ``(rows, width)``; missing entries stay missing.

        Raises:
            ValueError: x has another shape.
        """
        x = self._fitting("table", x).detach().to(self.x)
        moved = ((x != self.x) & self.mask).cpu()
        frame = self._frame.copy()
        names = [str(name) for name in frame.columns]
        parts = zip(self.nodes, self._shapes, x.split(self._widths, 1), moved.split(self._widths, 1), strict=True)
        for name, shape, values, where in parts:
            if not where.any():
                continue
            at, node = names.index(name), self._pair.graph.nodes[name]
            raw, present = read_column(node, frame.iloc[:, at])
            decoded = self._pair.encoder.decode(name, values.reshape(-1, *shape))
            new = np.where(where.reshape(-1, *shape).numpy(), decoded, raw)
            if shape:
                old = frame.iloc[:, at]
                entries = np.empty(len(new), dtype=object)
                for i in range(len(new)):
                    same = not where[i].any()
                    # bytes beside floats would no longer be read as bytes
                    same &= node.type != "image" or getattr(old.iloc[i], "dtype", None) != np.uint8
                    entries[i] = old.iloc[i] if same else new[i]
                frame.isetitem(at, entries)
            else:
                frame.isetitem(at, np.where(present, new, np.nan))
        return frame

    def _fitting(self, call: str, x: Tensor) -> Tensor:
        shape = tuple(self.x.shape)
        expect_tensor(f"AttackableTable.{call}", "x", x)
        expect(f"AttackableTable.{call}", "x.shape", tuple(x.shape), tuple(x.shape) == shape, f"{shape}")
        return x

    def _chunked(self, x: Tensor, chunk: int, seed: int, common: bool) -> Tensor:
        rows = torch.arange(len(x), device=x.device).split(chunk)
        if len(rows) > 1 and x.requires_grad and torch.is_grad_enabled():
            options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
            return torch.cat([checkpoint(self._part, x[part], part, seed, common, **options) for part in rows])
        return torch.cat([self._part(x[part], part, seed, common) for part in rows])

    @one_at_a_time
    def _part(self, x: Tensor, rows: Tensor, seed: int, common: bool) -> Tensor:
        """Returns the logits of some rows."""
        batch = self._batch.select(rows)
        parts = zip(self.nodes, self._shapes, x.split(self._widths, 1), strict=True)
        values = {name: value.reshape(-1, *shape) for name, shape, value in parts}
        batch = replace(batch, values={**batch.values, **values})
        noise = common_noise(seed, strict=True) if common else self._pair.seeded(seed)
        with fast(), noise:
            return log_posterior_of(self._pair, batch, rows, self._do, self._budget).T


def _attackable(pair: ModelGuidePair, nodes: str | Sequence[str] | None) -> tuple[str, ...]:
    """Returns the names of the nodes to attack.

    Raises:
        ValueError: one of them is neither a continuous node nor an image of the target's blanket, or there are none.
    """
    graph = pair.graph
    able = [n for n in graph.order if n != graph.target and graph.nodes[n].type in ("continuous", "image")]
    if nodes is None:
        nodes = [n for n in able if n in graph.blanket.children or n in graph.blanket.coparents]
    expect("AttackableTable", "nodes", nodes, isinstance(nodes, Iterable), f"some of {able}")
    nodes = [nodes] if isinstance(nodes, str) else list(nodes)
    wrong = [n for n in nodes if n not in able]
    if wrong:
        raise ValueError(f"nodes: {wrong} have no gradient to attack along; expected numbers or images, some of {able}")
    if not nodes or len(set(nodes)) < len(nodes):
        raise ValueError(f"nodes: expected some of {able}, each once, found {list(nodes)}")
    return tuple(nodes)


def _frame(pair: ModelGuidePair, data: Table) -> pd.DataFrame:
    """Returns the caller's rows as a frame of our own; of a mapping or dataset, the columns that the model reads."""
    if isinstance(data, pd.DataFrame):
        return data.copy()
    scope = {pair.graph.site_column} if pair.graph.site_column is not None else set()
    columns = read_table(data, {*pair.graph.order, *scope}).columns
    plain = {name: column.reset_index(drop=True) if isinstance(column, pd.Series) else column
             for name, column in columns.items()}  # fmt: skip
    return pd.DataFrame({name: column if column.ndim == 1 else list(column) for name, column in plain.items()})


def _codes(pair: ModelGuidePair, values: Mapping[str, Tensor], observed: Mapping[str, Tensor]) -> Tensor | None:
    """Returns class codes, -1 where missing; None without the target's column."""
    target = pair.graph.target
    if target not in values:
        return None
    codes = values[target].long()
    return codes.masked_fill(~observed[target], -1) if target in observed else codes
