"""What adapters refuse to go on: another adapter, and layers that are no linear layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from outlay.adapters import (
    AdaLora,
    Adapter,
    DynamicSparse,
    Grafting,
    Intrinsic,
    LoraSb,
    LoraXs,
    LowRank,
    Perp,
    SafeMask,
    Sara,
    SLTrain,
    SparseSpectral,
    Structured,
)  # fmt: skip
from outlay.errors import InputError
from outlay.models import Transformer

SPEC = Transformer(hidden=16, layers=1, heads=2, feed_forward=24, context=32)
LINEAR: list[Adapter] = [
    AdaLora(rank=2), LoraXs(rank=2), LoraSb(rank=2), SafeMask(rank=2), Sara(threshold=0.01), DynamicSparse(), LowRank(rank=2), SLTrain(rank=2),
    SparseSpectral(rank=2), Structured(rank=2), Perp(rank=2),
]  # fmt: skip


def named(spec: Adapter) -> str:
    return type(spec).__name__


@pytest.mark.parametrize("spec", [*LINEAR, Intrinsic(60)], ids=named)
def test_no_adapter_goes_on_another(spec: Adapter) -> None:
    adapted = spec.attach(SPEC.build(0).module, 3)
    before = adapted.state_dict()
    with pytest.raises(InputError, match="the model has an adapter on already; merge it first"):
        spec.attach(adapted, 3)
    after = adapted.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    spec.attach(spec.merge(adapted), 3)


def test_no_graft_goes_on_another(tmp_path: Path) -> None:
    file = tmp_path / "tuned.pt"
    torch.save(nn.Linear(3, 2).state_dict(), file)
    adapted = Grafting(file, share=0.5).attach(nn.Linear(3, 2), 3)
    with pytest.raises(InputError, match="merge it first"):
        Grafting(file, share=0.5).attach(adapted, 3)


@pytest.mark.parametrize("spec", LINEAR, ids=named)
def test_layers_of_another_kind_are_named(spec: Adapter) -> None:
    """Also where an embedding table could be taken alone, which is not what was asked for."""
    model = Transformer(architecture="gpt2", hidden=16, layers=1, heads=2, context=32).build(0).module
    with pytest.raises(InputError, match="Conv1D, as GPT-2 has, where this needs torch.nn.Linear; adapter: lora takes both"):
        spec.attach(model, 3)


def test_an_output_layer_alone_is_named() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)

        def get_output_embeddings(self) -> nn.Module:
            return self.head

    with pytest.raises(InputError, match="no linear layer but the output layer; name that in targets"):
        LoraXs(rank=2).attach(Head(), 3)
    assert sum(p.numel() for p in LoraXs(rank=2, targets=("head",)).attach(Head(), 3).parameters() if p.requires_grad) == 4
