"""A stream of batches: notice a change of the world, name it if it is known, adapt to it if it is new."""

from pyro_cama.stream.change import Calibration, ChangeTest
from pyro_cama.stream.monitor import Monitor
from pyro_cama.stream.regimes import Regime
from pyro_cama.stream.step import Step

__all__ = ["Calibration", "ChangeTest", "Monitor", "Regime", "Step"]
