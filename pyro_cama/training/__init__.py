"""Training by the intervention and the joint ELBO (eqs. 3 to 5), on Lightning."""

from pyro_cama.training.stages import History

__all__ = ["History"]
