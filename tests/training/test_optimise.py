"""The optimisation that Lightning runs: stages, checkpoints, options of the Trainer, several processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping
from sklearn.datasets import load_digits
from torch import Tensor, nn

from pyro_cama import build
from pyro_cama.data.minibatches import Shuffled, row_selector
from pyro_cama.training.checkpoints import Checkpoints
from pyro_cama.training.optimise import optimise, quiet
from pyro_cama.training.stages import History, Stage
from tests.helpers.paths import ROOT
from tests.helpers.training import GRAPH, Kill, Killed, fitted, same, table

IMAGE: dict[str, Any] = {
    "target": "y",
    "nodes": {
        "y": {"type": "categorical", "levels": ["a", "b"]},
        "x": {"type": "image", "shape": [1, 8, 8], "channels": 2},
    },
    "edges": ["y -> x"],
    "latents": {"z": {"dim": 2, "children": ["x"], "effect": "deep"}},
}


def images(rows: int = 60) -> dict[str, Any]:
    x, y = load_digits(n_class=2, return_X_y=True)
    return {"x": (x[:rows] / 16).reshape(-1, 1, 8, 8).astype("float32"), "y": np.array(["a", "b"])[y[:rows]]}


# minibatches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "batch_size", "steps"), [(7, 3, None), (7, 20, None), (7, 3, 9), (7, 3, 1), (5, 9, 4)]
)
def test_an_epoch_is_a_function_of_seed_and_epoch(rows: int, batch_size: int, steps: int | None) -> None:
    source = Shuffled(rows, lambda index: index, batch_size, seed=1, steps=steps)
    first = [part.tolist() for part in source.epoch(0)]
    assert len(first) == len(source)
    assert first == [part.tolist() for part in source.epoch(0)]
    assert first != [part.tolist() for part in source.epoch(1)]
    assert first != [part.tolist() for part in Shuffled(rows, lambda i: i, batch_size, seed=2, steps=steps).epoch(0)]
    counts = np.bincount(np.concatenate(first), minlength=rows)
    assert counts.max() - counts.min() <= 1  # pass after pass
    if steps is None:
        assert counts.tolist() == [1] * rows


def test_processes_share_the_rows_of_every_minibatch() -> None:
    source = Shuffled(11, lambda index: index, batch_size=5)
    whole = list(source.epoch(2))
    parts = [list(source.epoch(2, rank, 2)) for rank in range(2)]
    for everything, one, two in zip(whole[:-1], *[part[:-1] for part in parts], strict=True):
        assert sorted([*one.tolist(), *two.tolist()]) == sorted(everything.tolist())
    assert [part[-1].tolist() for part in parts] == [whole[-1].tolist()] * 2  # a single row is everybody's


def test_all_rows_are_the_batch_itself() -> None:
    cama = fitted(max_epochs=0)
    batch = cama.encode(table(6))
    assert row_selector(batch)(torch.randperm(6)) is batch
    assert row_selector(batch)(torch.tensor([4, 1])).values["x0"].tolist() == batch.values["x0"][[4, 1]].tolist()


# stages -------------------------------------------------------------------------------------------------------------


def quadratic(at: float) -> tuple[nn.Linear, Any]:
    module = nn.Linear(1, 1, bias=False)
    return module, lambda rows: (module.weight - at).square().sum() + 0.0 * rows.sum()


def numbers(steps: int = 20) -> Shuffled:
    return Shuffled(4, lambda index: index, 4, steps=steps)


def test_stages_follow_each_other() -> None:
    module, loss = quadratic(1.0)
    seen: list[float] = []

    def towards_three(rows: Tensor) -> Tensor:
        seen.append(float(module.weight.detach()))
        return (module.weight - 3.0).square().sum()

    history = optimise(
        [Stage(loss, 20, 0.1), Stage(towards_three, 30, 0.1)], module, [*module.parameters()], numbers(), progress=False
    )
    assert seen[0] == pytest.approx(1.0, abs=1e-3)
    assert float(module.weight.detach()) == pytest.approx(3.0, abs=1e-3)
    assert [row["epoch"] for row in history.rows] == list(range(1, 51))
    assert history.best_epoch == history.epochs == 50


def test_a_stage_that_stops_early_makes_room_for_the_next() -> None:
    module, loss = quadratic(1.0)
    values = iter([3.0, 1.0, 2.0, 2.0, *[5.0, 4.0, 9.0, 9.0]])
    kept: list[float] = []

    def validate() -> dict[str, float]:
        kept.append(float(module.weight.detach()))
        return {"loss": next(values)}

    stages = [Stage(loss, 10, 0.01, validate, "one"), Stage(loss, 10, 0.01, validate, "two")]
    history = optimise(stages, module, [*module.parameters()], numbers(2), patience=2, progress=False)
    assert [row["validation_loss"] for row in history.rows] == [3.0, 1.0, 2.0, 2.0, 5.0, 4.0, 9.0, 9.0]
    assert history.best_epoch == 6
    assert float(module.weight.detach()) == kept[5]  # the best of the second stage, not the last


def test_no_epochs_change_nothing() -> None:
    module, loss = quadratic(1.0)
    before = module.weight.detach().clone()
    assert optimise([Stage(loss, 0, 0.1)], module, [*module.parameters()], numbers(), progress=False) == History()
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("per_step", [1, 64])
def test_a_loss_that_is_not_finite_is_told_and_the_weights_are_as_before(per_step: int) -> None:
    module, loss = quadratic(1.0)
    before, seen = module.weight.detach().clone(), list[Tensor]()

    def validate() -> dict[str, float]:
        seen.append(module.weight.detach().clone())
        return {"loss": 0.0}

    def breaks(rows: Tensor) -> Tensor:
        return loss(rows) * (float("nan") if len(seen) == 2 else 1.0)

    with pytest.raises(
        FloatingPointError, match=re.escape("fit: the loss became nan in epoch 3; try a smaller lr (now 0.1)")
    ):
        optimise(
            [Stage(breaks, 5, 0.1, validate)], module, [*module.parameters()], numbers(3), progress=False,
            per_step=per_step,
        )  # fmt: skip
    assert not torch.equal(seen[0], before)
    assert torch.equal(module.weight, before)


def test_annealing_ends_near_zero() -> None:
    module, loss = quadratic(1.0)
    rates: list[float] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    optimise(
        [Stage(loss, 4, 0.1)], module, [*module.parameters()], numbers(1), anneal=True, progress=False,
        trainer_kwargs={"callbacks": Watch()},
    )  # fmt: skip
    assert rates == pytest.approx([0.1 * 0.5 * (1 + np.cos(np.pi * e / 4)) for e in range(4)])


@pytest.mark.parametrize(
    ("kind", "epoch", "block"),
    [("blocks", 0, 0), ("blocks", 2, 0), ("steps", 1, 0), ("steps", 2, 3), ("images", 1, 1), ("images", 2, 1)],
)
def test_a_fit_that_was_stopped_ends_in_the_same_weights(kind: str, epoch: int, block: int, tmp_path: Path) -> None:
    case: dict[str, Any] = {"graph": IMAGE, "data": images(), "batch_size": 16} if kind == "images" else {}
    more = {"gradient_clip_val": 100.0} if kind == "steps" else {}  # one minibatch a step
    whole = fitted(**case, trainer_kwargs=more)
    kept: dict[str, Any] = {"checkpoints": tmp_path / "run", **case}
    with pytest.raises(Killed):
        fitted(**kept, checkpoint_seconds=0, trainer_kwargs={"callbacks": [Kill(epoch, block)], **more})
    assert (tmp_path / "run" / "last.ckpt").exists() == (epoch + block > 0)
    again = fitted(**kept, resume=True, trainer_kwargs=more)
    assert same(whole, again)
    assert whole.history == again.history
    assert whole.history is not None
    assert len(whole.history.rows) == 4
    assert same(whole, fitted(**kept, resume=True, trainer_kwargs=more))  # nothing is left to do


def test_a_fit_that_stopped_early_does_not_go_on(tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_epochs": 60, "lr": 0.03, "patience": 2, "checkpoints": tmp_path / "run"}
    whole = fitted(**options)
    assert whole.history is not None
    assert len(whole.history.rows) < 60
    again = fitted(**options, resume=True)
    assert whole.history == again.history
    assert same(whole, again)


def test_a_checkpoint_of_another_fit_is_refused(tmp_path: Path) -> None:
    kept: dict[str, Any] = {"checkpoints": tmp_path / "run"}
    fitted(**kept)
    with pytest.raises(FileExistsError, match="pass resume=True"):
        fitted(**kept)
    with pytest.raises(ValueError, match=r"of another fit: batch_size was 64, is 32; lr was 0\.001, is 0\.01;"):
        fitted(**kept, resume=True, batch_size=32, lr=0.01)
    with pytest.raises(ValueError, match="rows was 300, is 299; data was"):
        fitted(**kept, resume=True, data=table()[:-1])
    with pytest.raises(ValueError, match="expected checkpoints="):
        fitted(resume=True)


class Payload:
    """Pickled code that leaves a trace when it is run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


