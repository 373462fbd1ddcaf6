"""Controllers: knobs that answer to what the run shows."""

from __future__ import annotations

from outlay.controllers.adaptive_kl import AdaptiveKl
from outlay.controllers.autolrs import AutoLRS
from outlay.controllers.base import Brancher, Controller
from outlay.controllers.branches import AnnealedBranches
from outlay.controllers.discount import AutomaticDiscount
from outlay.controllers.fedhyper import FedHyper
from outlay.controllers.hypergradient import Hypergradient
from outlay.controllers.open_ended import OpenEnded
from outlay.controllers.plateau import Plateau
from outlay.controllers.short_cycle import ShortCycle
from outlay.controllers.spike_back_off import SpikeBackOff
from outlay.controllers.target_entropy import TargetEntropy

METHODS: dict[str, type] = {
    "plateau": Plateau,
    "open_ended": OpenEnded,
    "hypergradient": Hypergradient,
    "fedhyper": FedHyper,
    "spike_back_off": SpikeBackOff,
    "automatic_discount": AutomaticDiscount,
    "short_cycle": ShortCycle,
    "autolrs": AutoLRS,
    "annealed_branches": AnnealedBranches,
    "adaptive_kl": AdaptiveKl,
    "target_entropy": TargetEntropy,
}

__all__ = [
    "METHODS",
    "AdaptiveKl",
    "AnnealedBranches",
    "AutoLRS",
    "AutomaticDiscount",
    "Brancher",
    "Controller",
    "FedHyper",
    "Hypergradient",
    "OpenEnded",
    "Plateau",
    "ShortCycle",
    "SpikeBackOff",
    "TargetEntropy",
]
