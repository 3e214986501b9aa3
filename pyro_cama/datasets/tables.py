"""Small real tables: of scikit-learn, which the package needs, and of statsmodels, where it is installed."""

from __future__ import annotations

from typing import Any

import pandas as pd

from pyro_cama._messages import one_of

TABLES = {"anes96": "vote", "breast_cancer": "diagnosis", "digits": "digit", "wine": "cultivar"}
"""The target of every table, by its name."""


def load(name: str) -> pd.DataFrame:
    """Loads a table whose graph is ``graph(name)``, in raw units, labels as text, rows as their source has them.

    No network is needed.

    Args:
        name: one of ``TABLES``: breast_cancer (569 rows, 30 readings), wine (178, 13), digits (1,797 scans of 8 x 8, a
            column a pixel, those that are nearly always dark left out), or anes96 (944 voters; needs statsmodels).

    Raises:
        ValueError: there is no table of this name.
        ImportError: statsmodels is missing; names the extra.

    >>> load("wine").shape
    (178, 14)
    """
    if name not in TABLES:
        raise ValueError(f"datasets.load: found {name!r}; {one_of(name, TABLES)}")
    return _voters() if name == "anes96" else _of_scikit_learn(name)


def _of_scikit_learn(name: str) -> pd.DataFrame:
    from sklearn import datasets

    bunch: Any = getattr(datasets, f"load_{name}")(as_frame=True)
    if name == "digits":
        pixels = bunch.data.rename(columns=lambda column: column.replace("_", " "))
        lit = pixels.columns[(pixels > 0).mean() >= 0.01]
        return pixels[lit].assign(digit=bunch.target.astype(str))
    return bunch.data.assign(**{TABLES[name]: bunch.target_names[bunch.target].astype(str)})


def _voters() -> pd.DataFrame:
    try:
        from statsmodels.datasets import anes96
    except ImportError:
        raise ImportError("datasets.load('anes96') needs statsmodels: pip install 'pyro_cama[statsmodels]'") from None
    answers = anes96.load_pandas().data.drop(columns="popul")  # logpopul says the same
    return answers.assign(vote=answers["vote"].map({0: "Clinton", 1: "Dole"}))
