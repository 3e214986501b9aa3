"""Attacks with masks, bounds and averages over draws: on any classifier, and on tables read by CAMA."""

from pyro_cama.attacks.gradient import fgsm, pgd
from pyro_cama.attacks.tables import AttackableTable

__all__ = ["AttackableTable", "fgsm", "pgd"]
