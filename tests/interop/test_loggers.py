"""A fit's course in MLflow and Weights & Biases, by Lightning's loggers, without a network."""

from pathlib import Path
from typing import Any

import pytest

import pyro_cama
from pyro_cama import CAMA, datasets

pytestmark = pytest.mark.filterwarnings("ignore")


def fitted(logger: Any) -> CAMA:
    cama = pyro_cama.build(datasets.graph("wine"), hidden=8, device="cpu")
    table = datasets.load("wine")
    return cama.fit(table, max_epochs=3, batch_size=64, progress=False, trainer_kwargs={"logger": logger})


def test_mlflow_holds_every_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    from lightning.pytorch.loggers import MLFlowLogger

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs more packages
    logger = MLFlowLogger("cama", tracking_uri=(tmp_path / "runs").as_uri())
    cama = fitted(logger)
    assert cama.history is not None
    client = mlflow.MlflowClient((tmp_path / "runs").as_uri())
    for name in ("loss", "validation_loss", "validation_accuracy"):
        found = sorted(client.get_metric_history(logger.run_id, name), key=lambda one: one.step)
        assert [one.value for one in found] == pytest.approx([row[name] for row in cama.history.rows], rel=1e-5)
    assert client.get_run(logger.run_id).info.status == "FINISHED"


def test_wandb_holds_the_last_epoch_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    from lightning.pytorch.loggers import WandbLogger

    for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true"), ("WANDB_CONSOLE", "off")):
        monkeypatch.setenv(name, value)
    logger = WandbLogger(project="cama", offline=True, save_dir=tmp_path)
    cama = fitted(logger)
    assert cama.history is not None
    last = dict(logger.experiment.summary)
    wandb.finish()
    for name in ("loss", "validation_loss", "validation_accuracy"):
        assert last[name] == pytest.approx(cama.history.rows[-1][name], rel=1e-5)
    assert [*(tmp_path / "wandb").glob("offline-run-*/run-*.wandb")]
