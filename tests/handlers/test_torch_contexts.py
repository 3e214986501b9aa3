"""Calls give the same within inference mode, autocast and a default device of torch; short floats are refused."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_cama import CAMA, build, load
from pyro_cama.attacks import AttackableTable, fgsm, pgd
from pyro_cama.image_manipulations import manipulate
from pyro_cama.persistence.export import load as load_exported
from tests.helpers.training import GRAPH, fitted, table

Call = Callable[[], Any]
ROWS = table(20, seed=9)
BY_ROW = {**GRAPH, "latents": {**GRAPH["latents"], "m": {**GRAPH["latents"]["m"], "scope": "row"}}}
SMALL: dict[str, Any] = {"max_epochs": 1, "progress": False}
ADAPT: dict[str, Any] = {"steps": 3, "restarts": 1, "folds": 1, "progress": False}
CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "device": lambda: torch.device("meta"),  # where no tensor has values: none may be made there
    "default_device": lambda: default_device("meta"),
}
SLOW = ("fit", "adapt", "adapt rows")


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def weights(cama: CAMA) -> Any:
    return torch.cat([tensor.detach().flatten() for tensor in cama.modules.state_dict().values()]).numpy()


@pytest.fixture(scope="module")
def one() -> CAMA:
    return fitted()


@pytest.fixture(scope="module")
def two() -> CAMA:
    return build(BY_ROW, seed=5, hidden=8, device="cpu").fit(table(60), interventions=1.0, **SMALL)


@pytest.fixture(scope="module")
def calls(one: CAMA, two: CAMA, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Call]:
    folder = tmp_path_factory.mktemp("models")
    saved, served = one.save(folder / "saved"), one.export(folder / "served")
    exported, adapted = load_exported(served), one.adapt(ROWS, **ADAPT)
    attackable, y = AttackableTable(one, ROWS), torch.tensor(ROWS["y"].tolist())
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return {
        "build": lambda: weights(build(GRAPH, seed=3, hidden=8, device="cpu")),
        "fit": lambda: weights(build(GRAPH, seed=3, hidden=8, device="cpu").fit(table(60), **SMALL)),
        "adapt": lambda: weights(one.adapt(ROWS, **ADAPT)),
        "adapt rows": lambda: weights(two.adapt(ROWS, **ADAPT)),
        "predict": lambda: one.predict_proba(ROWS),
        "predict adapted": lambda: adapted.predict_proba(ROWS),
        "predict refined": lambda: two.predict_proba(ROWS, do=None, refine=2, refine_z=2),
        "score": lambda: one.score(ROWS),
        "elbo": lambda: one.elbo(ROWS).numpy(),
        "encode": lambda: one.encode(ROWS).values["x0"].numpy(),
        "sample": lambda: one.sample(5, seed=1).to_numpy(float),
        "reconstruct": lambda: one.reconstruct(ROWS, samples=2).to_numpy(float),
        "explain": lambda: str(adapted.explain_shift()),
        "copy": lambda: weights(one.copy()),
        "load": lambda: weights(load(saved, device="cpu")),
        "export": lambda: load_exported(served).predict_proba(ROWS),
        "exported": lambda: exported.predict_proba(ROWS),
        "attack": lambda: pgd(attackable.logits, attackable.x, y, eps=0.3, steps=1, starts=2).numpy(),
        "attack in one step": lambda: fgsm(AttackableTable(one, ROWS).logits, attackable.x, y, eps=0.3).numpy(),
        "manipulate": lambda: manipulate(images, "rotation", 20, seed=1).numpy(),
        "noise": lambda: manipulate(images, "gaussian_noise", 0.2, seed=1).numpy(),
    }


def test_a_call_gives_what_it_gives_outside(calls: dict[str, Call]) -> None:
    for name, call in calls.items():
        alone = call()
        for context, entered in CONTEXTS.items():
            if name in SLOW and context not in ("inference_mode", "device"):
                continue
            with entered():
                found = call()
            np.testing.assert_array_equal(found, alone, err_msg=f"{name} within {context}")


def test_contexts_go_on_after_a_call(one: CAMA) -> None:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        one.predict_proba(ROWS)
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_default_device().type == "meta"


def test_what_inference_mode_made_can_be_trained_on() -> None:
    with torch.inference_mode():
        cama = build(GRAPH, seed=3, hidden=8, device="cpu").fit(table(60), **SMALL)
        batch = cama.encode(ROWS)
    assert not any(tensor.is_inference() for tensor in cama.modules.state_dict().values())
    np.testing.assert_array_equal(weights(cama.adapt(batch, **ADAPT)), weights(cama.adapt(ROWS, **ADAPT)))


def test_files_are_not_called_damaged(one: CAMA, tmp_path: Path) -> None:
    folder = one.save(tmp_path / "saved")
    with default_dtype(torch.bfloat16), pytest.raises(ValueError, match=r"default dtype torch\.bfloat16; expected"):
        load(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_are_refused(calls: dict[str, Call], dtype: torch.dtype) -> None:
    for name in ("build", "predict", "adapt", "exported"):
        with default_dtype(dtype), pytest.raises(ValueError, match="set_default_dtype"):
            calls[name]()


def test_longer_floats_by_default_change_no_prediction(calls: dict[str, Call]) -> None:
    for name in ("predict", "predict refined", "elbo", "sample", "reconstruct", "load", "exported", "noise"):
        alone = calls[name]()
        with default_dtype(torch.float64):
            np.testing.assert_array_equal(calls[name](), alone, err_msg=name)
