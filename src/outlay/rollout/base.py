"""The rollout seam: an engine writes completions to prompts with the model as it is now, and asks before it spends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import nn

from outlay.context import Context
from outlay.errors import InputError
from outlay.rng import derive
from outlay.schedules.base import require

#: how a completion ended: with the end mark; with a stop string; at its limit; cut off because the budget bore no more
Ended = Literal["end", "stop", "limit", "cut"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    The distribution is softmax(logits / temperature) after the hooks; ``top_k`` and ``top_p`` then leave its likeliest tokens, renormalised.

    Args:
        temperature: >= 0; 0 takes the likeliest token.
        top_p: keep the fewest likeliest tokens whose probabilities sum to at least this, in (0, 1]; 1 keeps all.
        top_k: keep this many likeliest tokens, >= 0; 0 keeps all. Applied before ``top_p``.
        stop: a completion ends once its text holds one of these; the tokens that complete it are kept.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(0 <= self.temperature < float("inf"), f"temperature must be a finite number >= 0, found {self.temperature}")
        require(0 < self.top_p <= 1, f"top_p must lie in (0, 1], found {self.top_p}")
        require(self.top_k >= 0, f"top_k must be >= 0, found {self.top_k}")
        require(all(self.stop), f"a stop string must not be empty, found {self.stop}")


@dataclass(frozen=True)
class Request:
    """Completions wanted of one prompt.

    Args:
        prompt: its tokens, at least one.
        samples: how many completions, >= 1; requests of one call may differ in it.
        limit: new tokens of each at most, end mark included, >= 1; requests may differ in it.
        stream: number that tells this request's random streams from others'; see ``sample_stream``.
    """

    prompt: tuple[int, ...]
    samples: int
    limit: int
    stream: int = 0


@dataclass(frozen=True)
class Completion:
    """One completion.

    Args:
        request: index of its request in the call.
        sample: its number among the request's samples, 0-based.
        tokens: what was written, the end mark included where it came.
        logprobs: of each token under softmax(logits / temperature) after the hooks, before ``top_k`` and ``top_p``; at temperature 0 that of
            temperature 1.
        ended: how it ended.
    """

    request: int
    sample: int
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: Ended


@dataclass(frozen=True)
class Work:
    """What the next piece of generation will take.

    Args:
        prompt_tokens: prompt positions that will be computed; a prefix shared by several samples counts once.
        new_tokens: tokens that will be written.
        read_tokens: written tokens that will be read back to go on, so that positions computed are ``prompt_tokens + read_tokens``.
        rollouts: completions that will be begun.
        when: ``now`` is charged when there is leave. An engine that learns afterwards what a piece took asks ``ahead`` for the most that all
            which is unfinished can take, which is not charged, and tells ``after`` what it took, which is charged without being refused.
    """

    prompt_tokens: int = 0
    new_tokens: int = 0
    read_tokens: int = 0
    rollouts: int = 0
    when: Literal["now", "ahead", "after"] = "now"

    def amounts(self, flops_per_position: float) -> dict[str, float]:
        """Return what it takes of every counted unit; FLOPs are those of a forward pass at so many a position."""
        computed = float(self.prompt_tokens + self.read_tokens)
        return {
            "rollouts": float(self.rollouts), "new_tokens": float(self.new_tokens), "tokens": computed, "flops": flops_per_position * computed,
        }  # fmt: skip


#: asked before each piece of work; True charges it and lets it happen, False ends the generation: what is unfinished comes back ``cut``
Leave = Callable[[Work], bool]


class LogitsHook(Protocol):
    """Changes logits before a token is chosen."""

    def __call__(self, logits: torch.Tensor, rows: Sequence[tuple[int, int]], written: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the logits to choose by.

        Args:
            logits: (rows, vocabulary); may be changed in place.
            rows: (request, sample) of every row.
            written: the tokens that every row's completion holds so far.
        """
        ...


@runtime_checkable
class Generator(Protocol):
    """An engine opened for a model."""

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, *, seed: int, leave: Leave, hooks: Sequence[LogitsHook] = ()
    ) -> list[Completion]:
        """Return every request's completions in order of (request, sample), with the weights as they are now.

        What a sample becomes depends on the weights, its prompt, limit and random stream, never on what is generated beside it (but for the
        last bits of floating point). When ``leave`` says no, completions that are unfinished or not begun come back ``cut``, the latter empty.
        """
        ...


@runtime_checkable
class Engine(Protocol):
    """Describes a way to generate."""

    def open(self, model: nn.Module, context: Context) -> Generator:
        """Return a generator for the model, whose weights may change between its calls.

        Raises:
            InputError: when the model cannot be generated from.
            MissingExtra: when an optional package is needed.
        """
        ...


def check_counts(requests: Sequence[Request]) -> None:
    """Raise ``InputError`` naming the first request without a prompt token, a sample or a new token."""
    for number, request in enumerate(requests):
        if not request.prompt or request.samples < 1 or request.limit < 1:
            found = f"{len(request.prompt)} tokens, {request.samples} samples and limit {request.limit}"
            raise InputError(f"request {number} needs at least one prompt token, sample and new token, found {found}")


def sample_stream(seed: int, stream: int, sample: int) -> int:
    """Return the seed of the random stream that one sample reads: one uniform number a token, in order."""
    return derive(seed, f"rollout/{stream}", sample)
