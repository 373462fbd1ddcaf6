"""FLOPs: counted operation by operation, by torch's formulas and ours for what the CPU runs and torch does not count."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class CountFlops(TorchDispatchMode):
    """Counts the FLOPs of matrix products, convolutions, attention and recurrent layers inside the ``with`` block, forward and backward.

    A multiplication and an addition count as two. The formulas are torch's (``torch.utils.flop_counter``); its own mode is not used because
    it watches modules with hooks that keep tensors alive longer, which would falsify the memory measured in the same pass.
    """

    #: attention as a higher-order operator comes here too
    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        kind = getattr(func, "_overloadpacket", func)
        if kind in _OURS:
            self.total += _OURS[kind](*args)
        elif kind in flop_registry:
            self.total += flop_registry[kind](*args, **(kwargs or {}), out_val=out)
        return out


def _products(query: torch.Tensor, key: torch.Tensor) -> int:
    """FLOPs of one product of query (batch, heads, targets, width) with key (batch, heads, sources, width)."""
    return 2 * query.numel() * key.shape[-2]


def _attention(query: torch.Tensor, key: torch.Tensor, *_: Any) -> int:
    # scores = q k^T, out = p v
    return 2 * _products(query, key)


def _attention_backward(_gradient: torch.Tensor, query: torch.Tensor, key: torch.Tensor, *_: Any) -> int:
    # the scores again, then the gradients of p, v, q and k, as torch counts it on other devices
    return 5 * _products(query, key)


def _recurrent(inputs: torch.Tensor, weight_in: torch.Tensor, weight_hidden: torch.Tensor, *_: Any) -> int:
    # every position takes the products with both weights, of shape (gates x hidden, width)
    return 2 * math.prod(inputs.shape[:-1]) * (weight_in.numel() + weight_hidden.numel())


def _recurrent_backward(inputs: torch.Tensor, weight_in: torch.Tensor, weight_hidden: torch.Tensor, *_: Any) -> int:
    # the gradients of what came in, and those of the weights
    return 2 * _recurrent(inputs, weight_in, weight_hidden)


def _matrix_vector(matrix: torch.Tensor, *_: Any) -> int:
    return 2 * matrix.numel()


_OURS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    torch.ops.aten.mkldnn_rnn_layer: _recurrent,
    torch.ops.aten.mkldnn_rnn_layer_backward: _recurrent_backward,
    torch.ops.aten.mv: _matrix_vector,
}
