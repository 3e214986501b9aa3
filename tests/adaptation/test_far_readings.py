"""One slip of the pen among the new rows is named, and decides nothing."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_cama import CAMA, build
from pyro_cama.adaptation.far_readings import without_far_readings
from tests.adaptation.test_solved import drifted
from tests.helpers.training import COLUMNS
from tests.training.test_whole_table import fitted, spec, styled


@pytest.fixture(scope="module")
def cama() -> CAMA:
    return fitted(styled(600))


@pytest.mark.parametrize("value", [1e4, 1e8, -1e20])
def test_one_sentinel_changes_nothing_and_is_named(cama: CAMA, value: float) -> None:
    new = drifted()[COLUMNS]
    expected = cama.adapt(new.assign(x3=new["x3"].where(new.index != 7)), progress=False).adaptation
    new.loc[7, "x3"] = value
    with pytest.warns(UserWarning, match=r"'x3': .*e\+?\d+ in row 7 of the 300 looked at|'x3': 10000 in row 7"):
        found = cama.adapt(new, progress=False).adaptation
    assert expected is not None
    assert found is not None
    assert (found.accepted, found.theta) == (expected.accepted, expected.theta)
    assert found.evidence_after == expected.evidence_after


def test_a_drift_however_large_is_none(cama: CAMA, recwarn: pytest.WarningsRecorder) -> None:
    new = styled(300, 1)[COLUMNS]
    new["x0"] = 1000.0 * new["x0"] - 5e4
    batch = cama.encode(new)
    assert without_far_readings(cama, batch) is batch
    assert not recwarn.list


def test_what_is_missing_or_of_another_site_is_not_compared() -> None:
    graph: dict[str, Any] = {**spec(), "latents": {**spec()["latents"], "m": {"dim": 2, "scope": "ward"}}}
    cama = fitted(styled(200).assign(ward="A"), graph, max_epochs=1)
    frame = styled(60, 1).assign(ward=["B"] * 57 + ["C"] * 3)
    frame.loc[57:, "x0"] += 1e6  # another unit at a small site
    frame.loc[3, "x1"] = np.nan
    frame.loc[5, "x2"] = -9999.0
    twin = cama.copy(cama.encoder_with_sites(frame))
    with pytest.warns(UserWarning, match="'x2': -9999 in row 5 of the 60"):
        found = without_far_readings(twin, twin.encode(frame, "ignore"))
    assert {name: int((~mask).sum()) for name, mask in found.observed.items()} == {"x1": 1, "x2": 1}
    assert float(found.values["x2"][5]) == 0.0


def test_vectors_and_counts_are_looked_at_by_component_and_in_raw_units() -> None:
    graph = {
        "target": "y",
        "nodes": {"y": {"type": "binary"}, "v": {"type": "continuous", "dim": 2}, "k": "count"},
        "edges": ["y -> v", "y -> k"],
        "latents": {"m": {"scope": "dataset"}},
    }
    rng = np.random.default_rng(0)

    def rows(n: int) -> dict[str, Any]:
        y = rng.integers(0, 2, n)
        return {"y": y, "v": list(rng.normal(size=(n, 2)) + y[:, None]), "k": rng.poisson(5 + y)}

    cama = build(graph, hidden=4, device="cpu").fit(rows(100), max_epochs=1, progress=False)
    new = rows(80)
    new["v"][11] = np.array([0.0, 7777.0])
    new["k"][12] = 999_999
    with pytest.warns(UserWarning, match=r"'v'\[1\]: 7777 in row 11; 'k': 999999 in row 12"):
        found = without_far_readings(cama, cama.encode(pd.DataFrame(new), "ignore"))
    assert torch.nonzero(~found.observed["v"]).flatten().tolist() == [11]
    assert torch.nonzero(~found.observed["k"]).flatten().tolist() == [12]
