"""A self-contained HTML page of what a model says about rows: :func:`report`."""

from pyro_cama.report.drift import Drift
from pyro_cama.report.page import report

__all__ = ["Drift", "report"]
