"""Files and folders that appear whole or not at all, and leave what stood in their place as it was if writing fails."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a name to write a file to, in the folder of ``path`` and of its suffix; moves it to ``path`` at the end.

    A symbolic link stays one: what it points to is replaced.

    Raises:
        OSError: the disk is full, the folder is missing or cannot be written to; names ``path``.
    """
    path = path.resolve() if path.is_symlink() else path
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with naming(path, part):
            yield part
            _flush(part)
            os.replace(part, path)
    finally:
        with suppress(OSError):  # what went wrong before is what has to be told
            part.unlink(missing_ok=True)


@contextmanager
def placing(folder: Path) -> Iterator[Path]:
    """Yields an empty folder to fill with files, beside ``folder``; moves it to ``folder`` at the end.

    A symbolic link stays one.  A folder that stands there is deleted last, or comes back; on Linux the two change
    places in one step, so that a process that is killed leaves one of them there (and a hidden folder beside it, which
    may be deleted).  The new one and its files get the permissions that the umask gives to ordinary ones, whatever
    wrote them.

    Raises:
        OSError: the disk is full, the parent folder is missing or cannot be written to; names it, or the file.
    """
    folder = folder.resolve() if folder.is_symlink() else folder
    try:
        around = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))  # private, unlike what is in it
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder.parent)) from error
    part, old = around / "new", around / "old"
    try:
        with naming(folder, part):
            part.mkdir()
            yield part
            mode = part.stat().st_mode & 0o666
            for file in part.iterdir():
                file.chmod(mode)
                _flush(file)
            if not (folder.exists() and exchange(part, folder)):
                if folder.exists():
                    os.replace(folder, old)
                os.replace(part, folder)
    finally:
        if old.exists() and not folder.exists():
            os.replace(old, folder)  # if that fails too, what is raised says where the old one is left
        shutil.rmtree(around, ignore_errors=True)


def exchange(one: Path, two: Path) -> bool:
    """Lets two folders change places in one step; returns whether the system can.

    Raises:
        OSError: it could, but may not.
    """
    import ctypes

    rename: Any = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(two), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL):  # an old kernel, or a file system that knows no such thing
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(two))


@contextmanager
def naming(path: Path, part: Path | None = None) -> Iterator[None]:
    """Lets what the system says of writing name ``path``, the place meant: a full disk names no file at all.

    Args:
        path: a file or folder.
        part: where it is in the making.
    """
    try:
        yield
    except OSError as error:
        found = _meant(error.filename, path, part)
        if error.errno is None or found is None:  # not the system's words, or about another file
            raise
        raise OSError(error.errno, error.strerror, str(found)) from error


def _meant(name: object, path: Path, part: Path | None) -> Path | None:
    """Returns the place that a name in the making stands for; None for a name from elsewhere."""
    if name is None:
        return path
    at = Path(name) if isinstance(name, str | Path) else None
    return path / at.relative_to(part) if at is not None and part is not None and at.is_relative_to(part) else None


def save_figure(figure: Any, path: str | os.PathLike[str], *, dpi: int) -> None:
    """Writes a matplotlib figure, whole or not at all; the suffix says the format, without one it is matplotlib's own.

    Raises:
        OSError: what :func:`replacing` raises.
    """
    path = Path(path)
    path = path if path.suffix else path.with_suffix(f".{figure.canvas.get_default_filetype()}")
    with replacing(path) as part:
        figure.savefig(part, dpi=dpi)


def _flush(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
