"""Interventions on Pyro programs, ``do``, and proposals in the place of a guide's distributions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.poutine.messenger import Messenger

Regime = Literal["interventional", "observational"]
"""Whether what goes with the class where nobody intervenes is told from it: "interventional" cuts the edge."""
Do = Mapping[str, Any]
"""Values by the name of the latent or node that an intervention sets."""


def intervene(program: Callable[..., Any], do: Do | None) -> Callable[..., Any]:
    """Returns the program under ``do``, the intervened latent gone from its trace.

    So it has no prior term there, and no gradient reaches its guide.
    """
    if not do:
        return program
    return poutine.block(poutine.do(program, data=dict(do)), hide=list(do))


def cut_from_class(program: Callable[..., Any], name: str, marginal: TorchDistribution) -> Callable[..., Any]:
    """Returns the program with a latent drawn from its marginal, whatever the class.

    A stochastic intervention: the latent's own mechanism is replaced, and all others stay (Correa and Bareinboim 2020,
    *A Calculus for Stochastic Interventions*).
    """
    return Proposed({name: marginal})(program)


class Proposed(Messenger):
    """Draws sites from other distributions."""

    def __init__(self, proposals: Mapping[str, TorchDistribution]) -> None:
        super().__init__()
        self.proposals = proposals

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.proposals:
            msg["fn"] = self.proposals[msg["name"]].expand(msg["fn"].batch_shape)
