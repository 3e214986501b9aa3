"""Many threads, one process: results as alone, Pyro's and torch's settings as they were; interrupts and forks too."""

import gc
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro.poutine.runtime import _DIM_ALLOCATOR, _PYRO_STACK

from pyro_cama import CAMA, build, load
from pyro_cama.attacks import AttackableTable, pgd
from pyro_cama.handlers import exclusive
from pyro_cama.handlers.common_noise import common_noise
from pyro_cama.handlers.contexts import fast
from pyro_cama.persistence.export import load as load_exported
from tests.helpers.training import GRAPH, fitted, table

Call = Callable[[], Any]
ROWS = table(20, seed=9)
BY_ROW = {**GRAPH, "latents": {**GRAPH["latents"], "m": {**GRAPH["latents"]["m"], "scope": "row"}}}
SMALL: dict[str, Any] = {"max_epochs": 2, "progress": False}
ADAPT: dict[str, Any] = {"steps": 10, "restarts": 1, "folds": 1, "progress": False}
THREADS, TIMES = 8, 10  # with 84 of these, 2,016 mixed calls


@pytest.fixture(scope="module")
def one() -> CAMA:
    return fitted()


@pytest.fixture(scope="module")
def two() -> CAMA:
    return build(BY_ROW, seed=5, hidden=8, device="cpu").fit(table(seed=1), interventions=1.0, **SMALL)


def weights(cama: CAMA) -> Any:
    return torch.cat([tensor.detach().flatten() for tensor in cama.modules.state_dict().values()]).numpy()


def attacked(cama: CAMA) -> Any:
    attackable = AttackableTable(cama, ROWS)
    return pgd(attackable.logits, attackable.x, torch.tensor(ROWS["y"].tolist()), eps=0.3, steps=1).numpy()


def weighed(cama: CAMA) -> Any:
    with torch.no_grad(), common_noise(0):
        return cama.log_weights(cama.encode(ROWS), samples=2).w.numpy()


def quick_calls(cama: CAMA, folder: Path) -> list[Call]:
    return [
        lambda: cama.predict_proba(ROWS),
        lambda: cama.predict_proba(ROWS, do=None, refine_z=2),
        lambda: cama.predict(ROWS),
        lambda: cama.score(ROWS),
        lambda: cama.elbo(ROWS).numpy(),
        lambda: weighed(cama),
        lambda: cama.reconstruct(ROWS, samples=2).to_numpy(),
        lambda: cama.sample(20, seed=1).to_numpy(),
        lambda: attacked(cama),
        lambda: weights(build(GRAPH, seed=3, hidden=8, device="cpu")),
        lambda: weights(cama.copy()),
        lambda: weights(load(folder, device="cpu")),
    ]


def slow_calls(two: CAMA) -> list[Call]:
    return [
        lambda: weights(build(GRAPH, seed=3, hidden=8, device="cpu").fit(table(60), **SMALL)),
        lambda: weights(two.adapt(ROWS, **ADAPT)),
    ]


def settings() -> dict[str, Any]:
    """Of the process, and of this thread."""
    return {
        "handlers": list(_PYRO_STACK),
        "plates": list(_DIM_ALLOCATOR._stack),
        "settings": pyro.settings.get(),
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "random": torch.get_rng_state().tolist(),
    }


def equals_alone(calls: list[Call], times: int) -> None:
    """Makes every call alone, then all of them in threads so many times."""
    alone = [call() for call in calls]
    before = settings()
    order = np.random.default_rng(0).permutation(len(calls) * times) % len(calls)
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda i: calls[i](), order))
    for i, result in zip(order, found, strict=True):
        np.testing.assert_array_equal(result, alone[i])
    assert settings() == before


def test_mixed_calls(one: CAMA, two: CAMA, tmp_path: Path) -> None:
    folders = [cama.save(tmp_path / name) for name, cama in (("one", one), ("two", two))]
    equals_alone(quick_calls(one, folders[0]) + quick_calls(two, folders[1]), TIMES)


def test_training_beside_predictions(one: CAMA, two: CAMA) -> None:
    equals_alone([*slow_calls(two), *[lambda: one.predict_proba(ROWS), lambda: two.elbo(ROWS).numpy()] * 4], 1)


