"""Likelihoods: of what the gradient is taken."""

from __future__ import annotations

from outlay.likelihoods.base import Likelihood
from outlay.likelihoods.token import Token

METHODS: dict[str, type] = {
    "token": Token,
}

__all__ = [
    "METHODS",
    "Likelihood",
    "Token",
]
