"""The same code on a GPU, where there is one."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import pyro_cama
from pyro_cama import datasets
from pyro_cama.adaptation import wake_sleep
from pyro_cama.adaptation.objective import adaptation_loss, log_train
from pyro_cama.data.batch import Batch
from pyro_cama.inference.class_posterior import class_log_posterior
from pyro_cama.inference.evidence import importance_evidence
from pyro_cama.inference.options import PredictionOptions
from pyro_cama.training.objective import fit_loss
from pyro_cama.training.simulated_interventions import scales_of
from support import image_data
from support.drift import Drift, load_table, split
from tests.helpers.fake_gpu import fake_gpu
from tests.helpers.gpu import DEVICES, needs_gpu


def test_auto_takes_the_gpu_where_there_is_one() -> None:
    cama = pyro_cama.build(datasets.graph("wine"))
    assert cama.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert {p.device.type for p in cama.modules.parameters()} == {cama.device.type}


@needs_gpu
def test_fit_predict_adapt_save_on_gpu(tmp_path) -> None:
    frame, target = load_table("wine")
    train, test = split(frame, target, 0)
    cama = pyro_cama.build(datasets.graph("wine"), device="cuda").fit(train, max_epochs=60, progress=False)
    assert cama.score(test) > 0.85
    moved, _ = Drift(2.0, 1.0).apply(test, train, [c for c in train if c != target], 0)
    adapted = cama.adapt(moved.drop(columns=target), progress=False)
    assert adapted.score(moved) > cama.score(moved)
    adapted.save(tmp_path / "model")
    on_cpu = pyro_cama.load(tmp_path / "model", device="cpu")
    assert abs(on_cpu.predict_proba(moved) - adapted.predict_proba(moved)).max() < 1e-3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scope", ["row", "dataset"])
def test_images_are_trained_read_adapted_to_and_followed(scope: str, device: str, tmp_path) -> None:
    raw: dict[str, Any] = datasets.graph("mnist").to_dict()
    raw["nodes"]["image"] |= {"shape": [1, 8, 8], "channels": 4}
    raw["latents"]["m"] |= {"scope": scope, "mechanism": "warp+intensity"}
    images = image_data.digits()
    train = {"image": images.train_x[:100].numpy(), "digit": images.train_y[:100].tolist()}
    held, moved = images.test_x[:40].numpy(), 1 - 0.8 * images.test_x[40:80].numpy()
    cama = pyro_cama.build(raw, hidden=16, device=device)
    cama.fit(train, interventions=1.0 if scope == "row" else None, max_epochs=1, progress=False)
    adapted = cama.adapt({"image": moved}, steps=2, keep="always", progress=False)
    assert adapted.device.type == device
    proba = adapted.predict_proba({"image": moved}, samples=2, m_samples=1)
    assert np.isfinite(proba).all()
    adapted.save(tmp_path / "model")
    on_cpu = pyro_cama.load(tmp_path / "model", device="cpu")
    assert abs(on_cpu.predict_proba({"image": moved}, samples=2, m_samples=1) - proba).max() < 1e-2
    assert len(adapted.reconstruct({"image": moved[:5]}, samples=2)["image"]) == 5
    options: dict[str, Any] = {"least": 40, "predict": {"samples": 2, "m_samples": 1}, "steps": 2, "restarts": 1}
    monitor = cama.monitor({"image": held}, state=tmp_path / "state", **options)
    assert [monitor.update({"image": rows}).number for rows in (moved, held)] == [1, 2]
    assert cama.monitor(state=tmp_path / "state", **options).steps == 2


@cache
def small(scope: str) -> tuple[pyro_cama.CAMA, dict[str, Any]]:
    """A fitted model of images, and rows."""
    raw: dict[str, Any] = datasets.graph("mnist").to_dict()
    raw["nodes"]["image"] |= {"shape": [1, 8, 8], "channels": 4}
    raw["latents"]["m"] |= {"scope": scope, "mechanism": "warp+intensity"}
    images = image_data.digits()
    rows = {"image": images.train_x[:40].numpy(), "digit": images.train_y[:40].tolist()}
    return pyro_cama.build(raw, hidden=16, device="cpu").fit(rows, max_epochs=0, progress=False), rows


LOSSES: dict[str, Callable[[pyro_cama.CAMA, Batch], Any]] = {
    "eq. 5": lambda cama, rows: fit_loss(
        cama.model, cama.guide, rows, mixing=0.5, interventions=None, conditional_weight=1.0, samples=2
    )(rows),
    "eq. 5, simulated": lambda cama, rows: (
        fit_loss(
            cama.model,
            cama.guide,
            rows,
            mixing=0.5,
            interventions=scales_of(cama, 1.0),
            conditional_weight=1.0,
            samples=2,
        )(rows)
        if cama.graph.require_m().per_row
        else None
    ),
    "eq. 8": lambda cama, rows: adaptation_loss(cama, rows, rows, 0.5, 2, 1.0, log_train(cama), log_train(cama))(rows),
    "asleep": lambda cama, rows: wake_sleep._loss(cama)(rows) if cama.graph.require_m().per_row else None,
    "p(y | x)": lambda cama, rows: class_log_posterior(cama, rows, None, PredictionOptions(2, 2)),
    "log p(x)": lambda cama, rows: importance_evidence(cama, rows, log_train(cama), do=None, samples=2),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scope", ["row", "dataset"])
def test_nothing_is_left_on_the_cpu(scope: str, loss: str) -> None:
    cama, table = small(scope)
    with fake_gpu(cama, cama.encode(table)) as (there, rows):
        LOSSES[loss](there, rows)
