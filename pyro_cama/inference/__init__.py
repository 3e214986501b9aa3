"""Log-weights and what is made of them: bounds (eqs. 3, 4, 7), Bayes' rule (eq. 6), evidence, generated rows."""

from pyro_cama.inference.elbo import InterventionELBO, JointELBO, MarginalELBO
from pyro_cama.inference.log_weights import LogWeights

__all__ = ["InterventionELBO", "JointELBO", "LogWeights", "MarginalELBO"]
