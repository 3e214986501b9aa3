"""What a model says about rows, as a self-contained HTML page, :func:`report`, and as pictures for a notebook."""

from pyro_cama.report.drift import Drift
from pyro_cama.report.page import report
from pyro_cama.report.plots import plot_calibration, plot_training
from pyro_cama.report.stream import stream_report

__all__ = ["Drift", "plot_calibration", "plot_training", "report", "stream_report"]
