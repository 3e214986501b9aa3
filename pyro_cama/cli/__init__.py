"""The command line, ``pyro-cama``: :mod:`pyro_cama.cli.commands` declares what it takes, others do the work."""

from pyro_cama.cli import commands
from pyro_cama.cli.app import app, main

__all__ = ["app", "commands", "main"]