def test_exported_program(one: CAMA, tmp_path: Path) -> None:
    exported = load_exported(one.export(tmp_path / "served"))
    equals_alone([lambda: exported.predict_proba(ROWS), lambda: exported.predict_proba(ROWS[:3])], 50)


def test_no_call_leaves_weights_in_the_store_of_pyro(one: CAMA, two: CAMA, tmp_path: Path) -> None:
    pyro.clear_param_store()
    folders = [cama.save(tmp_path / name) for name, cama in (("one", one), ("two", two))]
    for call in [*quick_calls(one, folders[0]), *quick_calls(two, folders[1]), *slow_calls(two)]:
        call()
        assert not list(pyro.get_param_store().keys())


def test_ones_own_pyro_under_the_lock(one: CAMA) -> None:
    batch = one.encode(ROWS)

    def own() -> Any:
        with exclusive(), torch.no_grad(), pyro.poutine.seed(rng_seed=0), pyro.poutine.trace() as traced:
            one.guide(batch)
        return traced.trace.nodes["z"]["value"].numpy()

    equals_alone([own, lambda: one.predict_proba(ROWS)], 20)


# interrupts -------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_profile() -> Iterator[None]:
    """No collection of garbage strikes where the interrupt should."""
    before = sys.getprofile()
    gc.disable()
    yield
    gc.enable()
    sys.setprofile(before)


def interrupted(call: Call, at: int | None) -> int:
    """Interrupts a call where it has called or returned from so many functions; returns how many it has."""
    seen = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal seen
        if event == "c_call":  # no signal strikes between a C function's call and its run: the lock's release is one
            return
        seen += 1
        if seen == at:
            raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return seen


@pytest.mark.usefixtures("no_profile")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it may strike where nobody hears of it
@pytest.mark.parametrize("name", ["predict_proba", "reconstruct", "sample", "build"])
def test_interrupt_leaves_nothing(one: CAMA, name: str) -> None:
    calls: dict[str, Call] = {
        "predict_proba": lambda: one.predict_proba(ROWS[:3], samples=2),
        "reconstruct": lambda: one.reconstruct(ROWS[:3], samples=2).to_numpy(),
        "sample": lambda: one.sample(3).to_numpy(),
        "build": lambda: weights(build(GRAPH, hidden=4, device="cpu")),
    }
    call = calls[name]
    alone, before, free = call(), settings(), threading.Thread(target=call, daemon=True)
    stops = []  # whoever keeps a traceback keeps no context open
    for at in np.random.default_rng(0).integers(1, interrupted(call, None), 60).tolist():
        try:
            interrupted(call, at)
        except KeyboardInterrupt as stop:
            stops.append(stop)
        assert settings() == before, stops[-1].__traceback__
    assert len(stops) > 50
    np.testing.assert_array_equal(call(), alone)
    free.start()
    free.join(5)
    assert not free.is_alive()  # the lock is free


def test_error_leaves_nothing(one: CAMA, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        raise FloatingPointError

    before = settings()
    monkeypatch.setattr(one.model, "z_dist", fail)
    with pytest.raises(FloatingPointError):
        one.sample(3)
    assert settings() == before


# forks ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_beside_a_call(one: CAMA, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child has neither the lock, which another thread holds, nor that thread's handlers and settings."""
    inside, done = threading.Event(), threading.Event()
    plain = settings()["settings"]

    def wait(*arguments: Any, **options: Any) -> Any:
        with fast(), common_noise(0):
            inside.set()
            done.wait(20)

    monkeypatch.setattr("pyro_cama.cama.elbo", wait)
    holder = threading.Thread(target=one.elbo, args=(ROWS,), daemon=True)
    holder.start()
    assert inside.wait(20)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        found = settings()
        sender.send((found["handlers"], found["settings"] == plain, one.predict_proba(ROWS[:3])))

    process = context.Process(target=child, daemon=True)
    process.start()
    answered = receiver.poll(20)
    process.kill()
    done.set()
    holder.join(20)
    assert answered
    handlers, same, probabilities = receiver.recv()
    assert handlers == []
    assert same
    np.testing.assert_array_equal(probabilities, one.predict_proba(ROWS[:3]))
