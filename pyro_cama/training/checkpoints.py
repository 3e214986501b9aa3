"""Where a fit keeps what it needs to go on after it was killed, and the check that it is the same fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_cama._files import replacing

LAST = "last.ckpt"


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
        """Returns the checkpoint to go on from, if any; else makes the folder.

        Raises:
            FileExistsError: there is a checkpoint, and ``resume`` was not asked for.
            ValueError: the checkpoint is of another optimisation; names what differs.  Or a file is damaged.
            OSError: the folder cannot be written to; names the file.
        """
        last, about = self.folder / LAST, self.folder / "about.json"
        mine = json.loads(json.dumps(dict(self.about), default=str))
        if last.exists():
            if not self.resume:
                raise FileExistsError(
                    f"{last} is there already; pass resume=True to go on from it, or choose another folder"
                )
            theirs = _read(about)
            different = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
            if different:
                found = "; ".join(f"{key} was {theirs.get(key)!r}, is {mine.get(key)!r}" for key in different)
                raise ValueError(f"{last} is of another fit: {found}; repeat that one, or delete the folder")
            return last
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(about) as path:
            path.write_text(json.dumps(mine, indent=1), encoding="utf-8")
        return None


def damaged(path: Path, why: object) -> ValueError:
    """Returns the error that says which file of a checkpoint is damaged, why, and what to do."""
    return ValueError(
        f"{path} is damaged ({why}): put a copy of it back, or delete {path.parent} and begin that fit anew"
    )


def _read(about: Path) -> dict[str, Any]:
    try:
        found = json.loads(about.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise damaged(about, "no such file") from None
    except ValueError as error:  # no JSON, or no UTF-8
        raise damaged(about, error) from error
    if not isinstance(found, dict):
        raise damaged(about, f"found a {type(found).__name__}, expected an object")
    return found
