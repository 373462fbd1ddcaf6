"""Pairs: which two answers of a group are compared, and what objectives over pairs share."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import nn

from outlay.objectives.sequences import answer_mask, judged_rows
from outlay.rng import numpy_generator
from outlay.schedules.base import require
from outlay.sources.base import Batch

_CHOICES = ("max_min", "max_second", "max_random")


@dataclass(frozen=True)
class PairChoice:
    """Which pair a group of answers to the same question gives: its best answer, and one that is worth strictly less.

    Answers that were not judged and reference answers (``demonstration``) are in no pair. A group whose answers are worth the same gives none.

    Args:
        choose: the other answer: ``max_min`` the worst, ``max_second`` the best of the others, ``max_random`` any of the others, drawn from a stream
            that follows from the group's tokens, so that the same group gives the same pair.
        length_penalty: taken off an answer's reward for each of its tokens before it is ranked, >= 0.
    """

    choose: Literal["max_min", "max_second", "max_random"] = "max_min"
    length_penalty: float = 0.0

    def __post_init__(self) -> None:
        require(self.choose in _CHOICES, f"choose must be one of {', '.join(_CHOICES)}, found {self.choose!r}")
        require(0 <= self.length_penalty < float("inf"), f"length_penalty must be finite and >= 0, found {self.length_penalty}")

    @staticmethod
    def from_plain(value: object) -> object:
        """Read ``pairs: max_second`` as the choice alone."""
        return {"choose": value} if isinstance(value, str) else value

    def of(self, batch: Batch) -> torch.Tensor:
        """Return the rows (better, worse) of every pair, (pairs, 2), in order of their groups."""
        worth = (batch["reward"].double() - self.length_penalty * answer_mask(batch).sum(1)).tolist()
        found = []
        for rows in self._groups(batch):
            best = max(rows, key=lambda row: worth[row])
            others = [row for row in rows if worth[row] < worth[best]]
            if others:
                found.append((best, self._other(others, worth, batch)))
        return torch.tensor(found, dtype=torch.long, device=batch["labels"].device).view(-1, 2)

    def without_others(self, batch: Batch) -> Batch:
        """Return the rows that a loss over pairs reads: each pair's two, a group's first where it gives none, so that no group is lost, and the
        reference answers."""
        kept = torch.zeros(len(batch["labels"]), dtype=torch.bool, device=batch["labels"].device)
        kept[self.of(batch).flatten()] = True
        if "demonstration" in batch:
            kept |= batch["demonstration"].bool()
        for number in torch.unique(batch["group"]):
            mine = batch["group"] == number
            if not bool((kept & mine).any()):
                kept[torch.nonzero(mine)[0]] = True
        return {name: column[kept] for name, column in batch.items()}

    def _groups(self, batch: Batch) -> list[list[int]]:
        usable = judged_rows(batch)
        if "demonstration" in batch:
            usable = usable & ~batch["demonstration"].bool()
        groups: dict[int, list[int]] = {}
        for row, (number, ranked) in enumerate(zip(batch["group"].tolist(), usable.tolist(), strict=True)):
            if ranked:
                groups.setdefault(number, []).append(row)
        return [groups[number] for number in sorted(groups)]

    def _other(self, rows: list[int], worth: list[float], batch: Batch) -> int:
        if self.choose == "max_random":
            draw = numpy_generator(0, "objectives/pairs", content(rows, batch))
            return rows[int(draw.integers(len(rows)))]
        return (min if self.choose == "max_min" else max)(rows, key=lambda row: worth[row])


@dataclass(frozen=True)
class Pairwise:
    """An objective whose units are pairs and that has no reference. A method says what a pair costs when it is called; everything else is here.

    Args:
        pairs: which pair a group gives.
    """

    whole_groups: ClassVar[bool] = True
    passes: ClassVar[float] = 0.0

    pairs: PairChoice = field(default_factory=PairChoice)

    def prepare(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> Batch:
        """Return the rows that are in a pair or hold a reference answer (and one of every other group)."""
        return self.pairs.without_others(batch)

    def weight(self, batch: Batch) -> float:
        """Return the number of pairs."""
        return float(len(self.pairs.of(batch)))


def together(batch: Batch) -> torch.Tensor:
    """Return (n, n): True where both rows were judged and answer the same question."""
    judged = judged_rows(batch)
    return (batch["group"][:, None] == batch["group"][None]) & judged[:, None] & judged[None]


def content(rows: list[int], batch: Batch) -> int:
    """Return a number that follows from the rows' tokens, the place of their draw in a stream."""
    return zlib.crc32(b"".join(batch["input_ids"][row][batch["attention_mask"][row].bool()].cpu().numpy().tobytes() for row in rows))


def pair_measures(better: torch.Tensor, worse: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the share of pairs in the right order, ``pair_accuracy``, and the mean ``margin``, from the scores (pairs,) of either side."""
    difference = (better - worse).detach()
    return {"pair_accuracy": (difference > 0).to(difference.dtype).mean(), "margin": difference.mean()}
