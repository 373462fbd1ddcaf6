"""Looking: what the model makes of prompts and answers before it learns from them. Every pass is asked leave for, and charged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from outlay.arms import FloatArray
from outlay.prompts.base import Question
from outlay.sequences import answer_mask, evaluating, in_pieces, row_sums
from outlay.sources.answering import encode
from outlay.sources.base import Batch
from outlay.teachers.gain import angle_concentration

if TYPE_CHECKING:
    from outlay.sources.base import Actor

#: rows looked at together
ROWS = 64
#: forward passes that a forward and a backward one cost
WITH_BACKWARD = 3.0


def prompt_features(actor: Actor, questions: Sequence[Question], tokenizer: Any, account: str) -> FloatArray | None:
    """Return the model's last hidden state at each prompt's last token, scaled to length 1: (questions, width). None when the budget bears no more."""
    found = [
        _unit(hidden[i, length - 1])
        for hidden, lengths in _hidden(actor, questions, tokenizer, account)
        for i, length in enumerate(lengths)
    ]
    return np.stack(found) if len(found) == len(questions) else None


def concentrations(actor: Actor, questions: Sequence[Question], tokenizer: Any, account: str) -> FloatArray | None:
    """Return every prompt's angle concentration, (questions,): the mean cosine between the last hidden states of its tokens, in [-1, 1].

    None when the budget bears no more.
    """
    nothing = np.empty((0, 0))  # chat templates do not say which tokens are a system prompt's
    found = [
        angle_concentration(hidden[i, :length].double().numpy(), nothing)
        for hidden, lengths in _hidden(actor, questions, tokenizer, account)
        for i, length in enumerate(lengths)
    ]
    return np.array(found) if len(found) == len(questions) else None


def gradient_norms(actor: Actor, batch: Batch, account: str) -> FloatArray | None:
    """Return the norm of the gradient of each answer's log likelihood with respect to the embedding of what is read, (rows,).

    It is the norm of the gradient of the input-embedding matrix that the row alone would give: where a token comes more than once its
    gradients add up. Where the matrix serves as output layer too, that part is left out. None when the budget bears no more.
    """
    model, found = actor.model, list[float]()
    if not actor.passes(account, WITH_BACKWARD * batch["input_ids"].numel()):
        return None
    with actor.spend(account), evaluating(model), torch.enable_grad():
        for piece in in_pieces(batch, ROWS):
            here = {name: column.to(actor.context.device) for name, column in piece.items()}
            read, log_probs = _watched(model, here)
            (gradient,) = torch.autograd.grad(log_probs.sum(), read)
            ids = here["input_ids"]
            same = (ids[:, :, None] == ids[:, None, :]).to(gradient.dtype)
            squares = torch.einsum("nij,nid,njd->n", same, gradient, gradient)
            found += squares.clamp(min=0).sqrt().tolist()
    return np.array(found)


def _watched(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the embedding layer gave, and each row's log likelihood, (rows,)."""
    held: list[torch.Tensor] = []

    def cut(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
        held.append(output.detach().requires_grad_(True))
        return held[-1]

    handle = model.get_input_embeddings().register_forward_hook(cut)  # type: ignore[operator]
    try:
        # row by row as they lie: packing answers together would mix rows in one
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    finally:
        handle.remove()
    mask = answer_mask(batch)
    log_probs = -functional.cross_entropy(logits.transpose(1, 2), batch["input_ids"][:, 1:], reduction="none")
    return held[0], row_sums(log_probs, mask)


def _hidden(actor: Actor, questions: Sequence[Question], tokenizer: Any, account: str) -> Iterator[tuple[torch.Tensor, list[int]]]:
    """Yield last hidden states (rows, T, width) and lengths of pieces of the prompts; ends early when the budget bears no more."""
    prompts = encode(questions, tokenizer)
    with actor.spend(account), evaluating(actor.model), torch.no_grad():
        for start in range(0, len(prompts), ROWS):
            mine = prompts[start : start + ROWS]
            lengths = [len(prompt) for prompt in mine]
            ids = torch.full((len(mine), max(lengths)), tokenizer.pad_token_id, dtype=torch.long)
            for row, prompt in zip(ids, mine, strict=True):
                row[: len(prompt)] = torch.tensor(prompt, dtype=torch.long)
            if not actor.passes(account, float(ids.numel())):
                return
            mask = torch.arange(ids.shape[1])[None] < torch.tensor(lengths)[:, None]
            device = actor.context.device
            given = {"input_ids": ids.to(device), "attention_mask": mask.long().to(device), "output_hidden_states": True}
            yield actor.model(**given).hidden_states[-1].float().cpu(), lengths


def _unit(vector: torch.Tensor) -> FloatArray:
    values = vector.double().numpy()
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-12), np.float64)
