"""Distillation: a student learns the distributions of a frozen teacher, token by token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional

from outlay.catalog import Paper
from outlay.errors import InputError
from outlay.models.base import ModelSpec
from outlay.objectives.base import Objective
from outlay.objectives.references import bound, token_count
from outlay.objectives.sequences import Frozen, answer_logits, answer_mask
from outlay.schedules.base import require
from outlay.sources.base import Batch

_KINDS = ("forward_kl", "reverse_kl", "jensen_shannon", "sampled")


def divergence(student: torch.Tensor, teacher: torch.Tensor, kind: str, mixture: float = 0.5) -> torch.Tensor:
    """Return D(teacher, student) of every position, (tokens,), from log probabilities (tokens, vocabulary).

    With T the teacher's distribution and S the student's: ``forward_kl`` KL(T || S); ``reverse_kl`` KL(S || T); ``jensen_shannon``
    b KL(T || M) + (1 - b) KL(S || M), M = b T + (1 - b) S, b = ``mixture``.
    """
    if kind == "forward_kl":
        return _kl(teacher, student)
    if kind == "reverse_kl":
        return _kl(student, teacher)
    share = torch.tensor(mixture, dtype=student.dtype, device=student.device)
    middle = torch.logaddexp(teacher + share.log(), student + torch.log1p(-share))
    return mixture * _kl(teacher, middle) + (1 - mixture) * _kl(student, middle)


def _kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one.exp() * (one - other)).sum(-1)


@dataclass(frozen=True)
class Distillation:
    """Mean over the answers' tokens of a divergence between teacher T and student S, on whatever answers the batch holds.

        forward_kl      KL(T || S)                                                  covers all that the teacher may say
        reverse_kl      KL(S || T)                                                  seeks what the teacher would surely say
        jensen_shannon  b KL(T || M) + (1 - b) KL(S || M), M = b T + (1 - b) S      between the two (generalised knowledge distillation)
        sampled         -sg(r_t) log S(y_t), r_t = log T(y_t) - log S(y_t)          estimates the gradient of reverse_kl from the student's own tokens

    Answers of the teacher under ``forward_kl`` are the warm-up of sparse-to-dense training; answers that the student samples afresh under
    ``reverse_kl`` (or ``sampled``, whose implicit reward r_t needs no sum over the vocabulary) are on-policy distillation. ``sampled`` is right for
    the student's own answers alone. Answers sampled at a temperature are compared at that temperature. The teacher must read the student's
    tokens; its vocabulary must be of the same size. Answers that were not judged teach like any other, since the teacher is the judge.

    Args:
        teacher: the model to learn from, such as ``{pretrained: {path: runs/teacher/model}}``; built when the stage begins, and never trained.
        divergence: which of the four.
        mixture: the teacher's share b of the mixture, in (0, 1), for ``jensen_shannon``.
    """

    title: ClassVar[str] = "Distillation from a teacher"
    paper: ClassVar[Paper | None] = Paper(
        "2306.13649", "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes", 2023
    )
    knobs: ClassVar[dict[str, float]] = {}

    teacher: ModelSpec
    divergence: Literal["forward_kl", "reverse_kl", "jensen_shannon", "sampled"] = "forward_kl"
    mixture: float = 0.5
    _frozen: Frozen | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.divergence in _KINDS, f"divergence must be one of {', '.join(_KINDS)}, found {self.divergence!r}")
        require(0 < self.mixture < 1, f"mixture must lie in (0, 1), found {self.mixture}; its limits are forward_kl and reverse_kl")

    def bind(self, frozen: Callable[[], nn.Module]) -> Objective:
        """Return the objective with its teacher built; the student's own start is not needed.

        Raises:
            InputError: when the teacher cannot be built.
        """
        teacher = self.teacher.build(0).module.eval().requires_grad_(False)
        return bound(self, lambda: teacher)

    def weight(self, batch: Batch) -> float:
        """Return the number of labelled tokens."""
        return token_count(batch)

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean divergence on the labelled tokens of ``input_ids`` (n, T), and ``implicit_reward``, the mean r_t.

        Raises:
            InputError: when the objective has not been bound, or the teacher's vocabulary is of another size.
        """
        student = functional.log_softmax(answer_logits(model, batch), -1)
        teacher = self._log_probs(student, batch)
        wanted = batch["labels"][:, 1:][answer_mask(batch)][:, None]
        count = max(1, len(wanted))
        written = student.gather(-1, wanted).squeeze(-1)
        reward = (teacher.gather(-1, wanted).squeeze(-1) - written).detach()
        losses = -reward * written if self.divergence == "sampled" else divergence(student, teacher, self.divergence, self.mixture)
        return losses.sum() / count, {"implicit_reward": reward.sum() / count}

    def _log_probs(self, student: torch.Tensor, batch: Batch) -> torch.Tensor:
        if self._frozen is None:
            raise InputError("objectives/distillation has no teacher yet; use what bind(frozen) returns, as a stage of a recipe does")
        teacher = self._frozen().to(student.device)
        with torch.no_grad():
            logits = answer_logits(teacher, batch)
        if logits.shape[-1] != student.shape[-1]:
            raise InputError(
                f"the teacher tells {logits.shape[-1]} tokens apart and the student {student.shape[-1]}; "
                "distillation needs one tokenizer and vocabularies of one size"
            )
        return functional.log_softmax(logits.to(student.dtype), -1)
