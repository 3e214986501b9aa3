"""The options of :meth:`pyro_cama.CAMA.fit` that say what is minimised, and how: defaults and checks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral, Real

from pyro_cama._arguments import expect, expect_whole, number, whole


@dataclass(frozen=True)
class FitOptions:
    """How to fit; see :meth:`pyro_cama.CAMA.fit` for what each is.

    Raises:
        ValueError: an option is out of range; names it, what was found and what was expected.
    """

    max_epochs: int | None = None
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-4
    conditional_weight: float = 30.0
    conditional_share: float | None = None
    conditional_power: float = 1.0
    density_epochs: int | None = None
    mixing: float = 0.5
    unknown_pixels: float = 0.5
    samples: int = 1
    validation: float = 0.15
    patience: int = 40
    anneal: bool = False
    paired: bool = False

    @property
    def by_minibatches(self) -> bool:
        """Whether an option was given that is of minibatches only."""
        of_minibatches = ("batch_size", "lr", "weight_decay", "samples", "anneal", "conditional_power", "paired")
        return any(getattr(self, field.name) != field.default for field in fields(self) if field.name in of_minibatches)

    def __post_init__(self) -> None:
        for name in ("batch_size", "samples", "patience"):
            expect_whole("fit", name, getattr(self, name))
        epochs, weight, share = self.max_epochs, self.conditional_weight, self.conditional_share
        expect("fit", "max_epochs", epochs, epochs is None or whole(epochs, 0), "a whole number of at least 0, or None")
        expect("fit", "conditional_weight", weight, number(weight) and weight >= 0, "a finite number of at least 0")
        part = share is None or (number(share) and 0 < share <= 1)
        expect("fit", "conditional_share", share, part, "a number above 0, at most 1")
        power = self.conditional_power
        fits = number(power) and 0 < power <= 1
        expect("fit", "conditional_power", power, fits, "a number above 0, at most 1")
        first = self.density_epochs
        expect(
            "fit", "density_epochs", first, first is None or whole(first, 0), "a whole number of at least 0, or None"
        )
        expect("fit", "lr", self.lr, number(self.lr) and self.lr > 0, "a finite number above 0")
        decay = self.weight_decay
        expect("fit", "weight_decay", decay, number(decay) and decay >= 0, "a finite number of at least 0")
        expect("fit", "mixing", self.mixing, number(self.mixing) and 0 <= self.mixing <= 1, "a number from 0 to 1")
        part = number(self.unknown_pixels) and 0 <= self.unknown_pixels <= 1
        expect("fit", "unknown_pixels", self.unknown_pixels, part, "a number from 0 to 1")
        part = number(self.validation) and 0 <= self.validation < 1
        expect("fit", "validation", self.validation, part, "a number of at least 0, less than 1")
        for field in fields(self):  # of numpy's numbers neither JSON nor a checkpoint knows
            value = getattr(self, field.name)
            if isinstance(value, Real) and not isinstance(value, bool):
                object.__setattr__(self, field.name, int(value) if isinstance(value, Integral) else float(value))
