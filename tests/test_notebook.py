"""What a notebook shows: small, needs nothing beside it, escapes names, and takes axes that are given."""

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes

import pyro_cama
from pyro_cama import CAMA
from pyro_cama.adaptation import Adaptation
from pyro_cama.report import plot_calibration, plot_training

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\u202eright to left", "$x_1$ &amp;")


def rows(n: int, seed: int, drift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    columns = {name: 3.0 * y + rng.normal(size=n) + drift * (i == 0) for i, name in enumerate(HOSTILE[:3])}
    return pd.DataFrame({HOSTILE[3]: np.where(y, HOSTILE[0], "b"), **columns})


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    nodes = {HOSTILE[3]: {"type": "categorical", "levels": ["b", HOSTILE[0]]}} | dict.fromkeys(
        HOSTILE[:3], "continuous"
    )
    graph = {
        "target": HOSTILE[3],
        "nodes": nodes,
        "edges": [[HOSTILE[3], name] for name in HOSTILE[:3]],
        "latents": {"z": {"dim": 1, "effect": "linear"}, "m": {"scope": "dataset"}},
    }
    cama = pyro_cama.build(graph, device="cpu")
    empty = cama._repr_html_()
    cama.fit(rows(300, 0), progress=False)
    adapted = cama.adapt(rows(200, 1, drift=4.0).drop(columns=HOSTILE[3]), progress=False)
    objects = {
        "graph": cama.graph,
        "fitted": cama,
        "adapted": adapted,
        "adaptation": adapted.adaptation,
        "explanation": adapted.explain_shift(),
        "diagnosis": cama.diagnose(rows(200, 2), draws=0, progress=False),
    }
    return objects | {"html": {"empty": empty} | {name: thing._repr_html_() for name, thing in objects.items()}}


class Tags(HTMLParser):
    """Every tag with its attributes, and whether what opens is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", ["empty", "graph", "fitted", "adapted", "adaptation", "explanation", "diagnosis"])
def test_names_are_escaped_and_nothing_is_fetched(shown: dict[str, Any], name: str) -> None:
    text = shown["html"][name]
    tags = Tags(text)
    assert tags.open == []
    assert not {tag for tag, _ in tags.found} & {"script", "img", "link", "iframe"}
    assert not [key for _, attributes in tags.found for key in attributes if key.startswith("on")]
    assert all(
        value.startswith("#")
        for _, attributes in tags.found
        for key, value in attributes.items()
        if "href" in key and value
    )
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
    assert "\u202e" not in text
    assert len(text) < 150_000


def test_an_adaptation_says_what_was_decided(shown: dict[str, Any]) -> None:
    found = shown["adaptation"]
    assert isinstance(found, Adaptation)
    assert found.accepted
    assert repr(found) == f"<Adaptation: {found}>"
    assert len(repr(found)) < 300
    said = shown["html"]["adaptation"]
    assert ">kept</span>" in said
    assert f"{found.evidence_before:.2f}" in said
    assert re.fullmatch(r"<Explanation: \d of 3 readings moved>", repr(shown["explanation"]))
    assert repr(shown["diagnosis"]).startswith("<Diagnosis: ")


def test_the_state_is_a_badge(shown: dict[str, Any]) -> None:
    for name in ("empty", "fitted", "adapted"):
        word = "not fitted" if name == "empty" else name
        assert f">{word}</span>" in shown["html"][name]


def test_a_large_graph_is_listed_without_a_picture() -> None:
    names = [f"x{i}" for i in range(70)]
    graph = pyro_cama.CausalGraph(
        {
            "target": "y",
            "nodes": {"y": "binary"} | dict.fromkeys(names, "continuous"),
            "edges": [["y", x] for x in names],
        }
    )
    assert "<svg" not in graph._repr_html_()


def test_pictures_take_axes_and_return_them(shown: dict[str, Any]) -> None:
    cama: CAMA = shown["fitted"]
    calls = [
        lambda ax: cama.graph.plot(ax=ax),
        lambda ax: shown["explanation"].plot(ax=ax),
        lambda ax: plot_calibration(cama, rows(100, 3), ax=ax),
        lambda ax: plot_training(cama, ax=ax),
        lambda ax: shown["diagnosis"].plot(ax=ax)[0],
    ]
    figure, axes = pyplot.subplots(1, len(calls))
    for call, ax in zip(calls, axes, strict=True):
        assert call(ax) is ax
    figure.canvas.draw()
    pyplot.close(figure)
    for call in calls:  # a new figure, which a notebook shows as it is pyplot's
        before = pyplot.get_fignums()
        assert isinstance(call(None), Axes)
        assert len(pyplot.get_fignums()) == len(before) + 1
    pyplot.close("all")


def test_a_model_that_was_not_fitted_has_no_course_of_training(shown: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="plot_training: found no epochs"):
        plot_training(pyro_cama.build(shown["graph"]))


def test_the_public_namespace_holds_no_helpers() -> None:
    assert not {"Any", "TYPE_CHECKING", "importlib", "sys"} & set(dir(pyro_cama))
