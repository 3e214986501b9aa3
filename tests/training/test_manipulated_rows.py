"""fit(clean, manipulated=...), eq. 5: clean rows stay clean, manipulated ones are read, sites have a place each."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_cama import CAMA, DataError, build, load
from pyro_cama.inference.bounds import shared_term
from pyro_cama.inference.log_weights import LogWeights
from pyro_cama.training.manipulated_rows import with_clean

COLUMNS = list("abcd")
CLEAN = {"m": 0.0}
OPTIONS: dict[str, Any] = {"max_epochs": 40, "lr": 3e-3, "conditional_weight": 3.0, "progress": False}


def table(rows: int, seed: int, *, shifted: bool = False, sites: tuple[str, ...] = ("north", "south")) -> pd.DataFrame:
    """Rows of which two columns move by 2 to 5 in either direction, each row's and column's own, or all by the same."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    x = 0.9 * (2 * y[:, None] - 1) + rng.normal(size=(rows, 4))
    if shifted:
        x[:, :2] += (4.0, 3.0) if len(sites) == 1 else rng.uniform(2, 5, (rows, 2)) * rng.choice([-1, 1], (rows, 2))
    return pd.DataFrame(x, columns=COLUMNS).assign(y=y, site=rng.choice(sites, rows))


def model(scope: str) -> CAMA:
    graph = {
        "target": "y",
        "nodes": {"y": "binary", **dict.fromkeys(COLUMNS, "continuous")},
        "edges": [f"y -> {name}" for name in COLUMNS],
        "latents": {"z": {"dim": 1, "effect": "deep"}, "m": {"dim": 4, "scope": scope}},
    }
    return build(graph, hidden=16, device="cpu")


def test_rows_of_their_own_m_are_read_clean_or_manipulated() -> None:
    cama = model("row").fit(table(400, 0), table(400, 1, shifted=True), **OPTIONS)
    clean, moved = table(1000, 2), table(1000, 3, shifted=True)
    assert cama.score(clean) > cama.score(clean, CLEAN) - 0.03
    assert cama.score(moved) > cama.score(moved, CLEAN) + 0.03


def test_a_shared_m_is_of_the_manipulated_rows_alone() -> None:
    cama = model("dataset").fit(table(400, 0), table(400, 1, shifted=True, sites=("east",)), **OPTIONS)
    clean, moved = table(1000, 2), table(1000, 3, shifted=True, sites=("east",))
    assert not cama.m_trained
    assert np.array_equal(cama.predict_proba(clean), cama.predict_proba(clean, CLEAN))
    assert cama.score(clean) > 0.9
    assert cama.score(moved, None) > cama.score(moved) + 0.05


def test_sites_of_manipulated_rows_get_a_place_of_their_own(tmp_path: Any) -> None:
    cama = model("site").fit(table(400, 0), table(400, 1, shifted=True, sites=("east",)), **OPTIONS)
    assert cama.encoder.sites == ("north", "south", "east")
    assert (cama.guide.m_dist(None).mean == 0).all(-1).tolist() == [True, True, False]
    clean, moved = table(1000, 2), table(1000, 3, shifted=True, sites=("east",))
    assert np.array_equal(cama.predict_proba(clean), cama.predict_proba(clean, CLEAN))
    assert cama.score(clean) > 0.9
    assert cama.score(moved) > cama.score(moved, CLEAN) + 0.03
    twin = load(cama.save(tmp_path / "m"), device="cpu")
    both = pd.concat([clean, moved])
    assert np.array_equal(twin.predict_proba(both), cama.predict_proba(both))
    assert np.allclose(cama.predict_proba(both)[:1000], cama.predict_proba(clean))
    cama.fit(table(400, 0), table(400, 1, shifted=True, sites=("east", "west")), **OPTIONS | {"max_epochs": 1})
    assert cama.encoder.sites == ("north", "south", "east", "west")
    assert cama.score(moved) > cama.score(moved, CLEAN) + 0.1, "a second fit goes on from the first"


def test_a_file_of_manipulated_rows_has_its_sites_found(tmp_path: Any) -> None:
    table(60, 1, shifted=True, sites=("east",)).to_csv(tmp_path / "rows.csv", index=False)
    cama = model("site").fit(table(60, 0), tmp_path / "rows.csv", **OPTIONS | {"max_epochs": 1})
    assert cama.encoder.sites == ("north", "south", "east")


def test_sites_that_say_nothing_are_errors() -> None:
    cama, clean = model("site"), table(60, 0)
    moved = table(60, 1, shifted=True, sites=("south", "east"))
    message = r"fit\(manipulated=\.\.\.\): column 'site': found 'south' among the clean rows too; a site has one"
    with pytest.raises(DataError, match=message):
        cama.fit(clean, moved, **OPTIONS)
    assert not cama.encoder.fitted
    moved["site"] = moved["site"].where(moved["site"] == "east")
    with pytest.raises(DataError, match=r"column 'site': found no entry in \d+ of 60 rows; expected one in each"):
        cama.fit(clean, moved, **OPTIONS)


def test_the_kl_of_a_shared_m_counts_once_for_all_manipulated_rows() -> None:
    cama = model("site").fit(table(60, 0), table(90, 1, shifted=True, sites=("east",)), **OPTIONS | {"max_epochs": 0})
    rows = cama.encode(table(90, 1, shifted=True, sites=("east",)))
    weights = LogWeights(torch.zeros(1, 1, 30), torch.tensor([[-1.0, -2.0, -9.0]]), torch.zeros(()))
    parts = [rows.select(part) for part in torch.arange(90).split(30)]
    terms = [shared_term(weights, part.site, rows.rows_per_site(3)).sum() for part in parts]
    assert float(sum(terms)) == pytest.approx(-9.0)


def test_minibatches_are_of_both() -> None:
    cama = model("row").fit(table(60, 0), **OPTIONS | {"max_epochs": 0})
    clean, moved = cama.encode(table(31, 0)), cama.encode(table(50, 1, shifted=True))
    both = with_clean(moved, clean)
    assert both.rows == 31
    own = [bool((moved.values["a"] == value).any()) for value in both.values["a"]]
    assert sum(own) == 16
    assert both.values["a"][16:].tolist() == clean.values["a"][:30:2].tolist()
