"""Sequences: what objectives over whole answers share. One layout serves demonstrations, preferences and rollouts.

Columns of a batch, rows in order of their group:

=================  ==========  =========================================================================================================
``input_ids``      (n, T)      prompt and answer, padded on the right
``attention_mask`` (n, T)      1 where there is a token
``labels``         (n, T)      the answer's tokens (end mark included); elsewhere ``IGNORED``
``group``          (n,)        answers to the same question carry the same number
``reward``         (n,)        what the answer is worth; in a pair, the preferred one is worth more
``judged``         (n,)        False where no judge could tell: such a row teaches nothing and enters no statistic
``ended``          (n,)        whether the answer ended by itself, not at its token limit                                (rollouts alone)
``limit``          (n,)        the row's token limit                                                                     (rollouts alone)
``temperature``    (n,)        that the answer was sampled at                                                            (rollouts alone)
``behaviour``      (n, T)      log probability of each labelled token when it was sampled; 0 elsewhere                   (rollouts alone)
``greedy_reward``  (n,)        reward of the likeliest answer to the row's question       (for objectives with ``needs_greedy = True``)
``demonstration``  (n,)        True for a row that holds the reference answer   (for objectives with ``needs_demonstrations = True``)
=================  ==========  =========================================================================================================

An objective whose loss couples the rows of a group says so with ``whole_groups: ClassVar[bool] = True``; batches are then cut between groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from outlay.packed import packed_logits
from outlay.sources.base import IGNORED, Batch

#: gives the frozen model of the stage's start
Frozen = Callable[[], nn.Module]

#: tokens whose entropies are worked out at once where no gradient is wanted
TOGETHER = 1024


def answer_mask(batch: Batch) -> torch.Tensor:
    """Return (n, T - 1): True where the next token belongs to the answer, i.e. is labelled. Position t predicts token t + 1."""
    return batch["labels"][:, 1:] != IGNORED


def judged_rows(batch: Batch) -> torch.Tensor:
    """Return (n,): True for rows that may teach; all of them where the batch does not say."""
    found = batch.get("judged")
    return torch.ones(len(batch["labels"]), dtype=torch.bool, device=batch["labels"].device) if found is None else found.bool()


def shifted(batch: Batch, name: str) -> torch.Tensor:
    """Return a column of shape (n, T) aligned with ``answer_mask``: (n, T - 1)."""
    return batch[name][:, 1:]


def answer_logits(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return logits in single precision at the labelled positions alone: (tokens, vocabulary), in row order, divided by the row's temperature
    where the batch has one, so that they are those of the distribution that was sampled from."""
    packed = packed_logits(model, batch)
    if packed is not None:
        return _tempered(packed, batch)
    return chosen_logits(model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits, batch)


def chosen_logits(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return what ``answer_logits`` does, from the logits (n, T, vocabulary) of a forward pass that was made already."""
    return _tempered(logits[:, :-1][answer_mask(batch)], batch)


def token_log_probs(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return log pi(y_t | x, y_<t) of the labelled tokens, (n, T - 1), 0 elsewhere; with gradients where they are enabled."""
    return log_probs_of(answer_logits(model, batch), batch)


def log_probs_of(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the labelled tokens' log probabilities (n, T - 1), 0 elsewhere, from logits (tokens, vocabulary) at the answers' positions."""
    mask = answer_mask(batch)
    wanted = batch["labels"][:, 1:][mask]
    found = logits.new_zeros(mask.shape)
    if wanted.numel() == 0:
        return found + logits.sum()  # attached to the graph, so that a batch without answers has a gradient of 0
    return found.masked_scatter(mask, -functional.cross_entropy(logits, wanted, reduction="none"))


def entropies(logits: torch.Tensor) -> torch.Tensor:
    """Return the entropy in nats (tokens,) of each row of logits (tokens, vocabulary)."""
    if len(logits) > TOGETHER and not torch.is_grad_enabled():  # nothing is kept, so that the vocabulary need not be there for all at once
        return torch.cat([entropies(some) for some in logits.split(TOGETHER)])
    log_probs = logits.log_softmax(-1)
    # a token that cannot come has log probability -inf and adds 0, not 0 * inf
    return -(log_probs.exp() * log_probs.clamp(min=-1e4)).sum(-1)


def bounded(log_ratio: torch.Tensor, limit: float = 20.0) -> torch.Tensor:
    """Return a log ratio moved into [-limit, limit], with the gradient it had: e^20 = 4.9e8 neither overflows nor vanishes in single precision,
    and a token that has gone far is still pushed back."""
    return log_ratio + (log_ratio.clamp(-limit, limit) - log_ratio).detach()


def on_answers(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return values (tokens,) of the answers' tokens, in row order, in their places: (n, T - 1), 0 elsewhere."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def row_sums(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return (n,): sums of ``values`` (n, T - 1) over each row's answer."""
    return (values * mask).sum(1)


def row_means(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return (n,): means of ``values`` (n, T - 1) over each row's answer; 0 for a row without one."""
    return row_sums(values, mask) / mask.sum(1).clamp(min=1)


def group_index(batch: Batch) -> tuple[torch.Tensor, int]:
    """Return the rows' groups numbered from 0 in order of their numbers, and how many there are."""
    numbers, index = torch.unique(batch["group"], return_inverse=True)
    return index, len(numbers)


def attached(model: nn.Module) -> nn.Module:
    """Return the part that this stage's objective trains beside the model.

    Raises:
        AttributeError: when there is none.
    """
    part: nn.Module = model.get_submodule(vars(model).get("_attached_now", "attached"))
    return part


def in_pieces(batch: Batch, rows: int) -> list[Batch]:
    """Return the batch in pieces of at most so many rows, for passes that keep nothing."""
    count = len(batch["labels"])
    return [{name: column[i : i + rows] for name, column in batch.items()} for i in range(0, count, rows)]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, and back into the mode that it was in."""
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


def frozen_log_probs(model: nn.Module, batch: Batch, rows: int = 64) -> torch.Tensor:
    """Return ``token_log_probs`` without gradients in the batch's own width, (n, T), 0 where nothing is labelled: a column that ``shifted``
    reads back. The model is put into evaluation mode meanwhile."""
    with evaluating(model), torch.no_grad():
        found = torch.cat([token_log_probs(model, piece) for piece in in_pieces(batch, rows)])
    return functional.pad(found, (1, 0))


def knob(knobs: Mapping[str, float], name: str, default: float) -> float:
    """Return a knob's value, or the method's own where the stage does not turn it."""
    return knobs.get(name, default)


def _tempered(chosen: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return logits (tokens, vocabulary) at the answers' positions in single precision at least, divided by their row's temperature."""
    chosen = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
    if "temperature" not in batch:
        return chosen
    # greedy rows are scored at temperature 1
    each = torch.where(batch["temperature"] > 0, batch["temperature"], torch.ones_like(batch["temperature"]))
    if bool((each == 1).all()):
        return chosen
    return chosen / each.repeat_interleave(answer_mask(batch).sum(1))[:, None]
