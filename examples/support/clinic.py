"""Simulated patients for the graph "clinic", and hospitals that measure them differently."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

LEVELS = {
    "medication": ["untreated", "antipyretic", "antibiotic"],
    "infection": ["healthy", "viral", "bacterial"],
    "ward": ["home", "general", "intensive"],
}


@dataclass(frozen=True)
class Hospital:
    """How a hospital measures; the defaults are a hospital without any peculiarity."""

    name: str
    thermometer: float = 0.0  # degrees that it reads too high
    counter: float = 1.0  # white cells found per white cell
    cough_overlooked: float = 0.0  # share of coughs that nobody writes down

    def measure(self, patients: pd.DataFrame, seed: int) -> pd.DataFrame:
        """What this hospital's records say about patients."""
        rng = np.random.default_rng(seed)
        overlooked = rng.random(len(patients)) < self.cough_overlooked
        return patients.assign(
            hospital=self.name,
            fever=patients["fever"] + self.thermometer,
            white_cells=(patients["white_cells"] * self.counter).round(),
            cough=patients["cough"].where(~overlooked, "absent"),
        )


def patients(rows: int, seed: int) -> pd.DataFrame:
    """Patients as they are, every cause drawn before its effects.

    >>> patients(2, seed=0).columns.tolist()  # doctest: +NORMALIZE_WHITESPACE
    ['age', 'exposure', 'smoker', 'medication', 'infection', 'white_cells', 'fever', 'cough', 'ward']
    """
    rng = np.random.default_rng(seed)
    age = rng.normal(50, 18, rows).clip(1, 100)
    exposure = rng.binomial(1, 0.4, rows)
    smoker = rng.binomial(1, 0.3, rows)
    medication = rng.choice(3, rows, p=[0.5, 0.3, 0.2])
    infection = _draw(rng, [0.5 - 0.01 * (age - 50), 1.2 * exposure - 0.3, 0.6 * exposure - 0.6 + 0.02 * (age - 50)])
    white_cells = rng.poisson(rng.gamma(30, np.array([65, 45, 130])[infection] / 30))
    fever = 36.8 + np.array([0.0, 1.3, 1.9])[infection] - np.array([0.0, 0.8, 0.2])[medication]
    fever = fever + rng.normal(0, 0.45, rows)
    cough = rng.random(rows) < 0.1 + 0.25 * smoker + np.array([0.0, 0.5, 0.2])[infection]
    heat = fever - 37.5
    ward = _draw(rng, [2 - heat, heat + (infection == 2), 1.5 * heat + 2.0 * (infection == 2) + 0.04 * (age - 60) - 2])
    codes = {"medication": medication, "infection": infection, "ward": ward}
    frame = {
        "age": age,
        "exposure": exposure,
        "smoker": np.where(smoker == 1, "yes", "no"),
        "white_cells": white_cells,
        "fever": fever,
        "cough": np.where(cough, "present", "absent"),
    } | {name: np.array(LEVELS[name])[code] for name, code in codes.items()}
    order = ["age", "exposure", "smoker", "medication", "infection", "white_cells", "fever", "cough", "ward"]
    return pd.DataFrame({name: frame[name] for name in order})


def _draw(rng: np.random.Generator, logits: list[np.ndarray]) -> np.ndarray:
    """A level a row, by logits a level."""
    gumbel = rng.gumbel(size=(len(logits), len(logits[0])))
    return (np.stack(logits) + gumbel).argmax(0)
