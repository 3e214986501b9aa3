"""The structural program without ChiRho."""

import sys

import pytest

import pyro_cama

GRAPH = {"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]}
ROWS = {"y": [0, 1] * 10, "x": [0.1 * (i % 7) + i % 2 for i in range(20)]}


def test_without_rows_it_needs_no_chirho_and_with_rows_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chirho.observational.handlers", None)
    cama = pyro_cama.build(GRAPH, hidden=4, device="cpu").fit(ROWS, max_epochs=1, progress=False)
    assert cama.as_program()(rows=3)["x"].shape == (3,)
    with pytest.raises(ImportError, match=r"pyro_cama\[interop\]"):
        cama.as_program(ROWS)
