"""Causes that no training row had are told of, by predict and by adapt."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pyro_cama import CAMA, build

GRAPH: dict[str, Any] = {
    "target": "y",
    "nodes": {
        "age": "continuous",
        "ward": {"type": "categorical", "levels": ["A", "B", "C"]},
        "visits": "count",
        "y": {"type": "binary"},
        "x": "continuous",
    },
    "edges": ["age -> y", "visits -> x", "ward -> x", "y -> x"],
    "latents": {"z": None, "m": {"scope": "dataset"}},
}


def people(rows: int, low: float = 18.0, high: float = 67.0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    age = rng.uniform(low, high, rows)
    y = (age + rng.normal(0, 20, rows) > 42).astype(int)
    visits = rng.poisson(2, rows)
    x = 2.0 * y + 0.1 * visits + rng.normal(size=rows)
    return pd.DataFrame({"age": age, "ward": rng.choice(["A", "B"], rows), "visits": visits, "y": y, "x": x})


@pytest.fixture(scope="module")
def cama() -> CAMA:
    return build(GRAPH, hidden=4, layers=1, device="cpu").fit(people(200), max_epochs=3, progress=False)


def test_a_range_that_training_did_not_have_is_named(cama: CAMA, tmp_path: Path) -> None:
    young = people(40, 12.0, 18.0)
    young.to_csv(tmp_path / "young.csv", index=False)
    said = (
        r"predict: found causes that no training row had: 'age' from 12\.\d+ to 15\.\d+ in \d+ of 40 rows, trained on"
    )
    for rows in (young, cama.encode(young), tmp_path / "young.csv"):
        with pytest.warns(UserWarning, match=said):
            cama.predict(rows)
    with pytest.warns(
        UserWarning, match="adapt: found causes.*an adaptation may take it for a change; leave such rows"
    ):
        cama.adapt(young.drop(columns="y"), steps=2, progress=False)


def test_levels_and_counts_too(cama: CAMA) -> None:
    new = people(20).assign(ward=["C"] * 5 + ["A"] * 15, visits=[40] * 10 + [1] * 10)
    with pytest.warns(UserWarning, match="'visits' from 40 to 40 in 10 of 20 rows, trained on 0 to"):
        cama.predict(new)
    with pytest.warns(UserWarning, match="'ward' is 'C' in 5 of 20 rows"):
        cama.predict(new)


def test_nothing_is_said_of_a_few_rows_or_of_what_is_missing(cama: CAMA, recwarn: pytest.WarningsRecorder) -> None:
    usual = people(40)
    usual.loc[:2, "age"] = 80.0
    cama.predict(usual)
    cama.predict(people(40, 12.0, 18.0).assign(age=np.nan))
    assert not recwarn.list


def test_a_range_is_stored_and_leaves_sentinels_aside(tmp_path: Path) -> None:
    rows = people(200)
    rows.loc[3, "age"] = -9999.0
    with pytest.warns(UserWarning, match="far from all others"):
        cama = build(GRAPH, hidden=4, layers=1, device="cpu").fit(rows, max_epochs=1, progress=False)
    statistics = type(cama.encoder).from_state(cama.graph, cama.encoder.state()).statistics["age"]
    assert float(statistics["least"]) == rows["age"].drop(3).min()
    assert float(statistics["most"]) == rows["age"].max()
