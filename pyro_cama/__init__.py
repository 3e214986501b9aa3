"""Deep causal manipulation augmented models from a causal graph, in Pyro.

Cheng Zhang, Kun Zhang and Yingzhen Li: A Causal View on Robustness of Neural Networks. NeurIPS 2020.
"""

from pyro_cama.cama import CAMA, build
from pyro_cama.errors import DataError, GraphError
from pyro_cama.graph import CausalGraph
from pyro_cama.simulate import Recode, Shift, StructuralModel, simulate
from pyro_cama.storage import load

__version__ = "0.1.0"
__all__ = [
    "CAMA",
    "CausalGraph",
    "DataError",
    "GraphError",
    "Recode",
    "Shift",
    "StructuralModel",
    "build",
    "load",
    "simulate",
]
