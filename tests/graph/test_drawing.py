"""Pictures of graphs: nothing overlaps, roles have their places, labels fit."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyro_cama import CausalGraph
from pyro_cama._html import figure_of
from pyro_cama.graph.drawing import _curve, _layout, _patch, draw_graph
from tests.helpers.command_line import done
from tests.helpers.paths import GRAPHS


def random_graph(size: int, seed: int) -> CausalGraph:
    """Up to 40 nodes in random roles, edges along a random order."""
    rng = np.random.default_rng(seed)
    names = [f"node {i}" * int(rng.integers(1, 4)) for i in range(size)]
    target = size // 3
    edges = [
        [a, b]
        for (i, a), (j, b) in itertools.combinations(enumerate(names), 2)
        if rng.random() < (0.5 if i == target else 2.0 / size)
    ]
    if [names[target], names[-1]] not in edges:
        edges.append([names[target], names[-1]])
    nodes = {name: "binary" if i == target else "continuous" for i, name in enumerate(names)}
    return CausalGraph({"target": names[target], "nodes": nodes, "edges": edges})


PICTURED = [*sorted(GRAPHS.glob("*.yaml")), *((size, seed) for size in (2, 3, 7, 15, 40) for seed in (0, 1))]


@pytest.mark.parametrize("given", PICTURED, ids=str)
def test_a_picture_is_readable(given: Any) -> None:
    graph = CausalGraph(given) if isinstance(given, Path) else random_graph(*given)
    roles, boxes, ways, (width, height) = _layout(graph)
    latents = {latent.name for latent in graph.latents}
    assert boxes.keys() == graph.nodes.keys() | latents
    expected = {(latent.name, c) for latent in graph.latents for c in latent.children}
    assert ways.keys() == set(graph.edges) | expected
    for one, other in itertools.combinations(boxes.values(), 2):
        apart = abs(one.x - other.x) >= (one.width + other.width) / 2 + 0.05
        assert apart or abs(one.y - other.y) >= (one.height + other.height) / 2 + 0.05
    for box in boxes.values():
        assert box.width / 2 <= box.x + 1e-9
        assert box.x + box.width / 2 <= width + 1e-9
        assert box.height / 2 - 1e-9 <= box.y <= height - box.height / 2 + 1e-9
    for (cause, effect), stops in ways.items():
        for name, point, towards in ((cause, stops[0], stops[1]), (effect, stops[-1], stops[-2])):
            patch = _patch(roles[name], boxes[name])
            border = patch.get_path().transformed(patch.get_patch_transform())
            outwards = np.sign(point[0] - boxes[name].x)
            assert np.sign(towards[0] - point[0]) in (0, outwards)
            assert border.contains_point((point[0] - 0.02 * outwards, point[1]))
            assert not border.contains_point((point[0] + 0.02 * outwards, point[1]))
        points = np.concatenate([segment.to_polygons(closed_only=False)[0] for segment in [_curve(stops)]])
        steps = np.linspace(points[:-1], points[1:], 8).reshape(-1, 2)
        for name, box in boxes.items():
            inside_ = (np.abs(steps - [box.x, box.y]) < [box.width / 2 - 0.01, box.height / 2 - 0.01]).all(1)
            assert name in (cause, effect) or not inside_.any(), f"{cause} -> {effect} runs through {name}"


def test_arrows_out_and_in_do_not_share_a_place() -> None:
    ways = _layout(CausalGraph(GRAPHS / "clinic.yaml"))[2]
    out = {(stops[0], cause) for (cause, _), stops in ways.items()}
    into = {(stops[-1], effect) for (_, effect), stops in ways.items()}
    assert not out & into
    assert len({stops[-1] for (cause, effect), stops in ways.items() if effect == "fever" and cause in "zm"}) == 2


def test_roles_have_their_columns() -> None:
    roles, boxes, _, _ = _layout(CausalGraph(GRAPHS / "clinic.yaml"))
    assert roles == {
        "age": "parent, co-parent", "exposure": "parent", "smoker": "co-parent", "medication": "co-parent",
        "infection": "target", "white_cells": "child", "fever": "child", "cough": "child", "ward": "child",
        "billing": "outside the model", "z": "z", "m": "m",
    }  # fmt: skip
    places = {name: box.x for name, box in boxes.items()}
    assert places["age"] == places["exposure"] < places["infection"] < places["fever"] == places["cough"]
    assert places["fever"] < places["ward"] < places["smoker"] == places["z"] == places["m"]


def test_labels_fit_their_nodes_and_stay_text() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    names = ["$x_1$", "a_very_long_name " * 5, "new\nline", "å_b^2", "i"]
    nodes = {"y": "binary", **dict.fromkeys(names, "continuous")}
    graph = CausalGraph({"target": "y", "nodes": nodes, "edges": [["y", name] for name in names]})
    figure = figure_of(draw_graph(graph, kept=False))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = {text.get_text(): text.get_window_extent(canvas.get_renderer()) for text in figure.axes[0].texts}
    assert {"$x_1$", "new line", "å_b^2", "i"} <= shown.keys()
    assert max(map(len, shown)) <= 36
    _, boxes, _, _ = _layout(graph)
    for name, box in boxes.items():
        label = " ".join(name.split())
        extent = shown[label if label in shown else next(text for text in shown if text.endswith("…"))]
        assert extent.width / figure.dpi < box.width - 0.1
        assert extent.height / figure.dpi < box.height
    ends = [text.get_window_extent(canvas.get_renderer()) for text in figure.axes[0].texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(ends, 2))


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_pictures_are_written(suffix: str, start: bytes, tmp_path: Path) -> None:
    done("draw", GRAPHS / "measurement.yaml", "-o", tmp_path / f"g{suffix}")
    assert (tmp_path / f"g{suffix}").read_bytes().startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [f"g{suffix}"]
