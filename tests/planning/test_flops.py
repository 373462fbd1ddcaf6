"""FLOPs by hand, operation by operation."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from outlay.planning.flops import CountFlops


def count(module: nn.Module, *inputs: torch.Tensor) -> tuple[int, int]:
    """Return (forward, backward) FLOPs of the summed output."""
    with CountFlops() as flops:
        out = module(*inputs)
        out = out[0] if isinstance(out, tuple) else out
        forward = flops.total
        out.sum().backward()
    return forward, flops.total - forward


class Attention(nn.Module):
    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(query, key, value)


def test_attention_is_two_products_forward_and_five_backward() -> None:
    batch, heads, targets, sources, width = 2, 3, 5, 7, 8
    query = torch.randn(batch, heads, targets, width, requires_grad=True)
    key, value = (torch.randn(batch, heads, sources, width, requires_grad=True) for _ in range(2))
    product = 2 * batch * heads * targets * sources * width
    assert count(Attention(), query, key, value) == (2 * product, 5 * product)


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_take_both_products_at_every_position(kind: type[nn.RNNBase], gates: int) -> None:
    batch, length, inside, hidden = 3, 5, 6, 4
    forward, backward = count(kind(inside, hidden, batch_first=True), torch.randn(batch, length, inside, requires_grad=True))
    exact = 2 * batch * length * gates * hidden * (inside + hidden)
    assert forward == exact
    # the first hidden state needs no gradient: kernels that run step by step leave its product out
    assert 2 * exact - 2 * 2 * batch * gates * hidden * hidden <= backward <= 2 * exact


def test_two_layers_in_both_directions() -> None:
    batch, length, inside, hidden = 2, 4, 6, 5
    lstm = nn.LSTM(inside, hidden, num_layers=2, bidirectional=True, batch_first=True)
    forward, _ = count(lstm, torch.randn(batch, length, inside, requires_grad=True))
    assert forward == 2 * batch * length * 2 * 4 * hidden * ((inside + hidden) + (2 * hidden + hidden))


def test_matrix_times_vector() -> None:
    with CountFlops() as flops:
        torch.randn(3, 5) @ torch.randn(5)
    assert flops.total == 2 * 3 * 5


def test_agrees_with_torch_where_torch_counts() -> None:
    torch_counts = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.GELU(), nn.ConvTranspose2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 9 * 9, 7)
    )
    inputs = torch.randn(2, 3, 16, 16)
    with FlopCounterMode(display=False) as counter:
        torch_counts(inputs).sum().backward()
    assert sum(count(torch_counts, inputs)) == counter.get_total_flops() > 0
