"""Residual rules: what becomes of the part of a gradient that a projection leaves."""

from __future__ import annotations

from outlay.residuals.base import Residual, Split
from outlay.residuals.channel_scaled import ChannelScaled
from outlay.residuals.drop import Drop
from outlay.residuals.feedback import Feedback
from outlay.residuals.norm_scaled import NormScaled
from outlay.residuals.raw import Raw
from outlay.residuals.sign import Sign

METHODS: dict[str, type] = {
    "drop": Drop,
    "norm_scaled": NormScaled,
    "channel_scaled": ChannelScaled,
    "sign": Sign,
    "raw": Raw,
    "feedback": Feedback,
}

__all__ = ["METHODS", "ChannelScaled", "Drop", "Feedback", "NormScaled", "Raw", "Residual", "Sign", "Split"]
