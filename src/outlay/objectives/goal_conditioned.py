"""Goal-conditioned reward models: hidden states along a good answer point to where good answers end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn.functional import cosine_similarity, logsigmoid

from outlay.catalog import Paper
from outlay.objectives.base import at_least_single
from outlay.objectives.pairs import PairChoice, content
from outlay.objectives.reward_model import compared_groups, comparisons, ranking, run, scores_of
from outlay.rng import numpy_generator
from outlay.schedules.base import require
from outlay.sources.base import IGNORED, Batch


def similarity(one: torch.Tensor, other: torch.Tensor, kind: str) -> torch.Tensor:
    """Return Q of states (..., width): their cosine, in [-1, 1], or their dot product."""
    return cosine_similarity(one, other, dim=-1) if kind == "cosine" else (one * other).sum(-1)


@dataclass(frozen=True)
class GoalConditionedReward:
    """The ranking loss plus goal_weight L_c, L_c the mean over groups with a pair of -log sigma(Q(h_s, h_+)) - log(1 - sigma(Q(h_s, h_-))).

    h is the last layer's hidden state; ``rewards/goal_conditioned`` reads it at inference. h_s is that of a random token of the group's better
    answer, h_+ of a random later token of the same answer, h_- of a random token, as late, of the worse one, and Q their similarity, so that a state
    early in a good answer is told from where bad answers end. Where an answer ends before there is a later token, its last one is taken.
    Tokens are drawn from a stream that follows from the pair's tokens, so that the same pair gives the same draw.

    Knob ``goal_weight`` >= 0, lambda in the paper, whose value is not known here: 0.5. With 0 it is ``reward_model``.

    Args:
        similarity: ``cosine`` or ``dot``; the paper's is not known here.
        margin: as in ``reward_model``.
        centring: as in ``reward_model``.
        pairs: which pair of a group is contrasted; all of them are ranked.
    """

    title: ClassVar[str] = "Goal-conditioned reward model"
    paper: ClassVar[Paper | None] = Paper("2407.13887", "Learning Goal-Conditioned Representations for Language Reward Models", 2024)
    knobs: ClassVar[dict[str, float]] = {"goal_weight": 0.5}
    whole_groups: ClassVar[bool] = True

    similarity: Literal["cosine", "dot"] = "cosine"
    margin: float = 0.0
    centring: float = 0.0
    pairs: PairChoice = field(default_factory=PairChoice)

    def __post_init__(self) -> None:
        require(self.similarity in ("cosine", "dot"), f"similarity must be cosine or dot, found {self.similarity!r}")
        for name in ("margin", "centring"):
            require(0 <= getattr(self, name) < float("inf"), f"{name} must be finite and >= 0, found {getattr(self, name)}")
        require(self.pairs.length_penalty == 0, "pairs are those that are ranked, without a length_penalty")

    def weight(self, batch: Batch) -> float:
        """Return the number of groups with a pair."""
        return compared_groups(comparisons(batch), batch)

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss over the groups of ``input_ids`` (n, T) with ``labels`` (n, T), ``group`` (n,) and ``reward`` (n,), and the part
        ``goal_loss`` before its weight.

        Raises:
            InputError: when the model gives no single score.
        """
        goal_weight = knobs.get("goal_weight", self.knobs["goal_weight"])
        output, pairs = run(model, batch, output_hidden_states=True), comparisons(batch)
        scores = scores_of(output)
        if not len(pairs):
            return scores.sum() * 0.0, {}
        loss, measures = ranking(scores, pairs, batch, self.margin, self.centring)
        if goal_weight == 0:
            return loss, measures
        states = at_least_single(output.hidden_states[-1])
        losses = [self._contrast(states, better, worse, batch) for better, worse in self.pairs.of(batch).tolist()]
        contrast = torch.stack(losses).mean()
        return loss + goal_weight * contrast, {**measures, "goal_loss": contrast.detach()}

    def _contrast(self, states: torch.Tensor, better: int, worse: int, batch: Batch) -> torch.Tensor:
        good, bad = (torch.nonzero(batch["labels"][row] != IGNORED).flatten() for row in (better, worse))
        source, later, other = places(len(good), len(bad), content([better, worse], batch))
        at, positive, negative = states[better, good[source]], states[better, good[later]], states[worse, bad[other]]
        return -logsigmoid(similarity(at, positive, self.similarity)) - logsigmoid(-similarity(at, negative, self.similarity))


def places(good: int, bad: int, counter: int) -> tuple[int, int, int]:
    """Return the places of source and positive goal in an answer of ``good`` tokens, and of the negative goal in one of ``bad``.

    Args:
        good: > 0.
        bad: > 0.
        counter: place of the draw in its stream.
    """
    draw = numpy_generator(0, "objectives/goal_conditioned", counter)
    source = int(draw.integers(max(1, good - 1)))
    later = int(draw.integers(min(source + 1, good - 1), good))
    return source, later, int(draw.integers(min(source + 1, bad - 1), bad))
