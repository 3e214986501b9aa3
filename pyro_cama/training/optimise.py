"""The optimisation, Lightning's: stages of a loss over minibatches, early stopping, best weights kept, checkpoints."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from tqdm.auto import tqdm

from pyro_cama.data.minibatches import Minibatches
from pyro_cama.handlers.threads import exclusive
from pyro_cama.training.checkpoints import LAST, Checkpoints
from pyro_cama.training.stages import History, Stage
from pyro_cama.training.undo import undo_of_weights, undone_on_error


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
        stages: what is minimised, one after the other.
        modules: holds the parameters; its weights are put back to the best.
        parameters: that move.
        minibatches: that an epoch passes over.
        weight_decay: Adam's.
        patience: epochs without a better validation loss that end a stage.
        progress: a bar of its own, none, or the caller's, which is moved on by one an epoch.
        anneal: lets the learning rate fall to zero along a half cosine, in every stage.
        seed: of the noise of every step.
        per_step: minibatches of one Lightning step: small tables would pay more for the step than for what is in it.
            Always 1 with several devices, mixed precision or whatever else Lightning does between gradients and step.
        checkpoints: where to leave them, and whether to go on from one.
        trainer_kwargs: passed to ``lightning.pytorch.Trainer``.

    Raises:
        FloatingPointError: the loss became NaN or infinite.
        KeyboardInterrupt: Ctrl-C.
        ValueError: the checkpoint to go on from is damaged, or of another optimisation.

    Whatever is raised, modules and parameters are as they were before.
    """
    if not any(stage.epochs for stage in stages):
        return History()
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import Checkpoint

    from pyro_cama.training.lightning_checkpoints import PeriodicCheckpoint, SafeCheckpointIO
    from pyro_cama.training.lightning_module import Training, TrainingData

    found = checkpoints.begin() if checkpoints is not None else None
    given = _distributed(dict(trainer_kwargs or {}))
    several = str(given.get("devices", 1)) != "1" or given.get("num_nodes", 1) != 1
    lightnings = {"precision", "strategy", "accumulate_grad_batches", "gradient_clip_val", "plugins"}
    automatic = several or per_step == 1 or any(given.get(key) for key in lightnings)
    given["callbacks"], given["plugins"] = (
        _listed(given.get("callbacks")),
        [*_listed(given.get("plugins")), SafeCheckpointIO()],
    )
    if checkpoints is not None:
        given["callbacks"].append(PeriodicCheckpoint(checkpoints.folder / LAST, checkpoints.seconds))
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
        with undone_on_error(undo_of_weights(modules, parameters)):
            try:
                trainer.fit(task, data, ckpt_path=found, weights_only=True)
            except SystemExit as end:
                if isinstance(end.__context__, KeyboardInterrupt):  # Ctrl-C is the caller's to answer, not Lightning's
                    raise end.__context__ from None
                raise
            finally:
                task.close()
            return task.finish()


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _logger(logger: Any, checkpoints: Checkpoints | None) -> Any:
    """A Lightning logger by its name, writing to a folder beside the checkpoint."""
    if not isinstance(logger, str):
        return logger
    from lightning.pytorch.loggers import TensorBoardLogger

    from pyro_cama.training.lightning_checkpoints import NamingCSVLogger

    known: dict[str, Any] = {"csv": NamingCSVLogger, "tensorboard": TensorBoardLogger}
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
    """Lets ddp find unused parameters: under do(m=0) q(m | x) has no gradients, which it takes for an error."""
    strategy = given.get("strategy", "auto")
    if str(given.get("devices", 1)) != "1" and strategy == "auto":
        strategy = "ddp"
    if strategy in ("ddp", "ddp_spawn", "ddp_fork", "ddp_notebook"):
        given["strategy"] = f"{strategy}_find_unused_parameters_true"
    return given


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Lightning's start-up messages, which speak of hardware and workers."""
    loggers = [
        logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    ]
    with exclusive(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        for part in ("does not have many workers", "log_every_n_steps", "returned `None`", "litlogger", "treespec"):
            warnings.filterwarnings("ignore", message=f".*{part}.*")
        levels = [logger.level for logger in loggers]
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