def test_a_checkpoint_is_read_without_running_anything(tmp_path: Path) -> None:
    kept: dict[str, Any] = {"checkpoints": tmp_path / "run"}
    fitted(**kept)
    path, trace = tmp_path / "run" / "last.ckpt", tmp_path / "trace"
    held = torch.load(path, weights_only=True)
    torch.save(held | {"hyper_parameters": Payload(trace)}, path)
    with pytest.raises(ValueError, match=re.escape(f"{path} is damaged (Weights only load failed")):
        fitted(**kept, resume=True)
    assert not trace.exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lose(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


@pytest.mark.parametrize(
    ("file", "harm", "says"),
    [
        ("last.ckpt", cut, "File is not a zip file"),
        ("last.ckpt", flip, "bad checksum of"),
        ("last.ckpt", lambda path: path.write_bytes(b""), "File is not a zip file"),
        ("last.ckpt", lose, "lacks optimizer_states, loops, callbacks, epoch, global_step"),
        ("last.ckpt", lambda path: torch.save([1], path), "lacks state_dict, "),
        ("about.json", lambda path: path.write_text('{"lr": 0.1'), "Expecting ',' delimiter"),
        ("about.json", lambda path: path.write_bytes(b"\xff"), "'utf-8' codec can't decode"),
        ("about.json", lambda path: path.write_text("[]"), "found a list, expected an object"),
        ("about.json", Path.unlink, "no such file"),
    ],
)
def test_a_damaged_checkpoint_is_named(file: str, harm: Any, says: str, tmp_path: Path) -> None:
    kept: dict[str, Any] = {"checkpoints": tmp_path / "run", "max_epochs": 1, "conditional_weight": 0.0}
    fitted(**kept)
    path = tmp_path / "run" / file
    harm(path)
    with pytest.raises(ValueError, match=re.escape(f"{path} is damaged ({says}")) as caught:
        fitted(**kept, resume=True)
    assert f"delete {path.parent} and begin that fit anew" in str(caught.value)


SCRIPT = """
import sys
sys.path[:0] = {path!r}
import torch
from tests.helpers.training import fitted, table
cama = fitted(data=table(2000), max_epochs=25, checkpoints=sys.argv[1] or None, resume=True if sys.argv[1] else False,
              checkpoint_seconds=0)
torch.save(cama.modules.state_dict(), sys.argv[2])
"""


def test_kill_minus_9(tmp_path: Path) -> None:
    script = tmp_path / "fit.py"
    script.write_text(SCRIPT.format(path=[str(ROOT)]))

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(script), str(tmp_path / "run"), str(tmp_path / "weights")])

    process, last = start(), tmp_path / "run" / "last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "weights").exists()
    epochs = torch.load(last, weights_only=True)["epoch"]
    assert 0 <= epochs < 24
    assert start().wait() == 0
    whole = fitted(data=table(2000), max_epochs=25).modules.state_dict()
    found = torch.load(tmp_path / "weights", weights_only=True)
    assert whole.keys() == found.keys()
    assert all(torch.equal(whole[name], found[name]) for name in whole)


