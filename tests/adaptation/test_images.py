"""Adapting to images: defaults of their own, what moves and what does not, how classes are counted."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from pyro_cama import CAMA, DataError
from pyro_cama.adaptation.candidates import examine, unadapted
from pyro_cama.adaptation.initialisation import initialise_start as begin_at
from pyro_cama.adaptation.new_rows import NewRows, hold_out
from pyro_cama.data.batch import Batch
from tests.helpers.images import BERNOULLI, QUICK, digits, spec, state, table
from tests.helpers.patches import module_at
from tests.helpers.random_graphs import small


def test_adapting_a_mixed_graph_under_a_shared_m() -> None:
    """Moments for the number beside the image, and the alternatives of both: the negative, the reversed scale."""
    nodes, edges = {"i": BERNOULLI, "x": "continuous"}, ["y -> i", "y -> x"]
    cama = small(spec(nodes, edges, {"scope": "dataset", "mechanism": {"i": "intensity"}}), hidden=8, device="cpu")
    cama.fit(table(60), max_epochs=30, lr=1e-2, conditional_weight=0.0, **QUICK)
    new = table(40, seed=1)
    new = {"i": 1 - new["i"], "x": new["x"] + 3}
    before = state(cama)
    options: dict[str, Any] = {"steps": 10, "samples": 1, "folds": 2, **QUICK}
    copy = cama.adapt(new, restarts=2, keep="always", **options)
    assert len(copy.adaptation.theta[0]) == 2 + 4
    assert len(copy.adaptation.replicates) == 2
    assert copy.adaptation.start == "moments"
    group = next(group for group in copy.model.groups if group.image)
    with torch.no_grad():
        m = copy.guide.m_posterior()[0][0]
        theta = copy.manipulation.theta(copy.manipulation(m), group)
    gain, offset = 1 + float(theta[0]), float(theta[1])
    assert gain == pytest.approx(-1.0, abs=0.25)  # found to be negatives
    assert offset == pytest.approx(1.0, abs=0.25)
    assert all(torch.equal(value, before[name]) for name, value in state(cama).items())
    np.testing.assert_array_equal(copy.predict_proba(new, do={"m": 0.0}), cama.predict_proba(new, do={"m": 0.0}))


def test_adapting_to_digits_touches_nn_pm_and_nn_qm_alone() -> None:
    cama, clean, shifted = digits()
    before = state(cama)
    options: dict[str, Any] = {"steps": 10, "batch_size": 16, "keep": "always", **QUICK}
    copy = cama.adapt({"i": shifted["i"]}, {"i": clean["i"][:50], "y": clean["y"][:50]}, **options)
    ours = {id(parameter) for parameter in copy.manipulation_parameters().values()}
    tensors = copy.modules.state_dict(keep_vars=True)
    moved = {name for name, value in tensors.items() if not torch.equal(value, before[name])}
    moved -= {"1.networks.m.items_.0.world"}  # what the new rows' m is, for sample
    free = {name for name, value in tensors.items() if id(value) in ours}
    assert moved <= free
    assert {name for name in free if name.endswith("weight")} <= moved  # a last bias is taken off again: theta(0) = 0
    assert all(torch.equal(value, before[name]) for name, value in state(cama).items())
    none = {"m": 0.0}
    for rows_ in (clean, shifted):  # do(m=0) predicts as before, to the last bit
        np.testing.assert_array_equal(copy.predict_proba(rows_, do=none), cama.predict_proba(rows_, do=none))
    assert not np.array_equal(copy.predict_proba(shifted), cama.predict_proba(shifted))
    adaptation = copy.adaptation
    assert adaptation.applied
    assert adaptation.rows == 200
    assert adaptation.replicates == ()  # a fifth was held out, and nothing folded
    assert str(copy.explain_shift()).startswith("uncertainty unknown: adapting with 4 folds gives intervals; ")
    assert len(adaptation.theta[0]) == 6
    assert math.isfinite(adaptation.evidence_after)


def test_missing_images_are_nothing_to_adapt_to() -> None:
    with pytest.raises(DataError, match=r"adapt: found no reading of 'i' in the new rows \(20 looked at\)"):
        digits()[0].adapt({"i": [None] * 20}, **QUICK)


def test_images_have_defaults_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """One start, and no folds; what was not accepted predicts as before."""
    cama, _, shifted = digits()
    seen: list[dict[str, Any]] = []

    def nothing(stages: Any, modules: Any, parameters: Any, minibatches: Any, **options: Any) -> None:
        (stage,) = stages
        seen.append({**vars(minibatches), "lr": stage.lr, "max_epochs": stage.epochs})

    monkeypatch.setattr(module_at("adaptation.drawn"), "optimise", nothing)
    copy = cama.adapt({"i": shifted["i"]}, **QUICK)
    found = {name: seen[0][name] for name in ("rows", "batch_size", "lr", "steps", "max_epochs")}
    assert found == {"rows": 160, "batch_size": 32, "lr": 2e-3, "steps": 10, "max_epochs": 20}
    assert len(seen) == 1
    assert not copy.adaptation.accepted
    assert copy.adaptation.start == "here"
    np.testing.assert_array_equal(copy.predict_proba(shifted), cama.predict_proba(shifted))
    cama.adapt({"i": shifted["i"]}, restarts=2, folds=3, steps=40, samples=2, batch_size=50, lr=0.1, **QUICK)
    assert len(seen) == 1 + 2 + 3
    assert [call["rows"] for call in seen[1:3]] == [200, 200]
    assert {(call["batch_size"], call["lr"], call["max_epochs"]) for call in seen[1:]} == {(50, 0.1, 4)}


@pytest.mark.parametrize(("count", "counted"), [(50, 50), (200, 200), (3, 3)])
def test_classes_are_counted_on_more_than_what_is_held_out(
    count: int, counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten held-out digits lack a class or two whatever was done to them."""
    cama, _, shifted = digits()
    monkeypatch.setattr(module_at("adaptation.drawn"), "optimise", lambda *_, **__: None)
    seen: list[tuple[int, int, int]] = []

    def noted(found: Any, new: Batch, every: Batch) -> Any:
        assert torch.equal(every.values["i"][: new.rows], new.values["i"])
        seen.append((len(found.labels), len(found.evidence), found.counted))
        return found

    def examined(cama: CAMA, start: str, new: Batch, every: Batch, *rest: Any, **options: Any) -> Any:
        return noted(examine(cama, start, new, every, *rest, **options), new, every)

    def resting(cama: CAMA, new: NewRows, *rest: Any) -> Any:
        return noted(unadapted(cama, new, *rest), new.compared, new.counted)

    monkeypatch.setattr(module_at("adaptation.drawn"), "examine", examined)
    monkeypatch.setattr(module_at("adaptation.adapt"), "unadapted", resting)
    copy = cama.adapt({"i": shifted["i"][:count]}, **QUICK)
    held = max(math.ceil(count / 5), 1) if count >= 4 else count
    assert {*seen} == {(held, held, counted)}
    assert len(seen) > 1
    assert sum(copy.adaptation.proportions_after) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("count", "kept"), [(4, 1), (200, 40), (20_000, 500)])
def test_with_one_fold_a_part_is_kept_from_adaptation(count: int, kept: int) -> None:
    rows_, held = hold_out(count, 1, seed=3)
    assert len(held) == kept
    assert sorted([*rows_.tolist(), *held.tolist()]) == list(range(count))
    for all_rows in (*hold_out(count, 4, seed=3), *hold_out(3, 1, seed=3)):
        assert all_rows.tolist() == list(range(len(all_rows)))


def test_a_random_start_forgets_what_m_means_and_nothing_else() -> None:
    cama, clean, shifted = digits()
    copy, batch = cama.copy(), cama.encode({"i": shifted["i"]})
    assert begin_at(copy, batch, None, 0, 10).name == "here"
    assert all(torch.equal(value, state(copy)[name]) for name, value in state(cama).items())
    assert begin_at(copy, batch, None, 2, 10).name == "random 2"
    before = cama.manipulation_parameters()
    assert not any(torch.equal(value, before[name]) for name, value in copy.manipulation_parameters().items())
    none = {"m": 0.0}
    np.testing.assert_array_equal(copy.predict_proba(clean, do=none), cama.predict_proba(clean, do=none))
