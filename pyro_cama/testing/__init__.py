"""Checks of what a mechanism and a likelihood have to hold, for classes of your own.

:func:`check_mechanism` and :func:`check_likelihood` raise an AssertionError that says what does not hold and by how
much; call them in a test, once for each type of node that the class serves.  They need no test framework.  All is
computed in float64 on the CPU, from a fixed seed, and torch's generator and default dtype are left as they were.
"""

from pyro_cama.testing.likelihood import check_likelihood
from pyro_cama.testing.mechanism import check_mechanism

__all__ = ["check_likelihood", "check_mechanism"]
