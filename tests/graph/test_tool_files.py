"""Graph files as other tools write them: each is read right, or refused by what is wrong with it."""

from typing import Any

import pandas as pd
import pytest
import yaml

from pyro_cama.errors import GraphError
from pyro_cama.graph.causal_graph import CausalGraph
from tests.helpers.paths import CORPUS

FILES = CORPUS / "graph_files"
ENTRIES: list[dict[str, Any]] = yaml.safe_load((CORPUS / "graph_files.yaml").read_text(encoding="utf-8"))["files"]
NUMBERS = ["age", "fever", "pulse", "white cells", 'a "quoted"', "é", "x:y", "back\\slash", "nöde", "1", "2", "0"]
TABLE = pd.DataFrame(
    {"sick": [0, 1, 0], "smoker": ["no", "yes", "no"], **{name: [0.5, 2.25, 1.75] for name in NUMBERS}}
)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file"])
def test_a_tools_file_is_read_right_or_refused_by_name(entry: dict[str, Any]) -> None:
    path = FILES / entry["file"]

    def read() -> CausalGraph:
        return CausalGraph.from_file(
            path,
            entry.get("target", "sick"),
            data=TABLE if entry.get("types", "table") == "table" else None,
            orient=entry.get("orient", ()),
        )

    if "says" in entry:
        with pytest.raises(GraphError) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: ")
        assert entry["says"] in str(caught.value)
        return
    graph = read()
    assert {" -> ".join(edge) for edge in graph.edges} == set(entry["edges"])
    for name, kind in entry.get("kinds", {}).items():
        assert graph.nodes[name].type == kind
    for name, levels in entry.get("levels", {}).items():
        assert graph.nodes[name].levels == tuple(levels)
    assert CausalGraph.from_yaml(graph.to_yaml()) == graph


def test_every_file_is_in_the_table() -> None:
    assert {entry["file"] for entry in ENTRIES} == {path.name for path in FILES.iterdir()}
    assert len({entry["file"] for entry in ENTRIES}) >= 40
    assert all(entry["made"] in ("run", "hand") and entry["tool"] for entry in ENTRIES)
