"""Adapters: few trainable parameters on a frozen model."""

from __future__ import annotations

from outlay.adapters.adalora import AdaLora
from outlay.adapters.base import Adapter, Follows, Moment, Penalises, Primes, forget
from outlay.adapters.dynamic_sparse import DynamicSparse
from outlay.adapters.geometry import SafeMask
from outlay.adapters.grafting import Grafting
from outlay.adapters.intrinsic import Intrinsic
from outlay.adapters.lora import Lora
from outlay.adapters.lora_sb import LoraSb
from outlay.adapters.lora_xs import LoraXs
from outlay.adapters.low_rank import LowRank
from outlay.adapters.perp import Perp
from outlay.adapters.quantised import Quantised
from outlay.adapters.sara import Sara
from outlay.adapters.sltrain import SLTrain
from outlay.adapters.spectral import SparseSpectral
from outlay.adapters.structured import Structured

METHODS: dict[str, type] = {
    "lora": Lora,
    "adalora": AdaLora,
    "lora_xs": LoraXs,
    "lora_sb": LoraSb,
    "intrinsic": Intrinsic,
    "safe_mask": SafeMask,
    "grafting": Grafting,
    "sara": Sara,
    "dynamic_sparse": DynamicSparse,
    "low_rank": LowRank,
    "sltrain": SLTrain,
    "sparse_spectral": SparseSpectral,
    "structured": Structured,
    "perp": Perp,
    "quantised": Quantised,
}

__all__ = [
    "METHODS",
    "AdaLora",
    "Adapter",
    "DynamicSparse",
    "Follows",
    "Grafting",
    "Intrinsic",
    "Lora",
    "LoraSb",
    "LoraXs",
    "Moment",
    "Penalises",
    "Primes",
    "Quantised",
    "SafeMask",
    "Sara",
    "LowRank",
    "SLTrain",
    "SparseSpectral",
    "Structured",
    "forget",
    "Perp",
]
