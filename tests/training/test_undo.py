"""A fit that fails or is stopped leaves the model as it was, and its checkpoints where they are."""

import functools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Trainer

from pyro_cama import CAMA, DataError, build
from pyro_cama.sklearn import CAMAClassifier
from pyro_cama.training import calibration
from pyro_cama.training.optimise import quiet
from tests.helpers.faults import At, as_it_is, ctrl_c, diverge, unchanged
from tests.helpers.training import COLUMNS, GRAPH, fitted, same, table

FAULTS: dict[str, tuple[Callable[[Any], None], type[BaseException]]] = {
    "ctrl-c": (ctrl_c, KeyboardInterrupt),
    "divergence": (diverge, FloatingPointError),
}
SITES: dict[str, Any] = GRAPH | {
    "latents": {**GRAPH["latents"], "m": {"dim": 3, "children": COLUMNS, "mechanism": "affine", "scope": "site"}}
}


def new(graph: dict[str, Any] = GRAPH) -> CAMA:
    return build(graph, seed=3, hidden=16, device="cpu")


@functools.cache
def trained() -> CAMA:
    return fitted(max_epochs=1)


def start(again: bool) -> CAMA:
    """A model that was fitted before, or one that was not."""
    return trained().copy() if again else new()


def refit(cama: CAMA, data: Any = None, **options: Any) -> CAMA:
    quick: dict[str, Any] = {"max_epochs": 4, "conditional_weight": 0.0, "progress": False}
    return cama.fit(table(100, seed=1) if data is None else data, **{**quick, **options})


@pytest.mark.parametrize(("fault", "epoch"), [("ctrl-c", 0), ("ctrl-c", 2), ("divergence", 0), ("divergence", 2)])
@pytest.mark.parametrize("again", [False, True])
def test_a_fit_that_fails_leaves_the_model_as_it_was(again: bool, fault: str, epoch: int) -> None:
    action, error = FAULTS[fault]
    cama = start(again)
    before, handler = as_it_is(cama), signal.getsignal(signal.SIGINT)
    with pytest.raises(error):
        refit(cama, trainer_kwargs={"callbacks": [At(epoch, action)]})
    assert unchanged(cama, before)
    assert signal.getsignal(signal.SIGINT) is handler  # the next Ctrl-C counts too
    if again:
        assert np.isfinite(cama.predict_proba(table(20))).all()
    else:
        with pytest.raises(DataError, match="has not seen data yet"):
            cama.predict_proba(table(20))


