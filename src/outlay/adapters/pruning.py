"""Pruning masks: which weights of a linear layer are kept. Scores say how much a weight matters, selections keep the best of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from outlay.errors import InputError
from outlay.rng import torch_generator


def magnitude(weight: torch.Tensor) -> torch.Tensor:
    """Return |W|, the scores of magnitude pruning."""
    return weight.detach().abs()


def wanda(weight: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """Return |W_ij| |x_j|, the scores of Wanda (arXiv 2306.11695).

    Args:
        weight: W, (out, in).
        norms: Euclidean norm of every input over the calibration data, (in,), >= 0.
    """
    return weight.detach().abs().to(norms.dtype) * norms  # in the norms' type: they may overflow the weight's


def random(weight: torch.Tensor, seed: int, name: str) -> torch.Tensor:
    """Return scores in [0, 1), drawn from the stream (seed, "pruning/" name)."""
    return torch.rand(weight.shape, generator=torch_generator(seed, f"pruning/{name}")).to(weight.device)


def keep_share(scores: torch.Tensor, sparsity: float, rows: bool = False) -> torch.Tensor:
    """Return the mask, bool, of the best scores; of equal ones those that come first.

    Args:
        scores: (out, in).
        sparsity: share that goes, in [0, 1); the number of those that go is rounded to the nearest.
        rows: compare within each row alone, so that every output keeps as many inputs, as Wanda does; else within the whole matrix.
    """
    table = scores if rows else scores.reshape(1, -1)
    count = table.shape[1] - round(sparsity * table.shape[1])
    return _best(table, count).reshape(scores.shape)


def keep_of_group(scores: torch.Tensor, keep: int, group: int) -> torch.Tensor:
    """Return the mask, bool, of the ``keep`` best scores among every ``group`` neighbouring inputs of an output.

    Raises:
        InputError: when the number of inputs is no multiple of ``group``.
    """
    if scores.shape[1] % group:
        raise InputError(f"{keep} of every {group} inputs cannot be kept: the layer has {scores.shape[1]}; name other layers in targets")
    return _best(scores.reshape(-1, group), keep).reshape(scores.shape)


def _best(table: torch.Tensor, count: int) -> torch.Tensor:
    order = table.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(table, dtype=torch.bool).scatter_(1, order, True)


@contextmanager
def _at_rest(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, no graph; afterwards every part is in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def input_norms(
    module: nn.Module, layers: Sequence[tuple[str, nn.Module]], loss: Callable[[int], torch.Tensor], examples: int
) -> dict[str, torch.Tensor]:
    """Return for each layer the Euclidean norm of every input, (in,), over all positions of the first examples, padding included.

    Raises:
        InputError: when a layer is not used for any of them.
    """
    sums: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def seen(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].detach()
            squares = x.reshape(-1, x.shape[-1]).to(torch.promote_types(x.dtype, torch.float32)).square().sum(0)
            sums[name] = sums[name] + squares if name in sums else squares

        return seen

    with ExitStack() as hooks, _at_rest(module):
        for name, layer in layers:
            hooks.callback(layer.register_forward_pre_hook(watch(name)).remove)
        for number in range(examples):
            loss(number)
    missing = [name for name, _ in layers if name not in sums]
    if missing:
        raise InputError(f"{missing[0]} is not used for any of the {examples} calibration examples; leave it out of targets")
    return {name: total.sqrt() for name, total in sums.items()}
