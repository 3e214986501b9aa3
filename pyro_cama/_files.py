"""Files written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to, in the folder of ``path`` and of its suffix; moved to ``path`` if nothing goes wrong."""
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def put(part: Path, folder: Path) -> None:
    """Moves a complete folder to its place; what was there goes last, or comes back."""
    if not folder.exists():
        os.replace(part, folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    os.replace(folder, old / "model")
    try:
        os.replace(part, folder)
    except BaseException:
        os.replace(old / "model", folder)
        raise
    finally:
        shutil.rmtree(old)
