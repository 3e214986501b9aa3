"""Deep causal manipulation augmented models from a causal graph, in Pyro.

Cheng Zhang, Kun Zhang and Yingzhen Li: A Causal View on Robustness of Neural Networks. NeurIPS 2020.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_cama.cama import CAMA, build
    from pyro_cama.errors import DataError, GraphError
    from pyro_cama.graph import CausalGraph
    from pyro_cama.image_files import image_table
    from pyro_cama.simulate import Recode, Shift, StructuralModel, simulate
    from pyro_cama.sources import open_stream
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
    "image_table",
    "load",
    "open_stream",
    "simulate",
]

_MODULES = {
    "cama": ("CAMA", "build"),
    "errors": ("DataError", "GraphError"),
    "graph": ("CausalGraph",),
    "image_files": ("image_table",),
    "simulate": ("Recode", "Shift", "StructuralModel", "simulate"),
    "sources": ("open_stream",),
    "storage": ("load",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


class _Package(ModuleType):
    """Imports a name when it is first asked for: ``import pyro_cama`` alone does not wait for torch and Pyro."""

    def __getattr__(self, name: str) -> Any:
        home = f"{__name__}.{_HOMES.get(name, name)}"
        if name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            module = importlib.import_module(home)
        except ModuleNotFoundError as error:
            if error.name != home:
                raise
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        value = getattr(module, name) if name in _HOMES else module
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # the import system sets every submodule as an attribute; one is called as the function in it is
        super().__setattr__(name, getattr(value, name) if name in _HOMES and isinstance(value, ModuleType) else value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
