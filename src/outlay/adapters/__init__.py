"""Adapters: few trainable parameters on a frozen model."""

from __future__ import annotations

from outlay.adapters.base import Adapter, Follows, Moment, Penalises, Primes, forget
from outlay.adapters.lora import Lora
from outlay.adapters.sara import Sara

METHODS: dict[str, type] = {
    "lora": Lora,
    "sara": Sara,
}

__all__ = ["METHODS", "Adapter", "Follows", "Lora", "Moment", "Penalises", "Primes", "forget", "Sara"]
