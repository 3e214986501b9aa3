#!/usr/bin/env bash
# A torch.export program with a no_grad block whose result nobody reads can be run and saved, and not be loaded.
#
# Export drops what is unused elsewhere, but of a no_grad block with nothing left to give it keeps the call, without the
# metadata that loading asks for.  Export, the program itself and save say nothing, so that it is found out where the
# saved file is to serve.  A block one of whose values is used, the same arithmetic outside of a block, and
# torch.Tensor.detach in its place load.
#
# torch 2.14.1, seen: unused: runs, saved, not loaded (SpecViolationError: Node.meta wrap_with_set_grad_enabled is missing
# val field.); used: runs, saved, loaded; detached: runs, saved, loaded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import torch


class Unused(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, x):
        with torch.no_grad():
            self.weight / self.weight.sum()
        return x * self.weight


class Used(Unused):
    def forward(self, x):
        with torch.no_grad():
            share = self.weight / self.weight.sum()
        return x * share


class Detached(Unused):
    def forward(self, x):
        fixed = self.weight.detach()
        fixed / fixed.sum()
        return x * self.weight


def told(kind):
    """What becomes of a module: run, saved, loaded."""
    program = torch.export.export(kind(), (torch.ones(2, 3),))
    said = "runs" if program.module()(torch.ones(2, 3)).shape == (2, 3) else "does not run"
    torch.export.save(program, "program.pt2")
    try:
        torch.export.load("program.pt2")
    except Exception as error:
        return f"{said}, saved, not loaded ({type(error).__name__}: {error})"
    return f"{said}, saved, loaded"


seen = {kind.__name__.lower(): told(kind) for kind in (Unused, Used, Detached)}
print(f"torch {torch.__version__.split('+')[0]}: " + "; ".join(f"{name}: {text}" for name, text in seen.items()))
fine = "runs, saved, loaded"
sys.exit(not ("SpecViolationError" in seen["unused"] and seen["used"] == fine and seen["detached"] == fine))
PYTHON
