"""Optimizers, each with the weight of its state."""

from __future__ import annotations

from outlay.optim.adafactor import Adafactor
from outlay.optim.adamw import AdamW
from outlay.optim.adamw_8bit import AdamW8bit
from outlay.optim.adamw_bf16 import AdamWBf16
from outlay.optim.apollo import Apollo, ApolloMini
from outlay.optim.base import OptimizerSpec, follow
from outlay.optim.d_adaptation import DAdaptation
from outlay.optim.dct_adamw import DctAdamW
from outlay.optim.fira import Fira
from outlay.optim.frugal import Frugal
from outlay.optim.galore import GaLore
from outlay.optim.lamb import Lamb
from outlay.optim.lars import Lars
from outlay.optim.lion import Lion
from outlay.optim.natural_galore import NaturalGaLore
from outlay.optim.per_layer import PerLayer
from outlay.optim.prodigy import Prodigy
from outlay.optim.schedule_free import ScheduleFree
from outlay.optim.sgd import Sgd
from outlay.optim.signsgd import SignSgd
from outlay.optim.subspace import Subspace
from outlay.optim.whole import Whole
from outlay.optim.zeroth_order import ZerothOrder

METHODS: dict[str, type] = {
    "adamw": AdamW,
    "sgd": Sgd,
    "prodigy": Prodigy,
    "d_adaptation": DAdaptation,
    "schedule_free": ScheduleFree,
    "lamb": Lamb,
    "lars": Lars,
    "subspace": Subspace,
    "per_layer": PerLayer,
    "zeroth_order": ZerothOrder,
    "galore": GaLore,
    "fira": Fira,
    "apollo": Apollo,
    "apollo_mini": ApolloMini,
    "frugal": Frugal,
    "natural_galore": NaturalGaLore,
    "dct_adamw": DctAdamW,
    "adamw_8bit": AdamW8bit,
    "adamw_bf16": AdamWBf16,
    "adafactor": Adafactor,
    "signsgd": SignSgd,
    "lion": Lion,
    "whole": Whole,
}

__all__ = [
    "METHODS",
    "AdamW",
    "AdamW8bit",
    "AdamWBf16",
    "Adafactor",
    "Apollo",
    "ApolloMini",
    "DAdaptation",
    "DctAdamW",
    "Fira",
    "Frugal",
    "GaLore",
    "Lamb",
    "Lars",
    "Lion",
    "NaturalGaLore",
    "OptimizerSpec",
    "PerLayer",
    "Prodigy",
    "ScheduleFree",
    "Sgd",
    "SignSgd",
    "Subspace",
    "ZerothOrder",
    "Whole",
    "follow",
]
