"""Whether a graph and the fitted densities fit clean labelled rows."""

from pyro_cama.diagnosis.result import Diagnosis

__all__ = ["Diagnosis"]
