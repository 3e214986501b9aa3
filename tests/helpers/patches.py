"""Other values in the place of the package's own, wherever they are read; a package may hide a module by a function."""

import importlib
from types import ModuleType

import pytest

from pyro_cama.attacks import tables as attacked_tables
from pyro_cama.data import columns, tables
from pyro_cama.inference import chunks, class_posterior, evidence


def module_at(name: str) -> ModuleType:
    """The module itself, where its package has a function of the same name."""
    return importlib.import_module(f"pyro_cama.{name}")


def rows_at_a_time(monkeypatch: pytest.MonkeyPatch, rows: int) -> list[int]:
    """So many rows are looked at together; what comes back grows by one at every question how many."""
    asked: list[int] = []

    def size(*_: object) -> int:
        asked.append(rows)
        return rows

    for user in (attacked_tables, chunks, class_posterior, evidence):
        monkeypatch.setattr(user, "chunk_size", size)
    return asked


def rows_of_a_part(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Files are read in parts of so many rows."""
    monkeypatch.setattr(module_at("data.open_stream"), "ROWS", rows)


def no_entry_by_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A column of entries that are looked at one by one fails."""
    for user in (columns, tables):
        monkeypatch.setattr(user, "plain_entry", lambda value: pytest.fail("entry by entry"))
