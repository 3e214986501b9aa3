"""How a manipulation acts on a child: one mechanism a file, and their names in ``registry``."""

from pyro_cama.mechanisms.affine import Affine
from pyro_cama.mechanisms.base import Mechanism
from pyro_cama.mechanisms.blur import Blur
from pyro_cama.mechanisms.colour import Colour
from pyro_cama.mechanisms.composed import Composed, ComposedImages
from pyro_cama.mechanisms.concat import Concat
from pyro_cama.mechanisms.confusion import Confusion
from pyro_cama.mechanisms.field import Field
from pyro_cama.mechanisms.illumination import Illumination
from pyro_cama.mechanisms.image import ImageMechanism
from pyro_cama.mechanisms.intensity import Intensity
from pyro_cama.mechanisms.monotone import Monotone
from pyro_cama.mechanisms.noise import Noise
from pyro_cama.mechanisms.overlay import Overlay
from pyro_cama.mechanisms.rate import Rate
from pyro_cama.mechanisms.registry import MECHANISMS
from pyro_cama.mechanisms.warp import Warp

__all__ = [
    "MECHANISMS",
    "Affine",
    "Blur",
    "Colour",
    "Composed",
    "ComposedImages",
    "Concat",
    "Confusion",
    "Field",
    "Illumination",
    "ImageMechanism",
    "Intensity",
    "Mechanism",
    "Monotone",
    "Noise",
    "Overlay",
    "Rate",
    "Warp",
]
