"""Files and folders that appear whole or not at all, and leave what stood in their place as it was if writing fails."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a name to write a file to, in the folder of ``path`` and of its suffix; moves it to ``path`` at the end.

    Raises:
        OSError: the folder is missing or cannot be written to.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield part
        _flush(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def placing(folder: Path) -> Iterator[Path]:
    """Yields an empty folder to fill with files, beside ``folder``; moves it to ``folder`` at the end.

    A folder that stands there is deleted last, or comes back.  The new one and its files get the permissions that
    the umask gives to ordinary ones, whatever wrote them.

    Raises:
        OSError: the parent folder is missing or cannot be written to.
    """
    around = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))  # private, unlike what is in it
    try:
        part = around / "new"
        part.mkdir()
        yield part
        mode = part.stat().st_mode & 0o666
        for file in part.iterdir():
            file.chmod(mode)
            _flush(file)
        old = around / "old"
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(part, folder)
        except BaseException:
            if old.exists():
                os.replace(old, folder)
            raise
    finally:
        shutil.rmtree(around, ignore_errors=True)


def _flush(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
