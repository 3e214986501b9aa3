"""Rows of a random structural causal model over any graph, with exact interventions."""

from pyro_cama.simulation.interventions import Recode, Shift
from pyro_cama.simulation.structural_model import StructuralModel, simulate

__all__ = ["Recode", "Shift", "StructuralModel", "simulate"]
