"""The options of a prediction: defaults and checks."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, get_args

from pyro_cama._arguments import expect, expect_options, expect_whole, number
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.handlers.interventions import Regime


@dataclass(frozen=True)
class PredictionOptions:
    """How a prediction looks for the latents and weighs what was measured; see
    :meth:`pyro_cama.CAMA.predict_proba`."""

    samples: int = 16
    m_samples: int = 4
    widen: float = 1.0
    refine: int = 0
    refine_z: int = 0
    power: float = 1.0
    regime: Regime = "interventional"

    @classmethod
    def checked(cls, where: str, graph: CausalGraph, do: Mapping[str, Any] | None, **options: Any) -> Self:
        """Returns the options after checking them, those left out at their defaults.

        Args:
            where: the call, for messages.
            graph: whose latents options may be for.
            do: an intervention on m, which leaves nothing of m to look for.

        Raises:
            ValueError: an unknown option, a number out of range, or one for a latent that the graph does not have.
        """
        expect_options(where, options, cls)
        for name, value in options.items():
            if name == "regime":
                fits = isinstance(value, str) and value in get_args(Regime)
                expect(where, name, value, fits, "'interventional' or 'observational'")
            elif name in ("widen", "power"):
                most, said = (1, "at most 1") if name == "power" else (sys.float_info.max, "finite")
                expect(where, name, value, number(value) and 0 < value <= most, f"a number above 0, {said}")
                options[name] = float(value)
            else:
                least = 0 if name.startswith("refine") else 1
                expect_whole(where, name, value, least)
                options[name] = int(value)
        found = cls(**options)
        if (found.widen != 1 or found.refine) and (graph.m is None or not graph.m.per_row or graph.m.parts):
            raise ValueError(
                f"{where}: widen and refine are for one manipulation of scope row, where each row has its m"
            )
        if (found.widen != 1 or found.refine) and do:
            raise ValueError(
                f"{where}: widen and refine are for an m that is inferred, and here it is given ('auto' is do(m=0) "
                "until q(m | x) has been trained); expected do=None beside them"
            )
        if found.refine_z and graph.z is None:
            raise ValueError(f"{where}: refine_z is for a graph with the latent z; in this one z is null")
        return found
