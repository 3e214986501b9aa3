"""``python -m pyro_cama``: the command line, where its script is not on the path."""

from pyro_cama.cli import main

main()
