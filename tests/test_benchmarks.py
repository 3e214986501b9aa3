"""Benchmarks run, and what they set beside one another computes the same; how long it takes is not looked at."""

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(
    ("module", "measurement"),
    [
        ("tabular", "training"),
        ("tabular", "children"),
        ("tabular", "many_classes"),
        ("images", "training"),
        ("images", "adaptation"),
        ("images", "prediction"),
    ],
)
def test_measurements_run(module: str, measurement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    own = importlib.import_module(module)
    interleaved = importlib.import_module("measure").interleaved

    def once(contenders: Any, rounds: int, **options: Any) -> Any:
        return interleaved(contenders, 1, warm=0)

    monkeypatch.setattr(own, "interleaved", once)
    monkeypatch.setattr(own, "profiled", lambda *arguments: "")
    monkeypatch.setattr(own, "over_floor", lambda *arguments: "", raising=False)
    rows = getattr(own, measurement)(True)
    assert rows
    assert all(row.value > 0 for row in rows)
