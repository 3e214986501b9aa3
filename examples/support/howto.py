"""What the how-tos share: tables with a training and a test half, and short runs where they are only checked."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import torch
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.model_selection import train_test_split

GRAPHS = Path(__file__).parents[2] / "graphs"
SMOKE = os.environ.get("PYRO_CAMA_SMOKE") == "1"  # does it run?  Few rows, epochs and steps

torch.set_num_threads(1)  # networks as small as these gain nothing from more


def table(name: str) -> tuple[pd.DataFrame, str]:
    """Returns a table of scikit-learn, "breast_cancer" or "wine", and the name of its target column.

    >>> frame, target = table("wine")
    >>> frame.shape, target, sorted(frame[target].unique())
    ((178, 14), 'cultivar', ['class_0', 'class_1', 'class_2'])
    """
    load, target = {"breast_cancer": (load_breast_cancer, "diagnosis"), "wine": (load_wine, "cultivar")}[name]
    bunch = load(as_frame=True)
    return bunch.data.assign(**{target: bunch.target_names[bunch.target].astype(str)}), target


def split(frame: pd.DataFrame, target: str, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns training and test half, each with the same share of every class."""
    train, test = train_test_split(frame, test_size=len(frame) // 2, stratify=frame[target], random_state=seed)
    return train.reset_index(drop=True), test.reset_index(drop=True)
