"""BIF files, the format of published Bayesian networks, read by pgmpy (an extra) to the form of a graph file."""

from __future__ import annotations

import gzip
import importlib
import os
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyro_cama.graph.schema import graph_error
from pyro_cama.handlers.threads import exclusive


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
        raise ImportError(f"{purpose} needs pgmpy; run: pip install pyro_cama[pgmpy]") from error


def read_bif(path: str | os.PathLike[str]) -> Any:
    """Returns the ``DiscreteBayesianNetwork`` of a BIF file, plain or gzipped.

    Raises:
        GraphError: the file is missing, unreadable or no BIF, or its probabilities do not fit its variables.
        ImportError: pgmpy is not installed.
    """
    source = os.fspath(path)
    reader = from_pgmpy("readwrite", f"{source}: a BIF file").BIFReader
    try:
        raw = Path(source).read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise graph_error(source, f"is neither text nor gzipped text ({error}); expected a BIF file") from error
    except OSError as error:
        raise graph_error(source, f"cannot be read ({error.strerror}); expected a BIF file") from error
    # pgmpy finds blocks by the line break after them, and takes text without any for an empty network
    text = text.replace("\r\n", "\n").rstrip() + "\n"
    try:
        model = reader(string=text).get_model()
        sound = bool(model.nodes) and model.check_model()
    except Exception as error:  # whatever its parser stumbles over: it raises no error of its own
        raise graph_error(source, f"is no valid BIF file ({type(error).__name__}: {error})") from error
    if not sound:
        raise graph_error(source, "found no variables; expected a BIF file, with blocks 'variable NAME { ... }'")
    return model


def bif_graph(path: str | os.PathLike[str], target: str, latents: Mapping[str, Any] | None) -> dict[str, Any]:
    """Reads a BIF file to the form of a graph file, not yet validated; see :meth:`CausalGraph.from_bif`.

    Raises:
        GraphError: what :func:`read_bif` raises.
        ImportError: pgmpy is not installed.
    """
    return bif_spec(read_bif(path), target, latents)


def bif_spec(model: Any, target: str, latents: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns one of pgmpy's networks in the form of a graph file, every variable categorical, not yet validated."""
    nodes = {
        str(name): {"type": "categorical", "levels": list(model.get_cpds(name).state_names[name])}
        for name in model.nodes
    }
    spec = {"target": target, "nodes": nodes, "edges": [[str(cause), str(effect)] for cause, effect in model.edges]}
    return spec if latents is None else {**spec, "latents": latents}
