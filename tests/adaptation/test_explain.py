"""explain_shift: planted drifts are named with their size in raw units, and rows without any name nothing."""

import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from pyro_cama import CAMA, build, load
from pyro_cama.adaptation.explain import _estimates, _interval
from pyro_cama.adaptation.explanation import Explanation

UNITS = {"a": (100.0, 20.0), "b": (0.0, 1.0), "c": (-5.0, 0.1), "d": (40.0, 5.0)}  # means and deviations


def patients(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = (rng.random(rows) >= 0.6).astype(int)
    frame = {name: mean + sd * (1.5 * (y - 0.4) + 0.6 * rng.normal(size=rows)) for name, (mean, sd) in UNITS.items()}
    return pd.DataFrame(frame).assign(n=rng.poisson(np.where(y, 9, 4)), f=rng.random(rows) < np.where(y, 0.9, 0.2), y=y)


def graph(scope: str, **m: Any) -> dict[str, Any]:
    nodes = {"y": "binary", **dict.fromkeys(UNITS, "continuous"), "n": "count", "f": "binary"}
    return {
        "target": "y",
        "nodes": nodes,
        "edges": [["y", name] for name in nodes if name != "y"],
        "latents": {"z": {"dim": 1}, "m": {"dim": 2, "scope": scope} | m},
    }


def record(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(f=frame["f"].astype(int))


@functools.cache
def model(scope: str) -> CAMA:
    train = record(patients(400, seed=0)).assign(site="home")
    cama = build(graph(scope), hidden=16, device="cpu")
    return cama.fit(train, max_epochs=40, lr=3e-3, conditional_weight=0.0, progress=False)


def drifted(rows: int = 300, seed: int = 1) -> pd.DataFrame:
    frame = patients(rows, seed)
    lost = np.random.default_rng(seed + 100).random(rows) < 0.5
    return record(
        frame.assign(a=frame["a"] + 40, c=1.5 * frame["c"] + 2.6, n=frame["n"] * 2, f=frame["f"] & ~lost)
    ).drop(columns="y")


@functools.cache
def adapted(scope: str) -> CAMA:
    rows = drifted().assign(site="away")
    options: dict[str, Any] = {"keep": "always"} if scope == "row" else {}
    return model(scope).adapt(rows, steps=100, restarts=1, folds=3, progress=False, **options)


@pytest.mark.parametrize("scope", ["dataset", "site"])
def test_planted_drifts_are_found_with_their_size(scope: str) -> None:
    found = adapted(scope).explain_shift()
    assert found.kept
    assert {"a", "c", "n", "f"} == set(found.moved)
    value = found.parameters.set_index(["column", "parameter"])
    truth = {
        ("a", "shift at the mean"): 40,
        ("a", "gain"): 1,
        ("c", "gain"): 1.5,
        ("n", "gain"): 2,
        ("f", "1 -> 0"): 0.5,
    }
    for key, expected in truth.items():
        low, high = value.loc[key, "low"], value.loc[key, "high"]
        tolerance = 0.25 * max(abs(expected), 1.0)
        assert value.loc[key, "estimate"] == pytest.approx(expected, abs=tolerance), key
        assert low < value.loc[key, "estimate"] < high
        assert high - low < 2 * max(abs(expected), 1.0), "an interval that says nothing"
    assert ("a at away: " if scope == "site" else "a: ") in str(found)
    if scope == "site":
        assert set(found.table["site"]) == {"away"}


def test_raw_units_agree_with_the_mechanism() -> None:
    """gain and offset in raw units, applied to raw readings, are what the model takes the drift to be."""
    found = adapted("dataset").explain_shift().parameters.set_index(["column", "parameter"])["estimate"]
    mean = model("dataset").encoder.statistics["c"]["mean"].item()
    moved = found["c", "gain"] * mean + found["c", "offset"]
    assert moved - mean == pytest.approx(found["c", "shift at the mean"], abs=1e-4)


def test_no_drift_names_nothing() -> None:
    quiet = model("dataset").adapt(
        record(patients(300, seed=5)).drop(columns="y"), steps=60, restarts=2, progress=False
    )
    assert quiet.explain_shift().moved == ()


def test_a_refused_adaptation_moves_nothing() -> None:
    refused = model("dataset").adapt(drifted(6), steps=5, restarts=1, progress=False)
    assert not refused.adaptation.accepted
    found = refused.explain_shift()
    assert found.moved == ()
    assert (found.table["change"] == 0).all()
    assert refused.adaptation.reason in str(found)


def test_a_refused_adaptation_leaves_the_record_of_the_one_before_it(tmp_path: Path) -> None:
    once = adapted("dataset")
    again = once.adapt(drifted(60, seed=7), steps=10, restarts=1, folds=2, progress=False)
    assert not again.adaptation.applied, "the same world asks for nothing more"
    found, before = again.explain_shift(), once.explain_shift()
    pd.testing.assert_frame_equal(found.table, before.table)
    assert found.kept
    assert found.refused
    assert str(found).startswith(str(before))
    assert again.adaptation.reason in str(found)
    expected = once.encoder.statistics["y"]["frequencies"].tolist()
    assert again.adaptation.class_prior == pytest.approx(expected)
    assert str(load(again.save(tmp_path / "m"), device="cpu").explain_shift()) == str(found)
    third = again.adapt(drifted(60, seed=8), steps=10, restarts=1, folds=2, keep="always", progress=False)
    assert third.adaptation.earlier == ()


def test_every_site_keeps_the_record_of_its_own_adaptation() -> None:
    away = adapted("site")
    far = model("site").copy().adapt(drifted(100).assign(site="far"), steps=5, restarts=1, folds=2, progress=False)
    both = away.adapt(drifted(100).assign(site="far"), steps=5, restarts=1, folds=2, keep="always", progress=False)
    assert [a.sites for a in (both.adaptation, *both.adaptation.earlier)] == [("far",), ("away",)]
    table, before = both.explain_shift().table, away.explain_shift().table
    assert set(table["site"]) == {"away", "far"}
    own = table[table["site"] == "away"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, before, check_dtype=False)
    assert far.adaptation.earlier == ()


def test_without_held_out_rows_nothing_is_certain() -> None:
    forced = model("dataset").adapt(drifted(6), steps=40, restarts=1, keep="always", progress=False)
    assert forced.adaptation.replicates == ()
    found = forced.explain_shift()
    assert found.kept, "the copy carries it, trusted or not"
    assert found.table["change"].max() > 1
    assert found.moved == ()
    shares = found.parameters["parameter"].str.contains("->")
    assert np.where(shares, found.parameters["high"] == 1, np.isinf(found.parameters["high"])).all()
    assert str(found).startswith("uncertainty unknown: adapting with 4 folds, with 8 rows or more, gives intervals; ")


def test_without_folds_the_estimates_are_told_and_nothing_is_certain(tmp_path: Path) -> None:
    copy = model("dataset").adapt(drifted(), steps=100, restarts=1, folds=1, progress=False)
    assert copy.adaptation.accepted, copy.adaptation
    found = copy.explain_shift()
    assert found.note == "uncertainty unknown: adapting with 4 folds gives intervals"
    assert found.table["moved"].isna().all()
    assert found.moved == ()
    assert {"a", "c", "n", "f"} <= set(found.estimated["column"])
    reading = found.table.set_index("column")["reading"]
    shift = found.parameters.set_index(["column", "parameter"]).loc[("a", "shift at the mean"), "estimate"]
    assert shift == pytest.approx(40, abs=10)
    assert f"shift at the mean {shift:.3g}" in reading["a"]
    assert reading.str.startswith("estimated ").all()
    text = str(found)
    assert text.startswith(found.note)
    assert f"  a: {reading['a']}" in text
    for claim in ("as before", "no column moved", "readings moved"):
        assert claim not in text
    axis = found.plot(tmp_path / "shift.png")
    assert "uncertainty unknown" in axis.get_title(loc="left")
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert len(dots) == len(found.table)
    assert {line.get_markerfacecolor() for line in dots} == {"none"}


def test_estimates_of_a_drift_too_small_to_count_are_no_claim() -> None:
    copy = model("dataset").adapt(
        record(patients(200, seed=5)).drop(columns="y"), steps=5, restarts=1, folds=1, keep="always", progress=False
    )
    found = copy.explain_shift()
    small = replace(found, table=found.table.assign(change=0.0))
    assert str(small) == f"{found.note}; no reading is estimated to have moved noticeably"


def test_estimates_in_words() -> None:
    def words(**estimates: float) -> str:
        return _estimates([{"parameter": k, "estimate": v, "unchanged": 0.0} for k, v in estimates.items()])

    assert words(a=0.0) == "no change estimated"
    assert words(offset=1.0, b=0.0, **{"shift at the mean": 2.0}) == "estimated shift at the mean 2"
    assert words(offset=1.0) == "estimated offset 1"
    many = words(**{f"p{i}": float(i) for i in range(12)})
    assert many == f"estimated {', '.join(f'p{i} {i}' for i in range(4, 12))}, and 3 smaller ones"


def test_scope_row_reports_the_mean_over_rows_and_where_they_lie() -> None:
    found = adapted("row").explain_shift()
    assert len(found.table) == 6
    assert found.kept
    change = found.table.set_index("column")["change"]
    assert change["a"] > 1
    assert change["a"] > 3 * change["b"]
    told = found.parameters
    assert (told["rows_low"] <= told["rows_high"]).all()
    assert "in the mean (rows " in found.table.set_index("column").loc["a", "reading"]
    assert "rows_low" not in adapted("dataset").explain_shift().parameters


def test_survives_saving(tmp_path: Path) -> None:
    before = adapted("dataset")
    after = load(before.save(tmp_path / "model"))
    assert after.adaptation == before.adaptation
    pd.testing.assert_frame_equal(after.explain_shift().parameters, before.explain_shift().parameters)


def test_picture(tmp_path: Path) -> None:
    found = adapted("site").explain_shift()
    assert found.plot(tmp_path / "shift.png").lines
    assert (tmp_path / "shift.png").stat().st_size > 5000


def test_vectors_have_a_row_a_component() -> None:
    raw = {"target": "y", "nodes": {"y": "binary", "v": {"type": "continuous", "dim": 2}}, "edges": ["y -> v"],
           "latents": {"m": {"scope": "dataset"}}}  # fmt: skip
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 80)
    v = list(rng.normal(size=(80, 2)) + y[:, None])
    cama = build(raw, hidden=8, device="cpu").fit({"y": y, "v": np.array(v)}, max_epochs=2, progress=False)
    new = cama.adapt({"v": np.array(v) + np.array([0.0, 9.0])}, steps=20, restarts=1, keep="always", progress=False)
    assert set(new.explain_shift().table["column"]) == {"v[0]", "v[1]"}


def test_errors() -> None:
    with pytest.raises(ValueError, match="never adapted"):
        model("dataset").explain_shift()
    with pytest.raises(ValueError, match=r"explain_shift\(level=2.0\): expected"):
        adapted("dataset").explain_shift(level=2.0)
    raw = graph("dataset", mechanism="concat")
    cama = build(raw, hidden=8, device="cpu").fit(record(patients(60, 0)), max_epochs=1, progress=False)
    free = cama.adapt(drifted(30), steps=2, restarts=1, folds=2, progress=False)
    with pytest.raises(ValueError, match="concat' has no parameters"):
        free.explain_shift()


def test_jackknife() -> None:
    low, high = _interval(1.0, [0.9, 1.1, 1.0, 1.0], 0.95)
    se = math.sqrt(3 / 4 * 0.02)
    assert high - 1.0 == pytest.approx(3.18245 * se, rel=1e-4)
    assert low == pytest.approx(2.0 - high)


def test_intervals_end_where_values_do() -> None:
    assert _interval(0.961, [0.93, 0.99, 0.97, 0.95], 0.95, within=(0.0, 1.0))[1] == 1.0
    assert _interval(0.02, [0.0, 0.06, 0.01, 0.01], 0.95, within=(0.0, 1.0))[0] == 0.0
    assert _interval(0.5, [], 0.95, within=(0.0, 1.0)) == (0.0, 1.0)
    found = adapted("dataset").explain_shift()
    table, parameters = found.table, found.parameters
    shares = parameters[parameters["parameter"].str.contains("->")]
    assert len(shares) == 2
    assert shares["low"].min() >= 0
    assert shares["high"].max() <= 1
    assert table.loc[table["column"] == "f", "high"].max() <= 1
    assert table["low"].min() >= 0
    assert parameters.loc[parameters["parameter"].eq("noise") | parameters["column"].eq("n"), "low"].min() >= 0


def test_changes_that_span_decades_stand_on_a_logarithmic_axis() -> None:
    table = pd.DataFrame({"column": ["a", "b"], "moved": True, "small": 0.25, "reading": ""})
    far = Explanation(table.assign(change=[900.0, 0.5], low=[880.0, 0.4], high=[950.0, 0.6]), pd.DataFrame(), True, "")
    near = Explanation(table.assign(change=[3.0, 0.5], low=[2.0, 0.4], high=[4.0, 0.6]), pd.DataFrame(), True, "")
    axis = far.plot()
    assert axis.get_xscale() == "symlog"
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0", "1", "10", "100", "1,000"]
    assert near.plot().get_xscale() == "linear"
    pyplot.close("all")


def test_of_a_column_without_a_reading_nothing_is_said() -> None:
    rows = drifted().assign(a=np.nan)
    found = model("dataset").adapt(rows, steps=40, restarts=1, folds=3, keep="always", progress=False).explain_shift()
    row = found.table.set_index("column").loc["a"]
    assert row["reading"] == "no reading among the new rows"
    assert not row["moved"]
    assert row["high"] == math.inf
    assert "a" not in set(found.parameters["column"])
    assert "c" in found.moved


def test_intervals_hold_the_truth_where_training_rows_are_few() -> None:
    """The folds are of the new rows: of the training rows' error, here the larger one, they know nothing."""
    names = [f"x{i}" for i in range(6)]
    raw = {
        "target": "y",
        "nodes": {"y": "binary", **dict.fromkeys(names, "continuous")},
        "edges": [f"y -> {name}" for name in names],
        "latents": {"z": {"dim": 2}, "m": {"scope": "dataset"}},
    }

    def rows(n: int, rng: np.random.Generator) -> pd.DataFrame:
        y = rng.integers(0, 2, n)
        return pd.DataFrame(2.0 * y[:, None] + rng.normal(size=(n, 6)), columns=names).assign(y=y)

    missed, moved, count = 0, 0, 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        cama = build(raw, hidden=4, device="cpu", seed=seed).fit(rows(60, rng), progress=False)
        new = rows(600, rng).drop(columns="y")
        found = cama.adapt(new.assign(x0=new["x0"] + 2), progress=False, keep="always").explain_shift()
        table = found.table.set_index("column")
        assert table.loc["x0", "moved"]
        moved += int(table.drop(index="x0")["moved"].sum())
        own = found.parameters[found.parameters["column"] != "x0"]
        missed += int((~own["unchanged"].between(own["low"], own["high"])).sum())
        count += len(own)
    assert missed < 0.15 * count  # a third of them, as folds alone have it
    assert moved <= 7  # of 30
