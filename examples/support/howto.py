"""What the how-tos share: tables with a training and a test half, and short runs where they are only checked."""

from __future__ import annotations

import os

import pandas as pd
import torch
from sklearn.model_selection import train_test_split

from pyro_cama import datasets

SMOKE = os.environ.get("PYRO_CAMA_SMOKE") == "1"  # does it run?  Few rows, epochs and steps

torch.set_num_threads(1)  # networks as small as these gain nothing from more


def table(name: str) -> tuple[pd.DataFrame, str]:
    """Returns a table of the package, such as "breast_cancer" or "wine", and the name of its target column.

    >>> frame, target = table("wine")
    >>> frame.shape, target, sorted(frame[target].unique())
    ((178, 14), 'cultivar', ['class_0', 'class_1', 'class_2'])
    """
    return datasets.load(name), datasets.TABLES[name]


def split(frame: pd.DataFrame, target: str, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns training and test half, each with the same share of every class."""
    train, test = train_test_split(frame, test_size=len(frame) // 2, stratify=frame[target], random_state=seed)
    return train.reset_index(drop=True), test.reset_index(drop=True)
