"""The monitor: changes, returns, class mixes, refusals, a bounded bank, a state that goes on to the very same steps."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pyro_cama import CAMA, DataError, build
from pyro_cama.stream import Monitor, Step
from tests.helpers.streams import COLUMNS, GRAPH, batch, model

HELD = batch(1, rows=150)


def steps(monitor: Monitor[Any], worlds: str, first: int = 100, **options: Any) -> list[Step]:
    return [monitor.update(batch(first + i, world, **options)[COLUMNS]) for i, world in enumerate(worlds)]


def accuracy(step: Step, seed: int, world: str) -> float:
    return float((step.labels == batch(seed, world)["y"]).mean())


def test_worlds_come_and_come_back() -> None:
    monitor = model().monitor(HELD)
    worlds = "AABBACCBA"
    found = steps(monitor, worlds)
    kinds = ["same", "same", "new", "same", "back", "new", "same", "back", "back"]
    assert [step.kind for step in found] == kinds
    assert [step.regime for step in found] == [0, 0, 1, 1, 0, 2, 2, 1, 0]
    assert [step.adapted for step in found] == [kind == "new" for kind in kinds]
    right = [accuracy(step, 100 + i, world) for i, (step, world) in enumerate(zip(found, worlds, strict=True))]
    assert min(right) > 0.9
    assert model().score(batch(102, "B")) < min(right) - 0.05
    assert [regime.visits for regime in monitor.regimes] == [3, 2, 1]
    assert "regime 1 is back" in str(found[7])
    assert found[7].since == 8


def test_a_visit_reads_as_its_first_one_did() -> None:
    monitor = model().monitor(HELD)
    found = steps(monitor, "BAB")
    own = monitor.model(1)
    np.testing.assert_array_equal(found[2].proba, own.predict_proba(batch(102, "B")[COLUMNS]))
    assert own.explain_shift().moved == ("x0", "x3")
    np.testing.assert_array_equal(monitor.model(0).predict_proba(batch(0)), model().predict_proba(batch(0)))


def test_another_class_mix_is_no_change() -> None:
    monitor = model().monitor(HELD)
    found = [monitor.update(batch(seed, mix=[0.8, 0.15, 0.05])[COLUMNS]) for seed in range(20, 40)]
    assert {step.kind for step in found} == {"same"}


def test_without_clean_rows_the_first_ones_are_taken() -> None:
    kinds = [step.kind for step in steps(model().monitor(), "AAABBA", rows=70)]
    assert kinds == ["calibrating", "calibrating", "same", "undecided", "new", "back"]


def test_few_rows_wait_for_others() -> None:
    monitor = model().monitor(HELD)
    steps(monitor, "A")
    found = steps(monitor, "B" * 12, rows=15)
    kinds = [step.kind for step in found]
    assert kinds.count("new") == 1
    assert set(kinds) == {"same", "undecided", "new"}
    assert all(step.regime is None for step in found if step.kind == "undecided")
    assert kinds[-1] == "same"


def test_what_is_refused_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_cama.stream import decision

    tried: list[int] = []
    adapt = decision.adapt
    monkeypatch.setattr(decision, "adapt", lambda *args, **options: tried.append(1) or adapt(*args, **options))
    monitor = model().monitor(HELD)
    draws = np.random.default_rng(0)
    noise = [pd.DataFrame(draws.normal(0, 5, (120, 5)), columns=COLUMNS) for _ in range(6)]  # they measure nothing
    found = [monitor.update(rows) for rows in noise]
    assert [step.kind for step in found] == ["refused", *["same"] * 5]
    assert len(tried) == 1
    assert found[0].regime == found[5].regime == 1
    assert found[0].reads_as == 0
    assert steps(monitor, "A")[0].kind == "back"
    assert monitor.update(noise[0]).regime == 1
    assert len(tried) == 1


def test_the_bank_is_bounded() -> None:
    monitor = model().monitor(HELD, most_regimes=3)
    found = [monitor.update(batch(60 + i, {"x0": by})[COLUMNS]) for i, by in enumerate((4.0, 4.5, -5.0, 9.0))]
    gone = [step.forgotten for step in found if step.forgotten is not None]
    assert gone
    assert len(monitor.regimes) == 3
    assert monitor.regimes[0].number == 0
    assert f"regime {gone[0]} was forgotten" in " ".join(map(str, found))


def test_slow_drift_is_followed() -> None:
    monitor, moved = model().monitor(HELD), [0.15 * i for i in range(30)]
    right = []
    for i, by in enumerate(moved):
        rows = batch(200 + i, {"x0": by, "x1": -by, "x2": by})
        right.append(float((monitor.update(rows[COLUMNS]).labels == rows["y"]).mean()))
    assert 3 <= len(monitor.regimes) <= 12
    assert np.mean(right[-8:]) > 0.93
    last = batch(229, {"x0": moved[-1], "x1": -moved[-1], "x2": moved[-1]})
    assert model().score(last) < 0.9


@pytest.mark.parametrize("after", [1, 3])
def test_a_state_goes_on_to_the_same_steps(after: int, tmp_path: Path) -> None:
    path, worlds = tmp_path / "state", "ABAB"
    whole = steps(model().monitor(HELD), worlds)
    steps(model().monitor(HELD, state=path), worlds[:after])
    later = model().monitor(HELD, state=path)
    assert later.steps == after
    rest = steps(later, worlds[after:], 100 + after)
    for one, other in zip(whole[after:], rest, strict=True):
        np.testing.assert_array_equal(one.proba, other.proba)
        assert str(one) == str(other)
        assert one.evidence == other.evidence
    size = path.stat().st_size
    steps(later, "BBB", 300)
    assert path.stat().st_size < size + 100_000


def test_an_undecided_state_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "state"
    first = model().monitor(HELD, state=path)
    kinds = [step.kind for step in steps(first, "BBB", rows=15)]
    assert kinds[-1] == "undecided"
    rest = [str(step) for step in steps(first, "B" * 6, 103, rows=15)]
    second = model().monitor(HELD, state=path)
    assert repr(second) == repr(first)
    first = model().monitor(HELD, state=tmp_path / "other")
    assert [str(step) for step in [*steps(first, "BBB", rows=15), *steps(first, "B" * 6, 103, rows=15)]][3:] == rest


def test_what_is_raised_leaves_the_monitor_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state"
    monitor = model().monitor(HELD, state=path)
    steps(monitor, "A")
    before = path.read_bytes()
    for rows in (batch(5)[["x0"]], batch(5)[COLUMNS][:0]):
        with pytest.raises(DataError):
            monitor.update(rows)
    assert monitor.steps == 1
    assert path.read_bytes() == before


def test_errors_say_what_is_expected(tmp_path: Path) -> None:
    cama = model()
    with pytest.raises(ValueError, match=r"monitor\(false_alarms=2\): expected a number between 0 and 1"):
        cama.monitor(false_alarms=2)
    with pytest.raises(ValueError, match=r"monitor\(stepz=3\): expected some of alpha"):
        cama.monitor(stepz=3)
    with pytest.raises(DataError, match="found 5 rows; expected at least 20"):
        cama.monitor(batch(0, rows=5))
    with pytest.raises(ValueError, match="m is null"):
        build({**GRAPH, "latents": {"m": None}}).monitor()
    graph = {**GRAPH, "latents": {"m": {"scope": "site"}}}
    with pytest.raises(ValueError, match="expected scope dataset or row"):
        build(graph).monitor()
    with pytest.raises(ValueError, match="expected one of 0"):
        cama.monitor(HELD).model(4)
    path = tmp_path / "state"
    steps(cama.monitor(HELD, state=path), "A")
    with pytest.raises(ValueError, match=r"other options \(least=100 there, 60 here\)"):
        cama.monitor(HELD, state=path, least=60)
    with pytest.raises(ValueError, match="another model"):
        cama.adapt(batch(9, "B"), progress=False, restarts=1).monitor(HELD, state=path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"state is damaged .* delete it to begin anew"):
        cama.monitor(HELD, state=path)


def test_scope_row_is_followed_too() -> None:
    raw = {**GRAPH, "latents": {"z": {"dim": 2}, "m": {"dim": 3, "children": COLUMNS, "scope": "row"}}}
    cama = build(raw, seed=1, hidden=8, device="cpu").fit(batch(0), max_epochs=4, lr=1e-2, progress=False)
    monitor = cama.monitor(HELD, least=40, steps=3, restarts=1, folds=1, keep="always")
    found = steps(monitor, "BAB", rows=50)
    assert found[0].kind == "new"
    assert found[1].regime == 0
    assert found[2].regime == 1
    assert monitor.model(1).m_trained
    assert not monitor.model(0).m_trained


PIXELS = np.random.default_rng(0)


def pictures(rows: int, bright: float) -> dict[str, Any]:
    """Images whose left or right half is white; ``bright`` is what white is recorded as."""
    y = PIXELS.integers(0, 2, rows)
    x = np.where(np.arange(8) < 4, y[:, None, None, None], 1 - y[:, None, None, None]) * np.ones((rows, 1, 8, 8))
    return {"x": (0.6 * x + 0.3 * PIXELS.random((rows, 1, 8, 8))) * bright, "y": np.array(["a", "b"])[y]}


@cache
def of_images() -> CAMA:
    """A fitted one; it is shared, so leave it as it is."""
    image = {"x": {"type": "image", "shape": [1, 8, 8]}, "y": {"type": "categorical", "levels": ["a", "b"]}}
    raw: dict[str, Any] = {"target": "y", "nodes": image, "edges": ["y -> x"], "latents": {"m": {"scope": "dataset"}}}
    return build(raw, hidden=8, device="cpu").fit(pictures(120, 1.0), max_epochs=2, progress=False)


def test_images_are_followed_too() -> None:
    monitor = of_images().monitor(pictures(60, 1.0), least=40, steps=3)
    kinds = [monitor.update({"x": pictures(60, bright)["x"]}).kind for bright in (1.0, 0.2, 0.2, 1.0)]
    assert kinds[0] == "same"
    assert kinds[1] in ("new", "refused")
    assert kinds[2:] == ["same", "back"]


def test_a_step_predicts_once_however_many_worlds_it_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_cama.stream import reading

    predicted: list[int] = []
    posterior = reading.class_posterior
    monkeypatch.setattr(
        reading, "class_posterior", lambda *args, **options: predicted.append(1) or posterior(*args, **options)
    )
    monitor = of_images().monitor(pictures(60, 1.0), least=40, steps=3)
    for bright in (1.0, 0.2, 1.0):
        before = len(predicted)
        monitor.update({"x": pictures(60, bright)["x"]})
        assert len(predicted) == before + 1


def test_batches_are_predicted_as_is_asked_for(tmp_path: Path) -> None:
    few, rows = {"samples": 2, "m_samples": 1}, pictures(60, 1.0)
    monitor = of_images().monitor(rows, state=tmp_path / "state", predict=few)
    np.testing.assert_array_equal(monitor.update(rows).proba, of_images().predict_proba(rows, **few))
    with pytest.raises(ValueError, match="found the state of a monitor with other options \\(predict m_samples="):
        of_images().monitor(rows, state=tmp_path / "state")
    with pytest.raises(ValueError, match=r"monitor\(sample=2\): expected some of samples"):
        of_images().monitor(rows, predict={"sample": 2})


def test_columns_without_an_entry_are_named_where_a_change_is_noticed() -> None:
    """A dead sensor changes what evidence a row has: the step says which it is."""
    monitor = model().monitor(HELD)
    found = [monitor.update(batch(seed)[COLUMNS].assign(x0=np.nan, x3=np.nan)) for seed in range(60, 66)]
    told = [step for step in found if step.kind != "same"]
    assert told
    assert all("; 'x0', 'x3': no entry in this batch" in step.reason for step in told)
    assert "no entry" not in model().monitor(HELD).update(batch(60, "B")[COLUMNS]).reason


def test_a_regime_is_said_in_a_line() -> None:
    monitor = model().monitor(HELD)
    steps(monitor, "BA")
    assert [repr(regime) for regime in monitor.regimes] == [
        "<Regime 0: came in step 0, visited 2 times>",
        "<Regime 1: came in step 1, visited once>",
    ]
