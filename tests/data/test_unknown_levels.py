"""A level that no graph names is an error, or read as missing where that is asked for, and said once."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pyro_cama import CAMA, build
from pyro_cama.errors import DataError
from pyro_cama.metrics import scores
from tests.helpers.tables import graph_of

SAID = (
    "{}: found levels that the graph does not name, which are read as missing: column 'c': 'azure', 'teal', "
    "3 entries, the first in row 4. Correct them"
)


def clean(rows: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, rows)
    return pd.DataFrame(
        {
            "y": np.where(y, "b", "a"),
            "x": 3.0 * y + rng.normal(size=rows),
            "v": 2.0 * y + rng.normal(size=rows),
            "c": np.where(rng.random(rows) < 0.2 + 0.6 * y, "red", "blue"),
        }
    )


@pytest.fixture(scope="module")
def cama() -> CAMA:
    levels: Any = {"type": "categorical", "levels": ["red", "blue"]}
    graph = graph_of(scope="dataset", x="continuous", v="continuous", c=levels)
    return build(graph, hidden=4, layers=1, device="cpu").fit(clean(), max_epochs=2, progress=False)


@pytest.fixture
def strange() -> pd.DataFrame:
    rows = clean()
    rows.loc[[4, 9], "c"] = "azure"
    rows.loc[7, "c"] = "teal"
    rows.loc[11, "c"] = None
    return rows


CALLS: dict[str, Any] = {
    "adapt": lambda cama, rows, **options: cama.adapt(rows, progress=False, steps=2, **options).adaptation.theta,
    "predict": lambda cama, rows, **options: cama.predict_proba(rows, **options),
    "score": lambda cama, rows, **options: cama.score(rows, **options),
    "elbo": lambda cama, rows, **options: cama.elbo(rows, **options).numpy(),
    "reconstruct": lambda cama, rows, **options: cama.reconstruct(rows, **options),
    "encode": lambda cama, rows, **options: cama.encode(rows, **options).observed["c"].numpy(),
    "scores": lambda cama, rows, **options: scores(cama, rows, **options).log_loss,
}


@pytest.mark.parametrize("method", CALLS)
def test_every_method_reads_it_as_missing_where_asked_and_says_so_once(
    method: str, cama: CAMA, strange: pd.DataFrame
) -> None:
    call = CALLS[method]
    expected = call(cama, strange.assign(c=strange["c"].where(strange["c"].isin(["red", "blue"]), None)))
    with pytest.warns(UserWarning, match="does not name") as said:
        found = call(cama, strange, unknown="missing")
    assert [SAID.format(method) in str(one.message) for one in said] == [True]
    assert np.array_equal(np.asarray(found), np.asarray(expected))
    with pytest.raises(DataError, match=r"column 'c': found unknown levels in rows 4 \('azure'\), 7 \('teal'\)"):
        call(cama, strange)


def test_categories_files_and_one_entry_too(cama: CAMA, strange: pd.DataFrame, tmp_path: Path) -> None:
    strange.to_csv(tmp_path / "t.csv", index=False)
    for rows in (strange.astype({"c": "category"}), tmp_path / "t.csv", dict(strange)):
        with pytest.warns(UserWarning, match="3 entries, the first in row 4"):
            cama.predict(rows, unknown="missing")
    with pytest.warns(UserWarning, match=r"column 'c': 'azure', 1 entry, in row 0\. Correct"):
        cama.predict(strange[4:5], unknown="missing")


def test_a_label_stays_an_error_and_so_does_another_word(cama: CAMA, recwarn: pytest.WarningsRecorder) -> None:
    for call in (cama.score, cama.elbo):
        with pytest.raises(DataError, match="column 'y': found unknown levels"):
            call(clean().assign(y="z"), unknown="missing")
    with pytest.raises(ValueError, match=r"predict\(unknown='skip'\): expected 'error' or 'missing'"):
        cama.predict_proba(clean(), unknown="skip")  # type: ignore[arg-type]
    cama.predict(clean(), unknown="missing")
    assert not recwarn.list
