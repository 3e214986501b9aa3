"""Causal graphs: their format, their Markov blanket, their files and their picture.  Nothing here needs torch."""

from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.drawing import draw_graph
from pyro_cama.graph.nodes import Blanket, Latent, Node

__all__ = ["Blanket", "CausalGraph", "Latent", "Node", "draw_graph"]
