"""What a diagnosis found, as tables, in plain words and as a picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pyro_cama import _html
from pyro_cama._files import save_figure
from pyro_cama._messages import first_of
from pyro_cama.diagnosis.independence import Edge

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What :func:`diagnose` found.  ``print`` it for a report in plain words.

    Attributes:
        nodes: a row a node of the target and its blanket, indexed by name.  ``role``; ``tests`` and ``violations``, the
            independences tested and rejected that it takes part in; ``figure``, the distance between its distribution
            in the data and under the model, 0 to 1, in the class ``worst`` (empty: all rows), and what is ``allowed``
            there (NaN where it was not looked at); ``verdict``.
        edges: a row a tested pair.  ``from``, ``to``, in topological order; ``declared``; ``given``, the names
            conditioned on; ``test``, GCM or G; ``rows`` without missing entries; ``statistic``, standard normal (GCM)
            or chi-squared (G) under independence; ``effect``, the residuals' correlation (GCM) or Cramer's V (G), 0 to
            1; ``p``; ``p_adjusted``, by Holm over all independences, of declared edges p itself; ``verdict``.  NaN
            where the rows say nothing.
        suspects: the few nodes that explain the rejected independences: those that depend on the target without an
            edge, then those with most of the remaining rejections.  A pair left alone names both its nodes.
        alpha: the level.
        untested: pairs without an edge that nothing observed separates.
    """

    nodes: pd.DataFrame
    edges: pd.DataFrame
    suspects: tuple[str, ...]
    alpha: float
    untested: tuple[Edge, ...] = ()
    _sentences: tuple[str, ...] = field(default=(), repr=False)

    @property
    def violations(self) -> pd.DataFrame:
        """The rows of ``edges`` whose independence is rejected, the clearest first."""
        rejected = self.edges[~self.edges["declared"] & (self.edges["p_adjusted"] < self.alpha)]
        return rejected.sort_values(["p", "effect"], ascending=[True, False])

    @property
    def misfits(self) -> tuple[str, ...]:
        """Nodes whose density is badly fitted."""
        return tuple(self.nodes.index[self.nodes["figure"] > self.nodes["allowed"]])

    def __str__(self) -> str:
        declared, p = self.edges["declared"], self.edges["p"]
        tested = int((~declared & p.notna()).sum())
        head = f"{tested} implied independences tested, {len(self.violations)} rejected at level {self.alpha:g}"
        if self.untested:
            head += f" ({len(self.untested)} pairs without an edge cannot be tested)"
        lines = [head, *(self._sentences or (("No sign of a misdeclared edge.",) if tested else ()))]
        if len(left := self.edges[~declared & p.isna()]):
            some = first_of([f"{a} and {b}" for a, b in zip(left["from"], left["to"], strict=True)])
            lines.append(f"Independences that these rows are too few to test, or tell nothing of: {some}.")
        for of, said in ((p >= self.alpha, "not seen in these rows (no fault)"), (p.isna(), "that cannot be tested")):
            told = self.edges[declared & of]
            if len(told):
                names = ", ".join(f"{a} -> {b}" for a, b in zip(told["from"], told["to"], strict=True))
                lines.append(f"Declared edges {said}: {names}.")
        for name in self.misfits:
            row = self.nodes.loc[name]
            where = f" in class {row['worst']}" if row["worst"] else ""
            lines.append(
                f"The density of {name} is badly fitted{where}: distance {row['figure']:.2f}, at most "
                f"{row['allowed']:.2f} expected; that is the model's fit, not the graph."
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Diagnosis: {str(self).splitlines()[0]}>"

    def _repr_html_(self) -> str:
        title, *said = str(self).splitlines()
        found = self.violations
        badge = ("look at the graph", "bad") if len(found) else ("no objection", "good")
        keys = ("from", "to", "given", "effect", "p_adjusted")
        rows = [
            [a, b, ", ".join(given) or "-", f"{effect:.2f}", f"{p:.2g}"]
            for a, b, given, effect, p in zip(*(found[key] for key in keys), strict=True)
        ]
        head = ["from", "to", "given", "effect", "p, by Holm"]
        return _html.card(title, *map(_html.paragraph, said), _html.table(rows, head), badge=badge)

    def plot(self, path: str | Path | None = None, *, ax: Axes | None = None) -> tuple[Axes, ...]:
        """Draws the tested independences as a matrix of effects, rejected ones marked, and each node's fit beside it.

        Args:
            path: where to save it too.
            ax: matplotlib axes to draw the matrix on, alone; left out, new ones for both.

        Returns:
            The axes: of the matrix and, where densities were looked at, of the fits.
        """
        names = list(self.nodes.index)
        at = {name: i for i, name in enumerate(names)}
        effects = np.full((len(names), len(names)), np.nan)
        tests = self.edges[~self.edges["declared"]]
        for a, b, effect in zip(tests["from"], tests["to"], tests["effect"], strict=True):
            effects[at[a], at[b]] = effects[at[b], at[a]] = effect
        size = max(3.6, 0.28 * len(names))
        looked = ax is None and bool(self.nodes["figure"].notna().any())  # draws=0 does not look at densities
        if ax is None:
            figure = _html.new_figure((1.7 if looked else 1.1) * size + 1, size + 0.8, kept=path is None)
            left, *others = figure.subplots(1, 2, width_ratios=(1.4, 1)) if looked else [figure.subplots()]
        else:
            figure, left, others = _html.figure_of(ax), ax, []
        shade = left.imshow(effects, cmap="Reds", vmin=0, vmax=0.5)
        figure.colorbar(shade, ax=left, label="effect (blank: not tested)", shrink=0.8)
        for a, b in zip(self.violations["from"], self.violations["to"], strict=True):
            left.plot([at[a], at[b]], [at[b], at[a]], "kx", markersize=5)
        left.set_xticks(range(len(names)), names, rotation=90)
        left.set_yticks(range(len(names)), names)
        for label in (*left.get_xticklabels(), *left.get_yticklabels()):
            if label.get_text() in self.suspects:
                label.set(color="red", fontweight="bold")
        left.set_title("implied independences (x: rejected)", fontsize="medium")
        for right in others:
            right.barh(names, self.nodes["figure"].fillna(0), color="tab:gray")
            right.plot(self.nodes["allowed"], names, "r|", markersize=9)
            right.invert_yaxis()
            right.set_xlabel("distance from the data")
            right.set_title("model's densities (|: allowed)", fontsize="medium")
        if path is not None:
            save_figure(figure, path, dpi=150)
        return left, *others
