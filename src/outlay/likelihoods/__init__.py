"""Likelihoods: of what the gradient is taken."""

from __future__ import annotations

from outlay.likelihoods.base import Likelihood

METHODS: dict[str, type] = {}

__all__ = ["METHODS", "Likelihood"]
