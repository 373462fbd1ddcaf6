"""Lp-Reg: rare tokens that are no noise are kept from being punished out of existence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from outlay.anchors.base import Scored
from outlay.catalog import Paper
from outlay.schedules.base import require
from outlay.sequences import judged_rows, knob, on_answers, shifted
from outlay.sources.base import Batch


@dataclass(frozen=True)
class LowProbability:
    """coefficient * KL(proxy || pi) on tokens that are rare, punished and no noise; 0 on all others; knob ``low_probability``.

    proxy(v) = sg(pi(v)) / Z on the tokens v with pi(v) > threshold, 0 on the rest, Z the sum over the former; the threshold is
    ``kappa`` max_v pi(v) (min_p) or ``kappa`` itself (fixed). A token is rare when it is less likely than the lowest ``share`` of the batch's sampled
    tokens, by the probabilities that it was generated with; punished when A_t < 0; no noise when proxy(y_t) > 0. There the penalty's
    value is -log Z and its gradient with respect to the logits coefficient * (pi - proxy). The divergence is the forward one over the whole vocabulary, as
    in the paper's text; the proxy is formed from the policy as it is at the update. Measure ``protected``: the share of tokens so treated.

    Args:
        coefficient: default of the knob, >= 0.
        share: share of sampled tokens that count as rare, in [0, 1].
        filter: whether the threshold is relative to the likeliest token.
        kappa: the threshold or its ratio to the greatest probability, in [0, 1).
    """

    title: ClassVar[str] = "Low-probability regularisation (Lp-Reg)"
    paper: ClassVar[Paper | None] = Paper(
        "2510.03222", "Low-probability Tokens Sustain Exploration in Reinforcement Learning with Verifiable Reward", 2025
    )
    needs_reference: ClassVar[bool] = False
    in_reward: ClassVar[bool] = False

    coefficient: float = 1.0
    share: float = 0.01
    filter: Literal["min_p", "fixed"] = "min_p"
    kappa: float = 0.02

    def __post_init__(self) -> None:
        require(self.coefficient >= 0, f"coefficient must be >= 0, found {self.coefficient}")
        require(0 <= self.share <= 1, f"share must lie in [0, 1], found {self.share}")
        require(self.filter in ("min_p", "fixed"), f"filter must be min_p or fixed, found {self.filter!r}")
        require(0 <= self.kappa < 1, f"kappa must lie in [0, 1), found {self.kappa}")

    @property
    def knobs(self) -> Mapping[str, float]:
        """``low_probability`` and its default."""
        return {"low_probability": self.coefficient}

    def prepare(self, batch: Batch, mask: torch.Tensor) -> Batch:
        """Return the batch with the column ``rare_below`` (n,): the log probability below which a token is rare."""
        sampled = shifted(batch, "old" if "old" in batch else "behaviour")[mask & judged_rows(batch)[:, None]]
        # the (share * tokens + 1)-th smallest: so many lie below it
        rank = int(self.share * len(sampled))
        edge = sampled.sort().values[rank] if rank < len(sampled) else sampled.new_tensor(torch.inf)
        return {**batch, "rare_below": edge.expand(len(mask)).contiguous()}

    def penalty(self, scored: Scored, knobs: Mapping[str, float]) -> torch.Tensor:
        """Return coefficient * KL(proxy || pi) where it applies, (n, T - 1)."""
        chosen = self._protected(scored)
        found = scored.log_probs.new_zeros(scored.mask.shape)
        if not bool(chosen.any()):
            return found
        log_probs = scored.logits[chosen[scored.mask]].log_softmax(-1)
        kept, proxy = self._proxy(log_probs.detach())
        divergences = torch.where(kept, proxy.exp() * (proxy - log_probs), 0.0).sum(-1)
        return knob(knobs, "low_probability", self.coefficient) * found.masked_scatter(chosen, divergences)

    def measures(self, scored: Scored) -> dict[str, torch.Tensor]:
        """Return ``protected``."""
        return {"protected": self._protected(scored).to(scored.log_probs.dtype)}

    def _protected(self, scored: Scored) -> torch.Tensor:
        likely = scored.log_probs.detach()
        edge = scored.batch["rare_below"][:, None].to(likely.dtype)
        logits = scored.logits.detach()
        highest = on_answers(logits.amax(-1) - logits.logsumexp(-1), scored.mask)
        return scored.mask & (scored.advantage < 0) & (likely < edge) & (likely > self._threshold(highest))

    def _proxy(self, log_probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        kept = log_probs > self._threshold(log_probs.amax(-1, keepdim=True))
        left = log_probs.masked_fill(~kept, -torch.inf)
        # what was dropped gets a finite value: it is multiplied by a mask, and its gradient must not be nan
        return kept, (left - left.logsumexp(-1, keepdim=True)).masked_fill(~kept, 0.0)

    def _threshold(self, highest: torch.Tensor) -> torch.Tensor:
        if self.kappa == 0:
            return torch.full_like(highest, -torch.inf)
        base = torch.full_like(highest, self.kappa).log()
        return base + highest if self.filter == "min_p" else base
