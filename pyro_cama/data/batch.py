"""Encoded rows: what a model and a guide read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_cama._messages import listed
from pyro_cama.errors import DataError


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of encoded values.

    Attributes:
        values: node to tensor. Continuous: float, standardised, (rows,) or (rows, dim). Count: float, raw,
            same shapes. Binary: float 0 or 1, (rows,). Categorical: long codes, (rows,). Image: float in
            [0, 1], (rows, *shape). A missing entry holds a filled-in value: 0 (the training mean) if
            continuous, the rounded mean if count, the most frequent level if discrete, the mean intensity if
            image.
        observed: node to bool (rows,), False where the entry is missing. A node not listed is fully observed.
            A vector or an image with any NaN is missing as a whole.
        site: long (rows,), index into :attr:`TableEncoder.sites`, -1 for a missing site or one not seen at
            fit. None unless the manipulation's scope is a column.
        rows: number of rows.
        unknown: images of which some pixels are unknown, NaN; tables hold none.
    """

    values: dict[str, Tensor]
    observed: dict[str, Tensor]
    site: Tensor | None
    rows: int
    unknown: frozenset[str] = frozenset()

    @property
    def empty(self) -> tuple[str, ...]:
        """Names of nodes of which no row has an entry."""
        return tuple(name for name, known in self.observed.items() if not known.any())

    @property
    def known_sites(self) -> list[int]:
        """Numbers of the sites that rows are of, but for one that is not known; none where there are none."""
        return [] if self.site is None else [site for site in self.site.unique().tolist() if site >= 0]

    def select(self, index: Tensor) -> Batch:
        """Returns the rows at ``index``: long (any number,), or bool (rows,).

        >>> batch = Batch({"x": torch.tensor([1.0, 2.0, 3.0])}, {}, None, 3)
        >>> batch.select(torch.tensor([2, 0])).values["x"].tolist()
        [3.0, 1.0]
        >>> batch.select(torch.tensor([True, False, True])).rows
        2
        """
        rows = int(index.sum()) if index.dtype == torch.bool else len(index)
        return self._mapped(lambda value: value[index], rows)

    def evenly(self, rows: int) -> Batch:
        """Returns so many rows at most, in even distances, the first and the last among them.

        >>> Batch({"x": torch.arange(9.0)}, {}, None, 9).evenly(3).values["x"].tolist()
        [0.0, 4.0, 8.0]
        """
        device = next((value.device for value in self.values.values()), None)
        return self.select(torch.linspace(0, self.rows - 1, min(rows, self.rows)).long().to(device))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Batch:
        """Returns the same rows on ``device``; ``dtype`` is for the float values only."""
        return self._mapped(
            lambda value: value.to(device=device, dtype=dtype if value.is_floating_point() else None),
            self.rows,
        )

    def rows_per_site(self, sites: int) -> Tensor:
        """Counts the rows of every site, ``(sites,)``; all of them are of the one site where there is no scope column.

        >>> Batch({}, {}, torch.tensor([0, 2, -1, 2]), 4).rows_per_site(3).tolist()
        [1, 0, 2]
        >>> Batch({"x": torch.ones(4)}, {}, None, 4).rows_per_site(1).tolist()
        [4]
        """
        if self.site is not None:
            return torch.bincount(self.site[self.site >= 0], minlength=sites)
        device = next((value.device for value in self.values.values()), None)
        return torch.tensor([self.rows, *[0] * (sites - 1)], device=device)

    def without(self, *names: str) -> Batch:
        """Returns the same rows without these nodes; a name that is not here is no error."""
        values = {name: value for name, value in self.values.items() if name not in names}
        observed = {name: mask for name, mask in self.observed.items() if name not in names}
        return Batch(values, observed, self.site, self.rows, self.unknown)

    @staticmethod
    def concatenate(batches: Iterable[Batch]) -> Batch:
        """Joins batches, their rows in order. A mask that only some of them hold is filled up with True.

        Raises:
            DataError: no batches, or batches that differ in their nodes or in having sites.

        >>> one, two = Batch({"x": torch.ones(1)}, {}, None, 1), Batch({"x": torch.zeros(2)}, {}, None, 2)
        >>> Batch.concatenate([one, two]).values["x"].tolist()
        [1.0, 0.0, 0.0]
        """
        batches = list(batches)
        if not batches:
            raise DataError("found no batches to concatenate; expected at least one")
        for other in batches[1:]:
            if differing := sorted(batches[0].values.keys() ^ other.values.keys()):
                raise DataError(f"found {listed(differing)} in some batches only; expected the same nodes in all")
            if (batches[0].site is None) != (other.site is None):
                raise DataError("found sites in some batches only; expected them in all or in none")

        def mask(batch: Batch, name: str) -> Tensor:
            if name in batch.observed:
                return batch.observed[name]
            return torch.ones(batch.rows, dtype=torch.bool, device=batch.values[name].device)

        masked = [name for name in batches[0].values if any(name in batch.observed for batch in batches)]
        sites = [batch.site for batch in batches if batch.site is not None]
        return Batch(
            {name: torch.cat([batch.values[name] for batch in batches]) for name in batches[0].values},
            {name: torch.cat([mask(batch, name) for batch in batches]) for name in masked},
            torch.cat(sites) if sites else None,
            sum(batch.rows for batch in batches),
            frozenset().union(*(batch.unknown for batch in batches)),
        )

    def _mapped(self, change: Callable[[Tensor], Tensor], rows: int) -> Batch:
        return Batch(
            {name: change(value) for name, value in self.values.items()},
            {name: change(mask) for name, mask in self.observed.items()},
            None if self.site is None else change(self.site),
            rows,
            self.unknown,
        )
