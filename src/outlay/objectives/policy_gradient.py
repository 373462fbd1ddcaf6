"""Policy gradient: one estimator with exchangeable parts, of which nearly every method of reinforcement learning on answers is a setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional

from outlay.advantages import Advantage, Group
from outlay.anchors import Anchor
from outlay.anchors.base import Scored
from outlay.catalog import Paper
from outlay.denominators import Behaviour, Denominator
from outlay.likelihoods import Likelihood, Token
from outlay.objectives.references import bound
from outlay.schedules.base import require
from outlay.sequences import (
    Frozen,
    answer_logits,
    answer_mask,
    entropies,
    evaluating,
    frozen_log_probs,
    in_pieces,
    judged_rows,
    log_probs_of,
    on_answers,
    row_means,
    row_sums,
    shifted,
)
from outlay.sources.base import Batch
from outlay.stabilisers import Clip, Stabiliser

#: how tokens' losses become one number
Aggregate = Literal["token_mean", "sequence_mean", "sequence_sum", "constant"]


@dataclass(frozen=True)
class PolicyGradient:
    """Loss = aggregate_t[ -w_t S(r_t, A_t) + sum of the anchors' penalties ], whose gradient is that of the unified estimator

        1_stable (1 / pi_ref) A grad pi

    with r = pi / pi_ref formed by ``likelihood`` and ``denominator``, w the denominator's correction for tokens that another distribution drew, A
    from ``advantage``, and S and its mask 1_stable from ``stabiliser``. Supervised fine-tuning is the same with pi_ref = sg(pi), A = 1 and no mask.

    ``aggregate`` is part of a method as much as its parts are:

    ``token_mean``     sum over all answers' tokens / their number: a long answer weighs more
    ``sequence_mean``  mean over answers of their tokens' mean: every answer weighs the same, a token of a long one less
    ``sequence_sum``   mean over answers of their tokens' sum: the gradient of the answers' log likelihoods
    ``constant``       mean over answers of their tokens' sum / a constant: the same, in the size of a token's

    Answers that were not judged count nowhere; tokens whose advantage is 0 or whose gradient is cut count in the mean.

    The batch must be prepared: ``prepare`` works out, once for a generated batch, the columns ``old``, ``reference`` (where a part asks for them) and
    ``advantage``, all (n, T). Measures, means over the loss's units: ``clip_fraction`` (tokens whose gradient is cut), ``approx_kl``
    (mean of r - 1 - log r, that is KL(pi_ref || pi) on tokens that pi_ref drew), ``entropy`` in nats a token, ``ratio``, ``correction`` where there
    is one, and the anchors'.

    Args:
        advantage: how much better than expected an answer was.
        denominator: what the likelihood is divided by.
        likelihood: of what the gradient is taken.
        stabiliser: which tokens may still move.
        aggregate: how tokens' losses become one number.
        length: the constant of ``constant`` in tokens, > 0; None for each row's own ``limit``.
        anchors: what holds the policy near something; each brings a knob.
        silent: whether answers with advantages of 0 alone are kept (and count in the mean) or dropped when the batch is prepared.
    """

    title: ClassVar[str] = "Policy gradient out of parts"
    paper: ClassVar[Paper | None] = Paper("2509.04419", "Towards a Unified View of Large Language Model Post-Training", 2025)

    advantage: Advantage = field(default_factory=Group)
    denominator: Denominator = field(default_factory=Behaviour)
    likelihood: Likelihood = field(default_factory=Token)
    stabiliser: Stabiliser = field(default_factory=Clip)
    aggregate: Aggregate = "token_mean"
    length: int | None = None
    anchors: tuple[Anchor, ...] = ()
    silent: Literal["keep", "drop"] = "keep"
    _frozen: Frozen | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        accepted = ("token_mean", "sequence_mean", "sequence_sum", "constant")
        require(self.aggregate in accepted, f"aggregate must be one of {', '.join(accepted)}, found {self.aggregate!r}")
        require(self.length is None or self.length > 0, f"length must be > 0, found {self.length}")
        require(self.silent in ("keep", "drop"), f"silent must be keep or drop, found {self.silent!r}")
        names = [name for anchor in self.anchors for name in anchor.knobs]
        require(len(set(names)) == len(names), f"each anchor may be given once, found the knobs {', '.join(names)}")

    @property
    def needs_greedy(self) -> bool:
        """Whether rollouts must come with the reward of the likeliest answer."""
        return self.advantage.needs_greedy

    @property
    def knobs(self) -> Mapping[str, float]:
        """The anchors' coefficients."""
        return {name: value for anchor in self.anchors for name, value in anchor.knobs.items()}

    @property
    def passes(self) -> float:
        """Forward passes over a batch that preparing takes: one for the model's own log probabilities, one for the frozen model's."""
        return float(self._scores_first) + float(self._compares)

    @property
    def _scores_first(self) -> bool:
        return self.denominator.needs_old or any(anchor.in_reward for anchor in self.anchors)

    @property
    def _compares(self) -> bool:
        return any(anchor.needs_reference for anchor in self.anchors)

    def bind(self, frozen: Frozen) -> PolicyGradient:
        """Return the same estimator, comparing with ``frozen()`` where an anchor asks for it."""
        return bound(self, frozen)

    def weight(self, batch: Batch) -> float:
        """Return how many judged tokens the batch holds for ``token_mean``, how many judged answers otherwise."""
        mask = taught(batch)
        return float(mask.sum() if self.aggregate == "token_mean" else mask.any(1).sum())

    # ---- once for each generated batch -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prepare(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> Batch:
        """Return the whole batch with the columns that the loss reads.

        Raises:
            ValueError: when an anchor compares with a frozen model and none was bound.
        """
        mask = answer_mask(batch)
        batch = dict(batch)
        if self._compares:
            require(self._frozen is not None, "an anchor compares with a frozen model; bind(frozen) must come before prepare")
            batch["reference"] = frozen_log_probs(self._frozen(), batch)  # type: ignore[misc]
        shaping = torch.zeros(mask.shape, dtype=_dtype(batch), device=mask.device)
        if self._scores_first:
            with evaluating(model):
                found = [self._first_scored(model, piece, knobs) for piece in in_pieces(batch, 64)]
            batch["old"] = functional.pad(torch.cat([one for one, _ in found]), (1, 0))
            shaping = -torch.cat([other for _, other in found]).to(shaping.dtype)
        batch["advantage"] = functional.pad(self._advantages(model, batch, mask, shaping), (1, 0))
        for anchor in self.anchors:
            batch = anchor.prepare(batch, mask)
        return self._kept(batch)

    def thin(self, batch: Batch) -> Batch:
        """Return the batch without answers whose advantages are all 0. ``share`` (n,) keeps the mean what it was: the weight that stays over the
        weight there was. Where an anchor holds every answer's tokens, all stay."""
        if any(not anchor.in_reward for anchor in self.anchors) or "advantage" not in batch:
            return batch
        loud = (shifted(batch, "advantage") != 0).any(1)
        if not bool(loud.any()):
            loud[0] = True
        kept = {name: column[loud] for name, column in batch.items()} if not bool(loud.all()) else dict(batch)
        share = self.weight(kept) / (self.weight(batch) or 1.0)
        return kept | {"share": torch.full((int(loud.sum()),), share, dtype=torch.float64)}

    def _first_scored(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, torch.Tensor]:
        logits, mask = answer_logits(model, batch), answer_mask(batch)
        scored = Scored(batch, logits, log_probs_of(logits, batch), mask, torch.zeros(mask.shape, device=mask.device))
        penalty = torch.zeros_like(scored.log_probs)
        for anchor in self.anchors:
            if anchor.in_reward:
                penalty = penalty + anchor.penalty(scored, knobs)
        return scored.log_probs, penalty

    def _advantages(self, model: nn.Module, batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
        return self.advantage.advantages(batch, mask, shaping)

    def _kept(self, batch: Batch) -> Batch:
        if self.silent == "keep":
            return batch
        loud = (batch["advantage"] != 0).any(1)
        # a batch in which nothing teaches stays as it is: its gradient is 0
        return {name: column[loud] for name, column in batch.items()} if bool(loud.any()) else batch

    # ---- every update ------------------------------------------------------------------------------------------------------------

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss and the measures of a prepared batch.

        Raises:
            ValueError: when the batch was not prepared.
        """
        return self.judge(answer_logits(model, batch), batch, knobs)

    def judge(self, logits: torch.Tensor, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return loss and measures, given the logits at the answers' tokens (tokens, vocabulary)."""
        loss, measures = self.of_tokens(logits, batch, knobs)
        whole = self.aggregated(loss, batch)
        if "share" in batch and len(batch["share"]):
            whole = whole * batch["share"][0].to(whole.dtype)
        return whole, {name: self.averaged(value, batch) for name, value in measures.items()}

    def of_tokens(self, logits: torch.Tensor, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return every token's loss and measures, each (n, T - 1), before they are aggregated."""
        require("advantage" in batch, "the batch holds no column 'advantage'; call prepare once for every generated batch")
        mask = answer_mask(batch)
        scored = Scored(batch, logits, log_probs_of(logits, batch), mask, shifted(batch, "advantage").to(logits.dtype))
        reference = self.denominator.log_probs(scored.log_probs, batch)
        ratio = self.likelihood.ratio(scored.log_probs, reference, mask)
        correction = self.denominator.correction(batch)
        surrogate = self.stabiliser.surrogate(ratio, scored.advantage)
        loss = -surrogate if correction is None else -surrogate * correction.to(surrogate.dtype)
        for anchor in self.anchors:
            if not anchor.in_reward:
                loss = loss + anchor.penalty(scored, knobs)
        with torch.no_grad():
            return loss, self._measures(scored, ratio, correction)

    def _measures(self, scored: Scored, ratio: torch.Tensor, correction: torch.Tensor | None) -> dict[str, torch.Tensor]:
        found = {
            "clip_fraction": 1 - self.stabiliser.active(ratio, scored.advantage).to(ratio.dtype),
            "approx_kl": ratio - 1 - ratio.log(),
            "entropy": on_answers(entropies(scored.logits), scored.mask),
            "ratio": ratio,
        }
        if correction is not None:
            found["correction"] = correction
        for anchor in self.anchors:
            found |= anchor.measures(scored)
        return {name: value.detach() for name, value in found.items()}

    def aggregated(self, values: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return one number out of tokens' losses (n, T - 1), as ``aggregate`` says."""
        mask = taught(batch)
        values = torch.where(mask, values, 0.0)
        if self.aggregate == "token_mean":
            return values.sum() / mask.sum().clamp(min=1)
        rows = mask.any(1).sum().clamp(min=1)
        if self.aggregate == "sequence_mean":
            return row_means(values, mask).sum() / rows
        sums = row_sums(values, mask)
        if self.aggregate == "sequence_sum":
            return sums.sum() / rows
        return (sums / (batch["limit"] if self.length is None else self.length)).sum() / rows

    def averaged(self, values: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean of tokens' measures (n, T - 1) over the loss's units: over tokens, or over answers of their tokens' means."""
        mask = taught(batch)
        values = torch.where(mask, values, 0.0)
        if self.aggregate == "token_mean":
            return values.sum() / mask.sum().clamp(min=1)
        return row_means(values, mask).sum() / mask.any(1).sum().clamp(min=1)


def taught(batch: Batch) -> torch.Tensor:
    """Return (n, T - 1): True on tokens of answers that were judged."""
    return answer_mask(batch) & judged_rows(batch)[:, None]


def _dtype(batch: Batch) -> torch.dtype:
    return torch.promote_types(batch["reward"].dtype, torch.float32) if "reward" in batch else torch.float32


def reference_policy_gradient(parts: PolicyGradient, log_probs: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the gradient that ``PolicyGradient`` promises, with respect to the tokens' log probabilities: a formula a line.

    Serves tests: (n, T - 1), for token-level ratios without anchors.
    """
    mask = taught(batch)
    advantage = shifted(batch, "advantage")
    ratio = torch.exp(log_probs - parts.denominator.log_probs(log_probs, batch))
    stable = parts.stabiliser.active(ratio, advantage)
    weight = parts.denominator.correction(batch)
    gradient = -1.0 * (mask & stable) * ratio * advantage * (1 if weight is None else weight)
    tokens, answers, lengths = mask.sum(), mask.any(1).sum(), mask.sum(1, keepdim=True).clamp(min=1)
    if parts.aggregate == "token_mean":
        return gradient / tokens
    if parts.aggregate == "sequence_mean":
        return gradient / lengths / answers
    if parts.aggregate == "sequence_sum":
        return gradient / answers
    return gradient / (batch["limit"][:, None] if parts.length is None else parts.length) / answers
