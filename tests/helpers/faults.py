"""What may go wrong while a model is trained or written: a disk that fills up, Ctrl-C, a loss that diverges."""

import builtins
import errno
import io
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from pyro_cama import CAMA, _files


class Disk:
    """Counts the steps of writing below a folder.

    Attributes:
        steps: files opened to be written, flushed or moved, and folders made.
        full_at: the step that fails, counted from 1; None for none.
        kills: a step that fails ends the process, as kill -9 does.
    """

    def __init__(self, folder: Path, full_at: int | None, kills: bool) -> None:
        self.folder, self.full_at, self.kills, self.steps = folder, full_at, kills, 0

    def step(self, path: Any) -> bool:
        """Counts a step; says whether the disk is full."""
        if isinstance(path, str | os.PathLike) and Path(os.fsdecode(path)).is_relative_to(self.folder):
            self.steps += 1
            return self.steps == self.full_at
        return False

    def fail(self, *names: Any) -> None:
        """Raises what a full disk does, or ends the process."""
        if self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *names)


@contextmanager
def disk(folder: Path, full_at: int | None = None, *, kills: bool = False) -> Iterator[Disk]:
    """Counts the steps of writing below a folder; one of them may fail, a file half written."""
    found = Disk(folder, full_at, kills)
    true_open, true_replace, true_mkdir, true_fsync = io.open, os.replace, os.mkdir, os.fsync
    true_exchange = _files.exchange

    def opens(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if set(mode) & set("wax+") and found.step(file):
            if "w" in mode:
                with true_open(file, "wb") as half:
                    half.write(b"{ half")
            found.fail()  # as of write(2), it names no file
        return true_open(file, mode, *args, **options)

    def replaces(source: Any, target: Any) -> None:
        if found.step(target):
            found.fail(str(source), None, str(target))
        true_replace(source, target)

    def exchanges(one: Any, two: Any) -> bool:
        if found.step(two):
            found.fail(str(one), None, str(two))
        return true_exchange(one, two)

    def makes(path: Any, *args: Any, **options: Any) -> None:
        if not Path(path).exists() and found.step(path):
            found.fail(str(path))
        true_mkdir(path, *args, **options)

    def flushes(number: int) -> None:
        if found.step(os.readlink(f"/proc/self/fd/{number}")):
            found.fail()
        true_fsync(number)

    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in (
            (io, "open", opens), (builtins, "open", opens), (os, "replace", replaces), (os, "mkdir", makes),
            (os, "fsync", flushes), (_files, "exchange", exchanges),
        ):  # fmt: skip
            patch.setattr(module, name, value)
        yield found


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Lets the system refuse to write a file beyond so many bytes, whatever language it is written from."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # Python ignores the signal that goes with it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def everything(folder: Path) -> dict[str, bytes | None]:
    """What is in a folder, hidden files and folders too."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


# while training -----------------------------------------------------------------------------------------------------


class At(Callback):
    """Does something before the first minibatches of an epoch of a stage with this title."""

    def __init__(self, epoch: int, action: Callable[[Any], object], title: str = "fit") -> None:
        self.epoch, self.action, self.title = epoch, action, title

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        if trainer.current_epoch == self.epoch and index == 0 and module.stage.title == self.title:
            self.action(module)


def ctrl_c(_: Any = None) -> None:
    """What a terminal sends."""
    os.kill(os.getpid(), signal.SIGINT)


def diverge(module: Any) -> None:
    """The weights after a step that was too long."""
    with torch.no_grad():
        for parameter in module.moving:
            parameter.fill_(float("nan"))


def as_it_is(cama: CAMA) -> list[Any]:
    """All that training may change about a model."""
    tensors = [value.clone() for value in cama.modules.state_dict().values()]
    flags = [(p.requires_grad, p.grad is None) for p in cama.modules.parameters()]
    return [
        cama.model,
        cama.guide,
        cama.encoder,
        cama.trained,
        cama.history,
        cama.adaptation,
        repr(cama),
        flags,
        tensors,
    ]


def unchanged(cama: CAMA, before: list[Any]) -> bool:
    """Whether a model is what :func:`as_it_is` found."""
    now = as_it_is(cama)
    same = all(a is b for a, b in zip(now[:3], before[:3], strict=True)) and now[3:-1] == before[3:-1]
    return same and all(torch.equal(a, b) for a, b in zip(now[-1], before[-1], strict=True))
