"""The local engine: completions written in this process, with the model that is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError, MissingExtra
from outlay.rollout.base import Completion, Leave, LogitsHook, Request, Sampling, check_counts
from outlay.rollout.choosing import StopText
from outlay.rollout.columns import Room
from outlay.rollout.fused import FusedPasses, fuses
from outlay.rollout.passes import Passes
from outlay.rollout.writing import Table, Writing
from outlay.schedules.base import require

#: rows side by side and bytes of keys and values that an engine takes by itself
SLOTS, ROOM = 256, 2**30
#: the fused passes keep prompts once when they are so long on average and so many rows share them
SHARED_LENGTH, SHARED_TIMES = 96, 6


@dataclass(frozen=True)
class Local:
    """Write completions in this process, many rows side by side.

    A prompt is read once for everybody who asked for it, by one request or by several. Rows that end give up their places at once; places are
    taken by the next in the queue as soon as an eighth of them is free, prompt by prompt, those with the most to write for each position to
    read first (the order by decode/prefill ratio of the paper; what a completion becomes does not depend on it). The paper's prefixes that
    different prompts share in part are not used.

    Args:
        slots: rows generated side by side at most, > 0; None for as many as there are, up to 256 and to a GiB of keys and values. All at
            once is quickest: a batch that shrinks costs less than one that is filled up again.
        fast: compute Llama, Mistral, Qwen 2 and Qwen 3 in single or double precision from fused copies of their weights, refreshed by every
            call; False goes through the model's own forward, as every other model does. Both write the same up to rounding.
    """

    title: ClassVar[str] = "Local rollouts with shared prompts"
    paper: ClassVar[Paper | None] = Paper("2412.03594", "BatchLLM: Optimizing Large Batched LLM Inference with Global Prefix Sharing", 2024)

    slots: int | None = None
    fast: bool = True

    def __post_init__(self) -> None:
        require(self.slots is None or self.slots > 0, f"slots must be > 0 or None, found {self.slots}")

    def open(self, model: nn.Module, context: Context) -> LocalGenerator:
        """Return a generator for a causal language model of transformers, bare or with adapters.

        Raises:
            InputError: when it is no such model, or one whose attention cannot be masked row by row.
            MissingExtra: without transformers.
        """
        try:
            from outlay.rollout.cache import check_generates
        except ImportError:
            raise MissingExtra("transformers", "hf") from None
        check_generates(model)
        return LocalGenerator(model, context.tokenizer, self)


class LocalGenerator:
    """The local engine opened for a model; between calls nothing is kept but empty buffers.

    Args:
        model: causal language model; its weights may change between calls.
        tokenizer: for the end mark and for stop strings; None for neither.
        engine: the fields of the engine.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, engine: Local) -> None:
        self._model, self._tokenizer, self._engine = model, tokenizer, engine
        self._end: int | None = getattr(tokenizer, "eos_token_id", None)
        self._room = Room()

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, *, seed: int, leave: Leave, hooks: Sequence[LogitsHook] = ()
    ) -> list[Completion]:
        """Return every request's completions in order of (request, sample), with the weights as they are now.

        Raises:
            InputError: for a request that cannot be met; nothing has been spent then.
        """
        self._check(requests, sampling)
        if not requests:
            return []
        stop = StopText(self._tokenizer, sampling.stop) if sampling.stop else None
        places = min(self._slots(requests), sum(request.samples for request in requests))
        fast = self._engine.fast and fuses(self._model)
        # a model's own forward may keep tensors, which must stay fit for training; the fused passes keep none
        with torch.inference_mode() if fast else torch.no_grad(), evaluating(self._model):
            passes = self._fused(places, requests) if fast else self._plain(places, requests)
            table = Table(passes, places, max(request.limit for request in requests), self._model)
            try:
                return Writing(requests, sampling, seed, leave, hooks, self._end, stop, table).run()
            finally:
                self._room.release()

    def _slots(self, requests: Sequence[Request]) -> int:
        if self._engine.slots is not None:
            return self._engine.slots
        from outlay.rollout.cache import position_bytes

        longest = max(len(request.prompt) + request.limit for request in requests)
        return max(1, min(SLOTS, ROOM // (longest * position_bytes(self._model))))

    def _fused(self, places: int, requests: Sequence[Request]) -> Passes:
        prompts = {request.prompt for request in requests}
        read = sum(len(prompt) for prompt in prompts)
        copied = sum(len(request.prompt) * request.samples for request in requests)
        # shorter or less shared, a prompt is copied sooner than brought together
        share = read >= SHARED_LENGTH * len(prompts) and copied >= SHARED_TIMES * read
        longest = max(len(prompt) for prompt in prompts)
        return FusedPasses(
            self._model, self._room, places, longest, max(request.limit for request in requests), min(places, len(prompts)), share
        )

    def _plain(self, places: int, requests: Sequence[Request]) -> Passes:
        from outlay.rollout.cache import ModelPasses

        return ModelPasses(self._model, places, max(len(request.prompt) + request.limit for request in requests) - 1)

    def _check(self, requests: Sequence[Request], sampling: Sampling) -> None:
        from outlay.rollout.cache import longest_sequence

        check_counts(requests)
        vocabulary = self._model.get_input_embeddings().num_embeddings  # type: ignore[operator]
        longest = longest_sequence(self._model)
        for number, request in enumerate(requests):
            if not 0 <= min(request.prompt) <= max(request.prompt) < vocabulary:
                raise InputError(f"request {number} holds a token outside 0 to {vocabulary - 1}, the model's vocabulary")
            needed = len(request.prompt) + request.limit - 1  # the last token is not read
            if longest is not None and needed > longest:
                raise InputError(
                    f"request {number} takes {needed} positions and the model has {longest}; shorten its prompt of {len(request.prompt)} "
                    f"tokens or its limit of {request.limit}"
                )
        if sampling.stop and self._tokenizer is None:
            raise InputError(f"stop strings {sampling.stop} need a tokenizer, and the context has none")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while; each module goes back to its own."""
    trained = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in trained:
            module.training = True
