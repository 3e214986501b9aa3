"""Where training starts, by the statistics of its rows, and entries that it leaves out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyro_cama import build
from tests.helpers.training import fitted, same, table


@pytest.mark.parametrize("likelihood", ["negative_binomial", "poisson"])
def test_counts_of_any_size_are_learnt_alike(likelihood: str) -> None:
    """A log mean that began at 0 would not get to 18 in some hundred small steps."""
    losses = []
    for mean in (1e3, 1e8):
        generator = np.random.default_rng(0)
        y = generator.integers(0, 2, 400)
        spread = 10.0 if likelihood == "negative_binomial" else mean
        rates = {
            name: generator.gamma(spread, mean * 1.5 ** y[:, None] / spread, (400, size))
            for name, size in (("a", 1), ("v", 2))
        }
        rows = {"y": y, "a": np.round(rates["a"][:, 0]), "v": np.round(rates["v"])}
        node = {"type": "count", "likelihood": likelihood}
        spec = {
            "target": "y",
            "nodes": {"y": "binary", "a": node, "v": {**node, "dim": 2}},
            "edges": ["y -> a", "y -> v"],
        }
        cama = build(spec, hidden=16, device="cpu").fit(rows, max_epochs=4, lr=1e-2, progress=False)
        p = cama.predict_proba(rows)[np.arange(400), y]
        losses.append(-np.log(p).mean())
        assert cama.sample(1000)["a"].mean() == pytest.approx(rows["a"].mean(), rel=0.15)
    assert max(losses) < 0.5
    assert losses[0] == pytest.approx(losses[1], abs=0.05)


@pytest.mark.parametrize("form", ["table", "file"])
def test_a_code_for_missing_values_is_trained_on_as_a_missing_value(form: str, tmp_path: Path) -> None:
    models = []
    for code in (np.nan, -999.0):
        rows: Any = table()
        rows.loc[[7, 20, 31], "x1"] = code
        rows.loc[9, "x3"] = -code * 1e9
        if form == "file":
            rows.to_csv(tmp_path / "rows.csv", index=False)
            rows = tmp_path / "rows.csv"
        if np.isnan(code):
            models.append(fitted(data=rows))
        else:
            found = r"'x1': 3 entries such as -999 in row 7; 'x3': 9.99e\+11 in row 9\. Do they stand for missing"
            with pytest.warns(UserWarning, match=found) as caught:
                models.append(fitted(data=rows))
            assert len(caught) == 1
            assert caught[0].filename.endswith("training.py")  # the caller's line, outside the package
    assert same(*models)
