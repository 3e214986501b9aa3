"""How well a model recognises the class of rows that it draws itself."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_cama.adaptation.options import AdaptOptions
from pyro_cama.data.batch import Batch
from pyro_cama.handlers.contexts import fast
from pyro_cama.handlers.distributions import draw
from pyro_cama.inference.class_posterior import class_log_posterior
from pyro_cama.inference.generation import ancestral_sample
from pyro_cama.inference.options import PredictionOptions
from pyro_cama.model.pair import ModelGuidePair


def recovery_of(pair: ModelGuidePair, new: Batch, do: dict[str, Tensor] | None, options: AdaptOptions) -> float:
    """How often the class of rows the model draws itself, under the manipulations it infers, is recognised.

    Images are drawn in black and white and in greys, and the more recognised ones count: with a small offset most of a
    draw is noise, and where the new images are noisy, smooth greys are what NN_qM has not seen.
    """
    rows, samples = options.recovery_rows, options.recovery_draws
    shares = []
    for greys in (False, True) if pair.model.has_images else (False,):
        with torch.no_grad(), fast(), pair.seeded():
            like = new.select(torch.randint(new.rows, (rows,), device=pair.device))
            values = dict(do or {})
            inferred = [m.name for m in pair.graph.manipulations if m.name not in values]
            for m, q in zip(pair.graph.manipulations, pair.guide.m_dists(like, inferred), strict=True):
                if q is not None:
                    values[m.name] = draw(q)
            drawn = ancestral_sample(pair, values, rows, like.site, greys=greys)
        y = drawn.values.pop(pair.graph.target)
        recognised = class_log_posterior(pair, drawn, do, PredictionOptions(samples, 2)).argmax(0) == y.long()
        shares.append(float(recognised.float().mean()))
    return max(shares)
