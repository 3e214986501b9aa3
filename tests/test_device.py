"""The same code on a GPU, where there is one."""

import pytest
import torch

import pyro_cama
from pyro_cama import datasets
from support.drift import Drift, load_table, split

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: torch.cuda.is_available() is False")


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
