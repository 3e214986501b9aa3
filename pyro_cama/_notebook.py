"""What a notebook shows of a model: its state, its roles, its graph."""

from __future__ import annotations

from pyro_cama import _html
from pyro_cama.adaptation.result import Adaptation
from pyro_cama.graph.notebook import graph_picture, role_rows
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.training.stages import History


def model_html(pair: ModelGuidePair, history: History | None, adaptation: Adaptation | None) -> str:
    """Returns a model as HTML."""
    fitted = pair.encoder.fitted
    badge = ("adapted", "good") if adaptation is not None else ("fitted", "good") if fitted else ("not fitted", "plain")
    state = []
    if history is not None and history.rows:
        state.append(("fit", str(history)))
    if adaptation is not None:
        state.append(("adaptation", str(adaptation)))
    weights = sum(p.numel() for module in (pair.model, pair.guide) for p in module.parameters())
    state.append(("parameters", f"{weights:,}, on {pair.device}"))
    rows = _html.table([*state, *role_rows(pair.graph)])
    return _html.card(f"CAMA of {pair.graph.target!r}", graph_picture(pair.graph), rows, badge=badge)
