"""The likelihood of the policy-gradient estimator: of what the gradient is taken, a token or a whole answer."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch


@runtime_checkable
class Likelihood(Protocol):
    """Forms the ratio pi / pi_ref that carries the gradient."""

    def ratio(self, current: torch.Tensor, denominator: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the ratio (n, T - 1).

        Args:
            current: log pi with gradient, (n, T - 1), 0 outside the answer.
            denominator: log pi_ref without, the same shape.
            mask: True on the answer's tokens.
        """
        ...
