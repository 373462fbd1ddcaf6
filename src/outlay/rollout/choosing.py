"""Choosing tokens: the distribution that ``Sampling`` describes, read at one uniform number a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from outlay.rollout.base import Sampling, sample_stream


def choose(logits: torch.Tensor, sampling: Sampling, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each row's token and its log-probability, both (rows,).

    With p = softmax(logits / temperature), the token is the first whose cumulative probability exceeds the row's uniform number u: in order of
    the vocabulary, or, with ``top_k`` or ``top_p``, in order of falling probability among those that are left, u taken as a share of what
    they hold together. A row's token depends on its own logits and u alone.

    Args:
        logits: (rows, vocabulary), hooks already applied.
        sampling: temperature, ``top_k`` and ``top_p``.
        uniforms: (rows,) in [0, 1), double precision; not read at temperature 0.
    """
    if logits.dtype != torch.float64:
        logits = logits.float()
    if sampling.temperature == 0:
        tokens = logits.argmax(-1, keepdim=True)
        # temperature 0 is scored at 1
        return tokens[:, 0], torch.log_softmax(logits, -1).gather(-1, tokens)[:, 0]
    scaled = logits if sampling.temperature == 1 else logits / sampling.temperature
    chances = torch.softmax(scaled, -1)
    kept, order = (chances, None) if sampling.top_k == 0 and sampling.top_p == 1 else _likeliest(chances, sampling)
    # double precision: sums over a large vocabulary must neither drift nor reach the total before its last token
    wide = torch.float64 if logits.device.type != "mps" else torch.float32
    sums = kept.cumsum(-1, dtype=wide)
    target = (uniforms.to(wide) * sums[:, -1]).unsqueeze(-1)
    tokens = torch.searchsorted(sums, target, right=True).clamp_(max=sums.shape[-1] - 1)
    if order is not None:
        tokens = order.gather(-1, tokens)
    return tokens[:, 0], chances.gather(-1, tokens)[:, 0].log()


def _likeliest(chances: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the probabilities that are left, 0 where nothing is, in falling order, and the tokens they belong to."""
    if 0 < sampling.top_k < chances.shape[-1]:
        kept, order = chances.topk(sampling.top_k, dim=-1)
    else:
        kept, order = chances.sort(dim=-1, descending=True, stable=True)
    if sampling.top_p < 1:
        sums = kept.cumsum(-1)
        # a token stays when those before it hold less than top_p of what top_k left
        kept = kept.masked_fill(sums - kept >= sampling.top_p * sums[:, -1:], 0.0)
    return kept, order


def draw_uniforms(seed: int, stream: int, sample: int, count: int) -> torch.Tensor:
    """Return the first ``count`` uniform numbers of a sample's random stream, double precision, a little below 1 at most."""
    # numpy's generator reads all 63 bits of the seed; torch's on the CPU would read 32, and among many samples some would be twins
    drawn = torch.from_numpy(np.random.default_rng(sample_stream(seed, stream, sample)).random(count))
    # the ceiling keeps u * total below total in double precision, so that no token of probability 0 is ever reached
    return drawn.clamp_(max=1 - 2**-40)


class StopText:
    """Finds out which completions have just come to hold a stop string.

    Args:
        tokenizer: transformers' interface; special tokens stay visible in the text.
        stop: the strings, none of them empty.
    """

    def __init__(self, tokenizer: object, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        # a token brings at least one byte; some more, because decoders treat the first tokens of a text differently and split characters
        self._window = max(len(text.encode()) for text in stop) + 8

    def ended(self, written: Sequence[Sequence[int]]) -> list[bool]:
        """Say for every completion whether its text holds a stop string, given that it did not before its last token."""
        tails = [list(tokens[-self._window :]) for tokens in written]
        decode = self._tokenizer.decode  # type: ignore[attr-defined]
        texts = [decode(tail, skip_special_tokens=False, clean_up_tokenization_spaces=False) for tail in tails]
        return [any(text in found for text in self._stop) for found in texts]
