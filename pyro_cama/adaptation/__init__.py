"""Adaptation to a changed world without labels (eq. 8): starts, objective, guard, and what moved."""

from pyro_cama.adaptation.explanation import Explanation
from pyro_cama.adaptation.result import Adaptation

__all__ = ["Adaptation", "Explanation"]
