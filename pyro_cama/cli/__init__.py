"""The command line, ``pyro-cama``: :mod:`pyro_cama.cli.graphs` and :mod:`pyro_cama.cli.models` hold its commands."""

from pyro_cama.cli import graphs, models
from pyro_cama.cli.app import app, main

__all__ = ["app", "graphs", "main", "models"]
