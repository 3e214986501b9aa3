"""Draws docs/architecture.svg: the package's layers, what is in them, and who imports whom.

    python tools/draw_layers.py

The layers are those of the contract in pyproject.toml, modules and imports those of the code.  Arrows that a chain of
others stands for are left out, and so are all to the lowest layer, which everyone may use; broken ones pass a layer.
"""

from __future__ import annotations

import re
import textwrap
import tomllib
from pathlib import Path

import grimp
import matplotlib as mpl
import matplotlib.pyplot as plt
import networkx as nx
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).parents[1]
PACKAGE = "pyro_cama"
CONTRACT = "Imports run downwards only"
WIDTH, WIDEST = 100.0, 40.0  # of the picture, and of a box that has a layer to itself
LINE, HEAD, SPACE = 1.5, 2.8, 3.0  # heights: of a line of modules, of a box's title, between layers
LETTER = 0.6  # width of a letter of a module's name


def read_layers() -> list[list[str]]:
    """Returns the layers of the contract, top first, each a list of packages and modules.

    Raises:
        LookupError: pyproject.toml has no such contract.
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for contract in settings.get("tool", {}).get("importlinter", {}).get("contracts", ()):
        if contract["name"] == CONTRACT:
            return [[name.strip(" ()") for name in re.split("[|:]", layer)] for layer in contract["layers"]]
    raise LookupError(f"pyproject.toml: expected a contract {CONTRACT!r} in [tool.importlinter], found none")


def read_imports() -> tuple[dict[str, list[str]], nx.DiGraph[str]]:
    """Returns the modules of every package, and the imports between packages, also deferred ones and those of types."""
    found = grimp.build_graph(PACKAGE)
    modules: dict[str, list[str]] = {}
    imports: nx.DiGraph[str] = nx.DiGraph()
    for module in sorted(found.modules - {PACKAGE}):
        _, package, *rest = module.split(".")
        modules.setdefault(package, []).extend(rest)
        for other in found.find_modules_directly_imported_by(module):
            below = other.split(".")[1]
            if below != package:
                imports.add_edge(package, below)
    return modules, imports


def place(layers: list[list[str]], modules: dict[str, list[str]]) -> dict[str, tuple[float, float, float, float, str]]:
    """Returns x, y, width, height and text of every box, layers from the top (y = 0) downwards."""
    boxes = {}
    y = 0.0
    for layer in layers:
        wanted = [max(1.1 * len(name) + 2.0, LETTER * len(", ".join(modules[name])) / 2 + 3.0) for name in layer]
        room = WIDTH - 1.5 * (len(layer) - 1)
        widths = [min(width, WIDEST) * min(1.0, room / sum(wanted)) for width in wanted]
        gap = min(12.0, (WIDTH - sum(widths)) / max(1, len(layer) - 1))
        texts = [
            textwrap.wrap(", ".join(modules[name]), int(width / LETTER))
            for name, width in zip(layer, widths, strict=True)
        ]
        height = HEAD + LINE * max(len(text) for text in texts)
        x = (WIDTH - sum(widths) - gap * (len(layer) - 1)) / 2
        for name, width, text in zip(layer, widths, texts, strict=True):
            boxes[name] = (x, y, width, height, "\n".join(text))
            x += width + gap
        y += height + SPACE
    return boxes


def draw_box(axes: Axes, name: str, box: tuple[float, float, float, float, str]) -> None:
    """Draws one package: its name, and the modules in it."""
    x, y, width, height, text = box
    style = "round,pad=0,rounding_size=0.5"
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor="#eef3f8", edgecolor="#4a6a8a", zorder=2)
    )
    title_y = y + (HEAD / 2 if text else height / 2)
    axes.text(x + width / 2, title_y, name, ha="center", va="center", fontsize=12, fontweight="bold", zorder=3)
    axes.text(x + width / 2, y + HEAD - 0.3, text, ha="center", va="top", fontsize=9, color="#333333", zorder=3)


def draw() -> Path:
    """Writes the picture, and returns its path."""
    layers = read_layers()
    modules, imports = read_imports()
    boxes = place(layers, modules)
    imports = nx.transitive_reduction(imports.subgraph(name for layer in layers[:-1] for name in layer))
    floor = {name: i for i, layer in enumerate(layers) for name in layer}
    bottom = max(y + height for _, y, _, height, _ in boxes.values())
    mpl.rcParams["svg.hashsalt"] = PACKAGE  # the same file for the same code
    figure = plt.figure(figsize=(14, 14 * (bottom + 2) / (WIDTH + 2)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1, WIDTH + 1), ylim=(bottom + 1, -1))
    axes.axis("off")
    for package, box in boxes.items():
        draw_box(axes, package, box)
        # arrows leave side by side, in the order of where they go
        targets = sorted(imports.successors(package) if package in imports else (), key=lambda n: boxes[n][0])
        for i, below in enumerate(targets):
            other = boxes[below]
            sources = sorted(imports.predecessors(below), key=lambda n: boxes[n][0])
            start = (box[0] + box[2] * (i + 1) / (len(targets) + 1), box[1] + box[3])
            end = (other[0] + other[2] * (sources.index(package) + 1) / (len(sources) + 1), other[1])
            passes = floor[below] - floor[package] > 1
            arrow = FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                connectionstyle="arc3,rad=-0.12" if passes else "arc3",
                linestyle="--" if passes else "-",
                color="#b08d57" if passes else "#7a4a1a",
                mutation_scale=10,
                shrinkB=0,
                zorder=1,
            )
            axes.add_patch(arrow)
    lowest = min(boxes[name][1] for name in layers[-1])
    axes.axhline(lowest - SPACE / 2, color="#999999", linewidth=0.8)
    axes.text(0, lowest - SPACE / 2 + 0.2, "used by all", ha="left", va="top", fontsize=9, style="italic")
    path = ROOT / "docs" / "architecture.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path


if __name__ == "__main__":
    print(draw())
