"""The optimisation, Lightning's: stages of a loss over minibatches, early stopping, best weights kept, checkpoints."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyro
from torch import Tensor, nn
from tqdm.auto import tqdm

from pyro_cama.files import replacing
from pyro_cama.minibatches import Minibatches

Loss = Callable[[Any], Tensor]
LAST = "last.ckpt"


@dataclass
class History:
    """What one optimisation did.

    Attributes:
        rows: one dict an epoch: ``epoch``, ``loss`` and what validation reported.
        best_epoch: whose weights were kept.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0


@dataclass(frozen=True)
class Stage:
    """A part of an optimisation with a loss of its own; it begins with the best weights of the stage before.

    Attributes:
        loss: from a minibatch to a scalar.
        epochs: at most so many.
        validate: returns figures of which ``loss`` is watched (lower is better); None keeps the last weights.
    """

    loss: Loss
    epochs: int
    lr: float
    validate: Callable[[], dict[str, float]] | None = None
    title: str = "fit"


@dataclass(frozen=True)
class Checkpoints:
    """Where an optimisation leaves what it needs to go on after it was killed.

    Attributes:
        folder: holds ``last.ckpt``, written every ``seconds`` and at the end, and what loggers write.
        about: what has to be the same when it goes on, by name.
        resume: go on from ``last.ckpt`` if it is there; otherwise it must not be there.
    """

    folder: Path
    about: Mapping[str, Any]
    resume: bool = False
    seconds: float = 30.0

    def begin(self) -> Path | None:
        """The checkpoint to go on from, if any; else makes the folder.

        Raises:
            FileExistsError: there is a checkpoint, and ``resume`` was not asked for.
            ValueError: the checkpoint is of another optimisation; names what differs.
        """
        last, about = self.folder / LAST, self.folder / "about.json"
        mine = json.loads(json.dumps(dict(self.about), default=str))
        if last.exists():
            if not self.resume:
                raise FileExistsError(
                    f"{last} is there already; pass resume=True to go on from it, or choose another folder"
                )
            theirs = json.loads(about.read_text(encoding="utf-8")) if about.exists() else {}
            different = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
            if different:
                found = "; ".join(f"{key} was {theirs.get(key)!r}, is {mine.get(key)!r}" for key in different)
                raise ValueError(f"{last} is of another fit: {found}; repeat that one, or delete the folder")
            return last
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(about) as path:
            path.write_text(json.dumps(mine, indent=1), encoding="utf-8")
        return None


def optimise(
    stages: Sequence[Stage],
    modules: nn.Module,
    parameters: Sequence[Tensor],
    minibatches: Minibatches,
    *,
    weight_decay: float = 0.0,
    patience: int = 30,
    anneal: bool = False,
    seed: int = 0,
    progress: bool | tqdm[Any] = True,
    per_step: int = 64,
    checkpoints: Checkpoints | None = None,
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> History:
    """Minimises the stages' losses over ``parameters`` with Adam, and keeps the best validated weights.

    Args:
        modules: holds the parameters; its weights are put back to the best.
        progress: a bar of its own, none, or the caller's, which is moved on by one an epoch.
        anneal: lets the learning rate fall to zero along a half cosine, in every stage.
        per_step: minibatches of one Lightning step: small tables would pay more for the step than for what is in it.
            Always 1 with several devices, mixed precision or whatever else Lightning does between gradients and step.
        trainer_kwargs: passed to ``lightning.pytorch.Trainer``.

    Raises:
        FloatingPointError: the loss became NaN or infinite; the best weights so far are put back first.
    """
    if not any(stage.epochs for stage in stages):
        return History()
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import Checkpoint

    from pyro_cama.lightning_module import Keep, SafeIO, Training, TrainingData

    found = checkpoints.begin() if checkpoints is not None else None
    given = _distributed(dict(trainer_kwargs or {}))
    several = str(given.get("devices", 1)) != "1" or given.get("num_nodes", 1) != 1
    lightnings = {"precision", "strategy", "accumulate_grad_batches", "gradient_clip_val", "plugins"}
    automatic = several or per_step == 1 or any(given.get(key) for key in lightnings)
    given["callbacks"], given["plugins"] = _listed(given.get("callbacks")), [*_listed(given.get("plugins")), SafeIO()]
    if checkpoints is not None:
        given["callbacks"].append(Keep(checkpoints.folder / LAST, checkpoints.seconds))
    given["logger"] = _logger(given.get("logger", "csv" if checkpoints else False), checkpoints)
    task = Training(
        stages, modules, parameters, weight_decay=weight_decay, patience=patience, anneal=anneal, seed=seed,
        progress=progress, automatic=automatic,
    )  # fmt: skip
    with quiet():
        trainer = Trainer(
            **{
                "max_epochs": task.epochs,
                "accelerator": "cpu" if next(modules.parameters()).device.type == "cpu" else "auto",
                "devices": 1,
                "enable_checkpointing": any(isinstance(c, Checkpoint) for c in given["callbacks"]),
                "enable_model_summary": False,
                "enable_progress_bar": False,
                "num_sanity_val_steps": 0,
                **given,
            }
        )
        data = TrainingData(minibatches, 1 if automatic else per_step)
        try:
            trainer.fit(task, data, ckpt_path=found, weights_only=True)
        finally:
            task.close()
    return task.finish()


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _logger(logger: Any, checkpoints: Checkpoints | None) -> Any:
    """A Lightning logger by its name, writing to a folder beside the checkpoint."""
    if not isinstance(logger, str):
        return logger
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    known: dict[str, Any] = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
    if logger not in known:
        raise ValueError(
            f"trainer_kwargs: found logger {logger!r}; expected 'csv', 'tensorboard' or a Lightning logger"
        )
    folder = checkpoints.folder if checkpoints is not None else Path.cwd()
    try:
        return known[logger](folder, name="logs")
    except ModuleNotFoundError as error:
        raise ImportError("logger 'tensorboard' needs tensorboard: pip install 'pyro_cama[tensorboard]'") from error


def _distributed(given: dict[str, Any]) -> dict[str, Any]:
    """Under do(m=0) q(m | x) has no gradients, which plain ddp takes for an error."""
    strategy = given.get("strategy", "auto")
    if str(given.get("devices", 1)) != "1" and strategy == "auto":
        strategy = "ddp"
    if strategy in ("ddp", "ddp_spawn", "ddp_fork", "ddp_notebook"):
        given["strategy"] = f"{strategy}_find_unused_parameters_true"
    return given


@contextmanager
def fast() -> Iterator[None]:
    """Pyro without its parameter store and validation: what no caller of ours reads."""
    with pyro.settings.context(module_local_params=True), pyro.validation_enabled(False):
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning's start-up messages, which speak of hardware and workers, are not our user's concern."""
    loggers = [
        logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            for part in ("does not have many workers", "log_every_n_steps", "returned `None`", "litlogger", "treespec"):
                warnings.filterwarnings("ignore", message=f".*{part}.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
