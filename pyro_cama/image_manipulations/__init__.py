"""Manipulations of images in batches, for evaluation, augmentation and simulated interventions."""

from pyro_cama.image_manipulations.kinds import KINDS, Kind, manipulate

__all__ = ["KINDS", "Kind", "manipulate"]
