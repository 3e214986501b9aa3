"""Deep causal manipulation augmented models from a causal graph, in Pyro.

Cheng Zhang, Kun Zhang and Yingzhen Li: A Causal View on Robustness of Neural Networks. NeurIPS 2020.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from pyro_cama._version import __version__ as __version__

if TYPE_CHECKING:
    from pyro_cama.cama import CAMA, build, load
    from pyro_cama.data.batch import Batch
    from pyro_cama.data.image_files import image_table
    from pyro_cama.data.open_stream import open_stream
    from pyro_cama.errors import DataError, GraphError
    from pyro_cama.graph.causal_graph import CausalGraph
    from pyro_cama.graph.nodes import Node
    from pyro_cama.inference.elbo import InterventionELBO, JointELBO, MarginalELBO
    from pyro_cama.likelihoods import Likelihood
    from pyro_cama.mechanisms.base import Mechanism
    from pyro_cama.model.generative_model import CAMAModel
    from pyro_cama.model.guide import CAMAGuide
    from pyro_cama.simulation.interventions import Recode, Shift
    from pyro_cama.simulation.structural_model import StructuralModel, simulate

__all__ = [
    "CAMA",
    "Batch",
    "CAMAGuide",
    "CAMAModel",
    "CausalGraph",
    "DataError",
    "GraphError",
    "InterventionELBO",
    "JointELBO",
    "Likelihood",
    "MarginalELBO",
    "Mechanism",
    "Node",
    "Recode",
    "Shift",
    "StructuralModel",
    "build",
    "image_table",
    "load",
    "open_stream",
    "simulate",
]

_NAMES = {
    "cama": ("CAMA", "build", "load"),
    "data.batch": ("Batch",),
    "data.image_files": ("image_table",),
    "data.open_stream": ("open_stream",),
    "errors": ("DataError", "GraphError"),
    "graph.causal_graph": ("CausalGraph",),
    "graph.nodes": ("Node",),
    "inference.elbo": ("InterventionELBO", "JointELBO", "MarginalELBO"),
    "likelihoods": ("Likelihood",),
    "mechanisms.base": ("Mechanism",),
    "model.generative_model": ("CAMAModel",),
    "model.guide": ("CAMAGuide",),
    "simulation.interventions": ("Recode", "Shift"),
    "simulation.structural_model": ("StructuralModel", "simulate"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Imports a name when it is first asked for: ``import pyro_cama`` alone does not wait for torch and Pyro."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = f"{__name__}.{_HOMES.get(name, name)}"
    try:
        module = importlib.import_module(home)
    except ModuleNotFoundError as error:
        if error.name != home:
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    except AttributeError as error:  # of which "from pyro_cama import ..." would only say "cannot import name"
        why = "; Pyro needs its docstrings: run Python without -OO" if sys.flags.optimize > 1 else ""
        raise ImportError(f"{home} cannot be imported: {error}{why}") from error
    value = getattr(module, name) if name in _HOMES else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