@pytest.mark.parametrize("error", [KeyboardInterrupt, FloatingPointError])
def test_a_fit_that_fails_at_its_end_leaves_the_model_as_it_was(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    cama = start(again=True)
    before = as_it_is(cama)
    monkeypatch.setattr(calibration, "optimise", fails)
    with pytest.raises(error):
        refit(cama, conditional_weight=30.0)
    assert unchanged(cama, before)


def test_weights_that_the_last_step_made_nan_are_no_fit() -> None:
    class Last(At):
        def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
            if trainer.current_epoch == self.epoch:
                self.action(module)

    cama = new()
    before = as_it_is(cama)
    last = Last(3, diverge, "no such stage")
    with pytest.raises(
        FloatingPointError, match="fit: a weight became NaN or infinite in the last epoch; try a smaller"
    ):
        cama.fit(table(), validation=0.0, max_epochs=4, progress=False, trainer_kwargs={"callbacks": [last]})
    assert unchanged(cama, before)


def test_sites_of_a_fit_that_fails_are_forgotten() -> None:
    rows = table()
    cama = new(SITES).fit(rows.assign(site="north"), max_epochs=1, progress=False)
    before = as_it_is(cama)
    manipulated = table(60, seed=2).assign(site="east")
    with pytest.raises(KeyboardInterrupt):
        cama.fit(rows.assign(site="north"), manipulated, max_epochs=3, progress=False,
                 trainer_kwargs={"callbacks": [At(1, ctrl_c)]})  # fmt: skip
    assert unchanged(cama, before)
    assert cama.encoder.sites == ("north",)


def test_a_layer_that_was_frozen_stays_so() -> None:
    cama = start(again=True)
    frozen = next(cama.model.parameters()).requires_grad_(False)
    with pytest.raises(KeyboardInterrupt):
        refit(cama, trainer_kwargs={"callbacks": [At(0, ctrl_c)]})
    assert not frozen.requires_grad


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fit_that_failed_goes_on_from_its_checkpoint_to_the_same_weights(
    fault: str, again: bool, tmp_path: Path
) -> None:
    action, error = FAULTS[fault]
    whole, stopped = refit(start(again)), start(again)
    kept: dict[str, Any] = {"checkpoints": tmp_path / "run", "checkpoint_seconds": 0}
    with pytest.raises(error):
        refit(stopped, **kept, trainer_kwargs={"callbacks": [At(2, action)]})
    assert (tmp_path / "run" / "last.ckpt").exists()
    assert same(whole, refit(stopped, **kept, resume=True))
    assert whole.history == stopped.history
    assert same(whole, refit(start(again), **kept, resume=True))  # another process's


@pytest.mark.parametrize("fault", FAULTS)
def test_adapting_leaves_the_model_as_it_was(fault: str) -> None:
    action, error = FAULTS[fault]
    cama = start(again=True)
    before, seen = as_it_is(cama), []

    class First(At):
        def on_train_batch_start(self, trainer: Trainer, module: Any, *_: Any) -> None:
            if not seen or error is FloatingPointError:
                seen.append(module)
                self.action(module)

    options: dict[str, Any] = {
        "steps": 10, "restarts": 1, "folds": 1, "progress": False,
        "trainer_kwargs": {"callbacks": [First(0, action)]},
    }  # fmt: skip
    new_rows = table(60, seed=1).drop(columns="y")
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            cama.adapt(new_rows, **options)
    else:
        adapted = cama.adapt(new_rows, **options)  # a start that diverges counts as it began
        assert all(p.isfinite().all() for p in adapted.modules.parameters())
    assert seen
    assert unchanged(cama, before)


# a Trainer of one's own ---------------------------------------------------------------------------------------------


def trainer(**options: Any) -> Trainer:
    silent = dict.fromkeys(["logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar"], False)
    return Trainer(accelerator="cpu", **silent, **options)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(("fault", "raised"), [("ctrl-c", SystemExit), ("divergence", FloatingPointError)])
def test_a_trainer_of_ones_own_that_fails_leaves_the_model_as_it_was(
    fault: str, raised: type[BaseException], again: bool
) -> None:
    cama = start(again)
    before = as_it_is(cama)
    module, data = cama.lightning(table(), max_epochs=4, progress=False)
    with quiet(), pytest.raises(raised):
        trainer(max_epochs=4, callbacks=[At(1, FAULTS[fault][0])]).fit(module, data)
    assert unchanged(cama, before)
    with pytest.raises(RuntimeError, match=r"failed or was stopped, and the model is as it was .* call lightning\(\)"):
        module.finish()
    with quiet(), pytest.raises(RuntimeError, match=r"call lightning\(\) again"):
        trainer(max_epochs=4).fit(module, data)
    assert unchanged(cama, before)


def test_a_module_that_no_trainer_took_can_be_undone() -> None:
    cama = new()
    before = as_it_is(cama)
    module, _ = cama.lightning(table(), max_epochs=4, progress=False)
    assert not unchanged(cama, before)
    module.undo()
    assert unchanged(cama, before)


# the classifier -----------------------------------------------------------------------------------------------------


def test_a_classifier_that_is_stopped_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(60)
    model = CAMAClassifier(max_epochs=1, hidden=8).fit(rows[COLUMNS], rows["y"])
    before, expected = dict(model.__dict__), model.predict_proba(rows[COLUMNS])

    def stops(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CAMA, "fit", stops)
    with pytest.raises(KeyboardInterrupt):
        model.fit(rows[COLUMNS[:2]], rows["y"])
    assert model.__dict__ == before
    assert np.array_equal(model.predict_proba(rows[COLUMNS]), expected)
