"""Bayesian networks with known parameters, through pgmpy: graphs from BIF files, rows from the true distribution.

pgmpy is optional (``pip install 'pyro_cama[pgmpy]'``) and imported when first needed, which takes a few seconds.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd

from pyro_cama._arguments import expect_whole
from pyro_cama._messages import one_of
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.formats import read_plain_text
from pyro_cama.graph.schema import graph_error
from pyro_cama.handlers.threads import exclusive

Sampler = Callable[[int, int], pd.DataFrame]
"""A function of ``(n, seed)`` that draws ``n`` rows."""
_CATEGORICAL = ("child", "insurance", "hepar2")
_CONTINUOUS = ("ecoli70",)
_CLASSES = ["low", "middle", "high"]
_THIRD = 0.4307272992954576  # the normal distribution's upper tertile


def from_pgmpy(module: str, purpose: str) -> Any:
    """Returns one of pgmpy's modules.

    Raises:
        ImportError: pgmpy is not installed; says how to get it.
    """
    try:
        # pgmpy 1.1 warns of its own deprecated modules when it is imported
        with exclusive(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(f"pgmpy.{module}")
    except ImportError as error:
        raise ImportError(f"{purpose} needs pgmpy; run: pip install 'pyro_cama[pgmpy]'") from error


def _read_bif(path: str | os.PathLike[str]) -> Any:
    """Returns the ``DiscreteBayesianNetwork`` of a BIF file, plain or gzipped.

    Raises:
        GraphError: the file is missing, unreadable or no BIF, or its probabilities do not fit its variables.
        ImportError: pgmpy is not installed.
    """
    source = os.fspath(path)
    reader = from_pgmpy("readwrite", f"{source}: a BIF file").BIFReader
    text = read_plain_text(Path(source))
    # pgmpy finds blocks by the line break after them, and takes text without any for an empty network
    text = text.rstrip() + "\n"
    try:
        model = reader(string=text).get_model()
        sound = bool(model.nodes) and model.check_model()
    except Exception as error:  # whatever its parser stumbles over: it raises no error of its own
        raise graph_error(source, f"is no valid BIF file ({type(error).__name__}: {error})") from error
    if not sound:
        raise graph_error(source, "found no variables; expected a BIF file, with blocks 'variable NAME { ... }'")
    return model


def sample_bif(path: str | os.PathLike[str], n: int, seed: int = 0) -> pd.DataFrame:
    """Draws rows from the network of a BIF file, by pgmpy's forward sampling.

    Args:
        path: the file (.bif or .bif.gz).
        n: the number of rows.
        seed: the same seed draws the same rows; numpy's global random state is left as it was.

    Returns:
        ``(n, variables)`` of level names, the columns as in the file.

    Raises:
        GraphError: the file is missing or no BIF.
        ImportError: pgmpy is not installed.
        ValueError: ``n`` is no whole number of at least 1.
    """
    return _forward(_read_bif(path), n, seed)


def _forward(model: Any, n: int, seed: int) -> pd.DataFrame:
    expect_whole("sample", "n", n)
    sampling = from_pgmpy("sampling", "sampling").BayesianModelSampling
    with exclusive():
        state = np.random.get_state()  # pgmpy seeds, and draws from, the global generator
        try:
            rows: pd.DataFrame = sampling(model).forward_sample(n, seed=seed, show_progress=False)
        finally:
            np.random.set_state(state)
    return rows[list(model.nodes)].astype(object)


def example_network(name: str, target: str, *, latents: Mapping[str, Any] | None = None) -> tuple[CausalGraph, Sampler]:
    """Returns a network that comes with pgmpy, and a function that draws rows from it; nothing is downloaded.

    ``child`` (20 nodes), ``insurance`` (27) and ``hepar2`` (70) are categorical.  ``ecoli70`` (46) is linear Gaussian:
    its nodes are continuous but for the target, which rows hold as its tertile, ``low``, ``middle`` or ``high``.  There
    the graph is right up to what cutting the target loses: causes and effects stay weakly dependent within a class.

    Args:
        name: one of the four.
        target: the node to predict, one with effects.
        latents: as in a graph file; left out, z and m cause every child.

    Returns:
        The graph, and a function of ``(n, seed)`` that gives a frame ``(n, nodes)`` in raw units and level names.

    Raises:
        GraphError: no such network, no such node, or a target that causes nothing.
        ImportError: pgmpy is not installed.

    Source: the Bayesian network repository of bnlearn (Scutari 2010), as packaged by pgmpy.
    """
    if name not in (*_CATEGORICAL, *_CONTINUOUS):
        raise graph_error("example_network", f"found {name!r}; {one_of(name, (*_CATEGORICAL, *_CONTINUOUS))}")
    models = from_pgmpy("models", f"the network {name!r}")
    folder = Path(str(files("pgmpy"))) / "utils" / "example_models"
    if name in _CATEGORICAL:
        file = folder / f"{name}.bif.gz"
        model = _read_bif(file)
        graph = CausalGraph.from_file(file, target, latents=latents)
        graph.source = name
        return graph, lambda n, seed: _forward(model, n, seed)
    gaussian = models.LinearGaussianBayesianNetwork.load(str(folder / f"{name}.json"))
    nodes: dict[str, Any] = dict.fromkeys(gaussian.nodes, "continuous")
    if target in nodes:
        nodes[target] = {"type": "categorical", "levels": _CLASSES}
    spec = {"target": target, "nodes": nodes, "edges": [list(edge) for edge in gaussian.edges]}
    graph = CausalGraph(spec, latents=latents)
    graph.source = name
    return graph, lambda n, seed: _gaussian(gaussian, target, n, seed)


def _gaussian(model: Any, target: str, n: int, seed: int) -> pd.DataFrame:
    """Draws rows of a linear-Gaussian network, the target cut at its tertiles."""
    expect_whole("sample", "n", n)
    rows: pd.DataFrame = model.simulate(n, seed=seed)[list(model.nodes)]
    mean, covariance = model.to_joint_gaussian()
    at = list(nx.topological_sort(model)).index(target)  # the order of pgmpy's mean and covariance
    cuts = mean[at] + np.sqrt(covariance[at, at]) * np.array([-_THIRD, _THIRD])
    return rows.assign(**{target: np.array(_CLASSES, dtype=object)[np.searchsorted(cuts, rows[target])]})