# what Lightning adds ------------------------------------------------------------------------------------------------


def test_what_an_epoch_found_is_logged(tmp_path: Path) -> None:
    cama = fitted(checkpoints=tmp_path / "run")
    logged = pd.read_csv(tmp_path / "run" / "logs" / "version_0" / "metrics.csv")
    assert cama.history is not None
    for name in ("loss", "validation_loss", "validation_accuracy"):
        np.testing.assert_allclose(logged[name], [row[name] for row in cama.history.rows], rtol=1e-6)


def test_a_logger_that_is_unknown_or_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="found logger 'wandb'; expected 'csv', 'tensorboard'"):
        fitted(trainer_kwargs={"logger": "wandb"})

    def missing(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("tensorboard")

    monkeypatch.setattr("lightning.pytorch.loggers.TensorBoardLogger", missing)
    with pytest.raises(ImportError, match=re.escape("pip install 'pyro_cama[tensorboard]'")):
        fitted(trainer_kwargs={"logger": "tensorboard"}, checkpoints=tmp_path / "run")


def test_validation_accuracy_is_that_of_the_rows_held_out() -> None:
    cama = fitted(max_epochs=25, lr=3e-3)
    assert cama.history is not None
    assert cama.history.rows[-1]["validation_accuracy"] == pytest.approx(cama.score(table(400, seed=1)), abs=0.1)


def test_gradients_are_clipped_as_asked() -> None:
    norms: list[float] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
            grads = [p.grad.norm() for p in module.parameters() if p.grad is not None]
            norms.append(float(torch.stack(grads).norm()))

    fitted(max_epochs=1, trainer_kwargs={"gradient_clip_val": 0.01, "callbacks": [Watch()]})
    assert norms == pytest.approx([0.01] * len(norms), rel=1e-3)
    norms.clear()
    fitted(max_epochs=1, trainer_kwargs={"gradient_clip_val": 100.0, "callbacks": [Watch()]})
    assert max(norms) > 1.0


def test_mixed_precision_ends_near_full_precision() -> None:
    full, mixed = (
        fitted(max_epochs=25, lr=3e-3, **more) for more in ({}, {"trainer_kwargs": {"precision": "bf16-mixed"}})
    )
    assert full.history is not None
    assert mixed.history is not None
    assert not same(full, mixed)
    assert mixed.modules.state_dict().keys() == full.modules.state_dict().keys()
    assert {p.dtype for p in mixed.modules.parameters()} == {torch.float32}
    assert mixed.score(table(400, seed=1)) == pytest.approx(full.score(table(400, seed=1)), abs=0.04)


def test_a_trainer_of_ones_own() -> None:
    whole = fitted(trainer_kwargs={"gradient_clip_val": 100.0})
    cama = build(GRAPH, seed=3, hidden=16, device="cpu")
    module, data = cama.lightning(table(), max_epochs=4, progress=False)
    silent: dict[str, Any] = dict.fromkeys(
        ["logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar"], False
    )
    with quiet():
        trainer = Trainer(max_epochs=module.epochs, accelerator="cpu", gradient_clip_val=100.0, **silent)
        trainer.fit(module, data)
    assert trainer.callback_metrics["validation_accuracy"] > 0.5
    assert cama.history is None
    assert module.finish() == whole.history == cama.history
    assert same(whole, cama)


def test_early_stopping_of_lightning_s_own() -> None:
    stop = EarlyStopping("validation_loss", patience=1, min_delta=1e9, check_on_train_epoch_end=True)
    cama = fitted(max_epochs=20, trainer_kwargs={"callbacks": [stop]})
    assert cama.history is not None
    assert len(cama.history.rows) == 2


def test_a_trainer_s_own_complaint_is_passed_on() -> None:
    with pytest.raises(TypeError, match="no_such_option"):
        fitted(trainer_kwargs={"no_such_option": 1})


def test_checkpoints_tell_what_they_are_of(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    assert Checkpoints(folder, {"lr": 0.1, "graph": Path("a")}).begin() is None
    assert json.loads((folder / "about.json").read_text()) == {"lr": 0.1, "graph": "a"}
    assert Checkpoints(folder, {"lr": 0.2}, resume=True).begin() is None  # nothing to go on from


# several processes --------------------------------------------------------------------------------------------------

PROCESSES = """
import json, os, sys
sys.path[:0] = {path!r}
from tests.helpers.training import COLUMNS, fitted, table
from pyro_cama.training.fit import Rows
import pyro_cama.data.minibatches as minibatches
seen = []
plain = minibatches.Shuffled.epoch
def counted(self, epoch, rank=0, world=1):
    for part in plain(self, epoch, rank, world):
        seen.append(part.rows)
        yield part
minibatches.Shuffled.epoch = counted
devices = int(sys.argv[1])
kwargs = {{"accelerator": "cpu", "devices": devices}}
cama = fitted(data=table(1000), max_epochs=6, trainer_kwargs=kwargs)
rows = sum(seen[: 6 * 14])
new = table(300, seed=1)
new["x0"] = 3.0 + 2.0 * new["x0"]
adapted = cama.adapt(new, steps=40, restarts=1, folds=2, progress=False, trainer_kwargs=kwargs)
found = {{
    "rank": int(os.environ.get("LOCAL_RANK", 0)),
    "rows": rows,
    "validation": [row["validation_loss"] for row in cama.history.rows],
    "weights": float(sum(p.detach().double().abs().sum() for p in adapted.modules.parameters())),
    "scores": [cama.score(new), adapted.score(new)],
}}
open(sys.argv[2] + str(found["rank"]), "w").write(json.dumps(found))
"""


def test_two_processes_train_and_adapt_to_what_one_does(tmp_path: Path) -> None:
    script = tmp_path / "fit.py"
    script.write_text(PROCESSES.format(path=[str(ROOT)]))

    def results(devices: int) -> list[dict[str, Any]]:
        out = tmp_path / f"of{devices}_"
        subprocess.run([sys.executable, str(script), str(devices), str(out)], check=True, timeout=300, cwd=tmp_path)
        return [json.loads(Path(f"{out}{rank}").read_text()) for rank in range(devices)]

    (alone,) = results(1)
    one, two = results(2)
    assert (one["rank"], two["rank"]) == (0, 1)
    assert alone["rows"] == one["rows"] + two["rows"] == 6 * 850  # each saw half of the rows
    assert abs(one["rows"] - two["rows"]) <= 6
    for key in ("validation", "weights", "scores"):
        assert one[key] == two[key]  # in step
    np.testing.assert_allclose(one["validation"], alone["validation"], rtol=0.03)
    assert one["scores"][1] > one["scores"][0] + 0.05
    assert one["scores"][1] == pytest.approx(alone["scores"][1], abs=0.04)
