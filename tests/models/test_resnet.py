"""The small residual network: its size by the formula, its shapes, and what a block computes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from outlay.models import ResNet
from outlay.models.resnet import _Block
from outlay.testing import check_model


def test_size_by_the_formula() -> None:
    """A convolution has 9 in out weights, a normalisation 2 out; a block whose shapes differ has a 1x1 shortcut with a normalisation."""

    def block(before: int, width: int, shortcut: bool) -> int:
        return 9 * before * width + 9 * width * width + 4 * width + (before * width + 2 * width if shortcut else 0)

    module = ResNet(channels=3, classes=4, widths=(5, 7), blocks=2).build(0).module
    expected = (9 * 3 * 5 + 2 * 5) + block(5, 5, False) * 2 + block(5, 7, True) + block(7, 7, False) + (7 * 4 + 4)
    assert sum(p.numel() for p in module.parameters()) == expected


@pytest.mark.parametrize(("stride", "side"), [(1, 4), (2, 2)])
def test_stages_halve_and_the_stem_may_too(stride: int, side: int) -> None:
    module = ResNet(channels=1, classes=10, widths=(2, 3), stem_stride=stride).build(0).module
    inner = module[:-3](torch.zeros(2, 1, 8, 8))  # before pooling, flattening and the linear layer
    assert inner.shape == (2, 3, side, side)
    assert module(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_a_block_adds_its_input() -> None:
    """With the second normalisation's scale at zero the block is relu of its shortcut; written out by hand otherwise."""
    block = _Block(3, 3, 1).eval()
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    by_hand = functional.relu(x + block.second_norm(block.second(functional.relu(block.first_norm(block.first(x))))))
    assert torch.equal(block(x), by_hand)
    torch.nn.init.zeros_(block.second_norm.weight)
    assert torch.equal(block(x), functional.relu(x))


def test_holds_the_contract() -> None:
    check_model(ResNet(channels=2, classes=3, widths=(2, 3)), torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0)))


def test_wrong_fields_are_refused() -> None:
    with pytest.raises(ValueError, match=r"widths must be > 0 and classes > 1, found 1, \(\), 10"):
        ResNet(widths=())
    with pytest.raises(ValueError, match="blocks and stem_stride must be > 0, found 0 and 1"):
        ResNet(blocks=0)
