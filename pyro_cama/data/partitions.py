"""Partitioned tables, as Spark, Hive and pyarrow write them: folders named ``column=value`` that hold files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import unquote

MISSING = "__HIVE_DEFAULT_PARTITION__"


def is_partition(folder: Path) -> bool:
    """Whether a folder is part of a partitioned table: its name is ``column=value``."""
    name, equals, _ = folder.name.partition("=")
    return bool(name and equals) and folder.is_dir()


def partitioned(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Returns the tables in a folder's folders ``column=value``, in the order of their names."""
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if is_partition(path):
            found += partitioned(path, suffixes)
        elif path.suffix.lower() in suffixes and not path.name.startswith((".", "_")):
            found.append(path)
    return found


def of_folders(path: Path, root: Path, header: Sequence[str]) -> dict[str, str | None]:
    """Returns what the folders between a table's own and a file say of the file's rows: texts by column."""
    if not path.is_relative_to(root):
        return {}
    pairs = [part.partition("=") for part in path.relative_to(root).parts[:-1]]
    return {name: None if value == MISSING else unquote(value) for name, _, value in pairs if name not in header}
