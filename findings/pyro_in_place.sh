#!/usr/bin/env bash
# A value that is assigned into a tensor (rows[..., 0] = x) has no arrow in Pyro's graph of a model, and TraceGraph_ELBO
# learns nothing from what comes after it.
#
# render_model, get_model_relations, get_dependencies and TraceGraph_ELBO follow values through torch by provenance, which is
# handed on by what an operation returns; a tensor that is changed by rows[0] = x or copy_ gets none, while autograd follows
# both.  (torch.vmap loses it too.)  The graph then lacks arrows that the model has; and TraceGraph_ELBO, which leaves out of
# a score-function gradient all terms that do not depend on a site, leaves out the observations, so that the posterior stays
# at the prior without a warning.  Trace_ELBO, and the same model with torch.stack, are right.
#
# pyro-ppl 1.9.2, torch 2.14.1, seen: torch.stack: parents of pain ['flare'], posterior TraceGraph_ELBO 0.83, Trace_ELBO 0.83;
# assigned: parents of pain [], posterior TraceGraph_ELBO 0.50, Trace_ELBO 0.83; exact 0.82
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyro-ppl==1.9.2 torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import math
import sys
import warnings

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO
from pyro.infer.inspect import get_model_relations

told = []
warnings.showwarning = lambda message, *_: told.append(str(message))
torch.set_num_threads(1)
read = torch.tensor([2.0, 0.0])


def stacked(flare):
    return torch.stack([flare, torch.zeros(())])


def assigned(flare):
    rows = torch.zeros(2)
    rows[0] = flare
    return rows


def model(mean):
    flare = pyro.sample("flare", dist.Bernoulli(0.5))
    pyro.sample("pain", dist.Normal(mean(flare), 1.0).to_event(1), obs=read)


def guide(mean):
    pyro.sample("flare", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.0))))


def learnt(mean, loss):
    """The posterior of a flare, as SVI finds it."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), loss(num_particles=10))
    logits = [(svi.step(mean), pyro.param("logit").item())[1] for _ in range(200)]
    return round(1 / (1 + math.exp(-sum(logits[-100:]) / 100)), 2)


found = {}
for mean in (stacked, assigned):
    parents = get_model_relations(model, (mean,))["sample_sample"]["pain"]
    found[mean.__name__] = (parents, learnt(mean, TraceGraph_ELBO), learnt(mean, Trace_ELBO))
weights = [dist.Normal(stacked(torch.tensor(flare)), 1.0).log_prob(read).sum().exp().item() for flare in (0.0, 1.0)]
exact = round(weights[1] / sum(weights), 2)
line = "parents of pain {}, posterior TraceGraph_ELBO {:.2f}, Trace_ELBO {:.2f}"
print(
    f"pyro-ppl {pyro.__version__}, torch {torch.__version__.split('+')[0]}: torch.stack: {line.format(*found['stacked'])}; "
    f"assigned: {line.format(*found['assigned'])}; exact {exact:.2f}, warnings {len(told)}"
)
right = found["stacked"][0] == ["flare"] and all(abs(p - exact) < 0.1 for p in (*found["stacked"][1:], found["assigned"][2]))
sys.exit(not (right and found["assigned"][0] == [] and abs(found["assigned"][1] - 0.5) < 0.1))
PYTHON
