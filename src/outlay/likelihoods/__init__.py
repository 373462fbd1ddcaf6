"""Likelihoods: of what the gradient is taken."""

from __future__ import annotations

from outlay.likelihoods.base import Likelihood
from outlay.likelihoods.sequence import Sequence
from outlay.likelihoods.token import Token
from outlay.likelihoods.whole_sequence import WholeSequence

METHODS: dict[str, type] = {
    "token": Token,
    "sequence": Sequence,
    "whole_sequence": WholeSequence,
}

__all__ = [
    "METHODS",
    "Likelihood",
    "Sequence",
    "Token",
    "WholeSequence",
]
