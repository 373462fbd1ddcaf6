"""Optimizers, each with the weight of its state."""

from __future__ import annotations

from outlay.optim.adamw import AdamW
from outlay.optim.apollo import Apollo, ApolloMini
from outlay.optim.base import OptimizerSpec, follow
from outlay.optim.d_adaptation import DAdaptation
from outlay.optim.dct_adamw import DctAdamW
from outlay.optim.fira import Fira
from outlay.optim.frugal import Frugal
from outlay.optim.galore import GaLore
from outlay.optim.lamb import Lamb
from outlay.optim.lars import Lars
from outlay.optim.natural_galore import NaturalGaLore
from outlay.optim.prodigy import Prodigy
from outlay.optim.schedule_free import ScheduleFree
from outlay.optim.sgd import Sgd
from outlay.optim.subspace import Subspace

METHODS: dict[str, type] = {
    "adamw": AdamW,
    "sgd": Sgd,
    "prodigy": Prodigy,
    "d_adaptation": DAdaptation,
    "schedule_free": ScheduleFree,
    "lamb": Lamb,
    "lars": Lars,
    "subspace": Subspace,
    "galore": GaLore,
    "fira": Fira,
    "apollo": Apollo,
    "apollo_mini": ApolloMini,
    "frugal": Frugal,
    "natural_galore": NaturalGaLore,
    "dct_adamw": DctAdamW,
}

__all__ = [
    "METHODS",
    "AdamW",
    "Apollo",
    "ApolloMini",
    "DAdaptation",
    "DctAdamW",
    "Fira",
    "Frugal",
    "GaLore",
    "Lamb",
    "Lars",
    "NaturalGaLore",
    "OptimizerSpec",
    "Prodigy",
    "ScheduleFree",
    "Sgd",
    "Subspace",
    "follow",
]
