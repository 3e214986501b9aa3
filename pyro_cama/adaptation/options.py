"""TODO adaptation.options."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AdaptOptions:
    """What adapting takes where the user does not say, and what comparing candidates costs.

    Attributes:
        steps, batch_size, lr, samples, restarts, folds: see :func:`adapt`.
        label_draws: of the latents, for the labels of a candidate.
        recovery_rows, recovery_draws: generated for a candidate's recovery, and draws that read them.
        insists: whether evidence can prove class proportions far from those expected: the likelihood of an image is too
            far from the truth for that.
    """

    steps: int = 100
    batch_size: int = 256
    lr: float = 3e-2
    samples: int = 4
    restarts: int = 3
    folds: int = 4
    label_draws: int = 16
    recovery_rows: int = 500
    recovery_draws: int = 8
    insists: bool = True


TABLES = AdaptOptions()
IMAGES = AdaptOptions(  # an image costs more, and says more
    steps=200, batch_size=32, lr=2e-3, samples=1, restarts=1, folds=1,
    label_draws=4, recovery_rows=300, recovery_draws=4, insists=False,
)  # fmt: skip
