"""The generative model (eq. 9), the guide (eq. 10), and the pair that all algorithms take."""

from pyro_cama.model.causes import Causes
from pyro_cama.model.generative_model import CAMAModel
from pyro_cama.model.guide import CAMAGuide
from pyro_cama.model.pair import ModelGuidePair

__all__ = ["CAMAGuide", "CAMAModel", "Causes", "ModelGuidePair"]
