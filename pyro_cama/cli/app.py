"""The command line, ``pyro-cama``: a first graph from a table, a model from a graph, adapted without a line of Python.

Exit codes: 0 done; 1 a graph, a table, a model or a file is at fault; 2 the command was called wrongly; 130
interrupted; of ``watch`` also 3 to 5, which its help tells. Whatever went wrong is one line on stderr; ``--debug`` puts
the traceback before it. Results appear whole or not at all, and nothing is written over without ``--force``.

Shell completion is click's own: put ``eval "$(_PYRO_CAMA_COMPLETE=bash_source pyro-cama)"`` into ~/.bashrc
(zsh_source into ~/.zshrc; for fish, ``_PYRO_CAMA_COMPLETE=fish_source pyro-cama | source``).
"""

from __future__ import annotations

import click

from pyro_cama._version import __version__
from pyro_cama.cli.errors import App


@click.group("pyro-cama", cls=App, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="pyro-cama")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def app(debug: bool) -> None:
    """Classifiers that follow their instruments: deep CAMA models from a causal graph.

    \b
    pyro-cama init clinic.csv --target diagnosis -o clinic.yaml   # then edit clinic.yaml
    pyro-cama fit clinic.yaml clinic.csv -o model
    pyro-cama adapt model later.csv -o adapted
    pyro-cama predict adapted later.csv -o labels.csv

    Tables are CSV (UTF-8, commas, names in the first line; empty fields are missing, among numbers also NA and "?") or
    Parquet; a vector node x is columns x[0], x[1], ... Completion for bash:
    eval "$(_PYRO_CAMA_COMPLETE=bash_source pyro-cama)".
    """


def main() -> None:
    """The entry point of the command ``pyro-cama``."""
    app.main()
