"""The options of an adaptation: their defaults for tables and for images, and their checks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pyro_cama._arguments import expect, expect_whole, number
from pyro_cama._messages import listed
from pyro_cama.adaptation.start import sleeping_starts
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.inference.class_prior import ClassPrior
from pyro_cama.model.pair import ModelGuidePair


@dataclass(frozen=True)
class AdaptOptions:
    """How to adapt, and what comparing candidates costs.

    Attributes:
        alpha, steps, batch_size, lr, samples, sparsity, restarts, folds, class_prior, keep: see
            :func:`pyro_cama.adaptation.adapt.adapt`.
        label_draws: of the latents, for the labels of a candidate.
        recovery_rows, recovery_draws: generated for a candidate's recovery, and draws that read them.
        proves_proportions: whether evidence can prove class proportions far from those expected: the likelihood of an
            image is too far from the truth for that.

    Raises:
        ValueError: an option is out of range; names it, what was found and what was expected.
    """

    alpha: float = 0.5
    steps: int = 100
    batch_size: int = 256
    lr: float = 3e-2
    samples: int = 4
    sparsity: float = 1.0
    restarts: int = 3
    folds: int = 4
    class_prior: ClassPrior = "estimate"
    keep: Literal["trusted", "always"] = "trusted"
    label_draws: int = 16
    recovery_rows: int = 500
    recovery_draws: int = 8
    proves_proportions: bool = True

    def __post_init__(self) -> None:
        alpha, lr, sparsity, keep = self.alpha, self.lr, self.sparsity, self.keep
        expect("adapt", "alpha", alpha, number(alpha) and 0 <= alpha <= 1, "a number from 0 to 1")
        for name in ("steps", "batch_size", "samples", "restarts", "folds"):
            expect_whole("adapt", name, getattr(self, name))
        expect("adapt", "lr", lr, number(lr) and lr > 0, "a finite number above 0")
        expect("adapt", "sparsity", sparsity, number(sparsity) and sparsity >= 0, "a finite number of at least 0")
        expect("adapt", "keep", keep, keep in ("trusted", "always"), "'trusted' or 'always'")

    @property
    def learns_proportions(self) -> bool:
        """Whether class proportions may change with the rest."""
        return isinstance(self.class_prior, str) and self.class_prior == "estimate"

    @property
    def epochs(self) -> int:
        """Ten steps each."""
        return max(1, self.steps // 10)


TABLES = AdaptOptions()
IMAGES = AdaptOptions(  # an image costs more, and says more
    steps=200, batch_size=32, lr=2e-3, samples=1, restarts=1, folds=1,
    label_draws=4, recovery_rows=300, recovery_draws=4, proves_proportions=False,
)  # fmt: skip


def default_options(pair: ModelGuidePair, **given: float | None) -> AdaptOptions:
    """Returns a model's defaults, those of tables or of images, and what is given (not None) in their place.

    Raises:
        ValueError: an option is out of range.
    """
    defaults = IMAGES if pair.model.has_images else TABLES
    if pair.graph.m is not None and (sleeping := sleeping_starts(pair.manipulation)):
        defaults = replace(defaults, restarts=sleeping.stop)
    return replace(defaults, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def moving_together(
    graph: CausalGraph, only: Sequence[str] | str | None, trained: Collection[str] = ()
) -> list[tuple[str, ...]]:
    """Returns which manipulations an adaptation moves at a time: what rows share, then what is every row's own.

    Args:
        only: names of manipulations; None means all but what is a row's own, trained and beside what rows share: its
            q(m | x) reads children with that undone, in any world.
        trained: names of those that have been.

    Raises:
        ValueError: there is no manipulation, or none of such a name.
    """
    names = [m.name for m in graph.manipulations]
    if not names:
        raise ValueError("adapt: this graph has no manipulation latent (m is null), so nothing can adapt")
    chosen = names if only is None else [only] if isinstance(only, str) else list(only)
    unknown = [name for name in chosen if name not in names]
    if unknown or not chosen:
        raise ValueError(f"adapt(only=...): found {listed(unknown) or 'no name'}; expected some of {listed(names)}")
    by_scope: dict[bool, list[str]] = {False: [], True: []}
    for m in graph.manipulations:
        if m.name in chosen:
            by_scope[m.per_row].append(m.name)
    if only is None and by_scope[False]:
        by_scope[True] = [name for name in by_scope[True] if name not in trained]
    return [tuple(together) for together in by_scope.values() if together]
