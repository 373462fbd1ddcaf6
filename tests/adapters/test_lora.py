from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from outlay.adapters import Lora
from outlay.errors import InputError
from outlay.models import Mlp, RewardModel, Transformer
from outlay.testing import check_adapter

SPEC = Transformer(hidden=16, layers=2, heads=2, feed_forward=24, context=32)
IDS = torch.randint(4, 99, (2, 8), generator=torch.Generator().manual_seed(0))


def logits(module: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def shaken(module: nn.Module) -> nn.Module:
    """Give B values other than 0, as training would."""
    draw = torch.Generator().manual_seed(1)
    for p in trainable(module).values():
        p.data.copy_(torch.randn(p.shape, generator=draw) * 0.1)
    return module


def test_nothing_changes_at_the_start() -> None:
    base = SPEC.build(0).module
    before = logits(base)
    adapted = Lora(rank=4).attach(base, seed=3)
    assert torch.equal(logits(adapted), before)
    parts = trainable(adapted)
    assert all(".lora_A." in name or ".lora_B." in name for name in parts)
    assert all(bool(p.any()) == (".lora_A." in name) for name, p in parts.items())


def test_trained_parameters_by_the_formula() -> None:
    # a block has four 16 x 16 and three 16 x 24 matrices; the output layer stays out
    adapted = Lora(rank=3).attach(SPEC.build(0).module, seed=0)
    assert sum(p.numel() for p in trainable(adapted).values()) == 2 * 3 * (4 * (16 + 16) + 3 * (16 + 24))
    some = Lora(rank=5, targets=("q_proj", "down_proj")).attach(SPEC.build(0).module, seed=0)
    assert sum(p.numel() for p in trainable(some).values()) == 2 * 5 * ((16 + 16) + (24 + 16))


def test_one_layer_by_the_formula() -> None:
    base = SPEC.build(0).module
    adapted = shaken(Lora(rank=2, alpha=6.0, targets=("q_proj",)).attach(base, seed=0))
    layer = adapted.base_model.model.model.layers[0].self_attn.q_proj
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(2))
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = x @ (layer.base_layer.weight + 6.0 / 2 * b @ a).T
    assert torch.allclose(layer(x), expected, atol=1e-6)


def test_merged_equals_adapted_and_is_of_the_original_class() -> None:
    base = SPEC.build(0).module
    names = set(base.state_dict())
    untouched = logits(copy.deepcopy(base))
    adapted = shaken(Lora(rank=4).attach(base, seed=3))
    expected = logits(adapted)
    merged = Lora(rank=4).merge(adapted)
    assert type(merged) is type(SPEC.build(0).module)
    assert set(merged.state_dict()) == names
    assert torch.allclose(logits(merged), expected, atol=1e-5)
    assert not torch.allclose(expected, untouched, atol=1e-2)


def test_the_start_depends_on_the_seed_alone() -> None:
    def start(seed: int) -> dict[str, torch.Tensor]:
        return {name: p.detach() for name, p in trainable(Lora().attach(SPEC.build(0).module, seed)).items()}

    state = torch.get_rng_state()
    one = start(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    again, other = start(1), start(2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one if ".lora_A." in name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "rank and alpha must be > 0, found 0 and 16"),
        ({"alpha": 0.0}, "rank and alpha must be > 0, found 8 and 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), found 1"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lora(**fields)


def test_an_unknown_target_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"LoRA cannot be attached: .*nowhere"):
        Lora(targets=("nowhere",)).attach(SPEC.build(0).module, seed=0)


def test_an_unknown_target_is_answered_with_a_near_one() -> None:
    with pytest.raises(InputError, match="no module named q_porj; did you mean 'q_proj'"):
        Lora(targets=("q_porj",)).attach(SPEC.build(0).module, seed=0)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_a_weight_in_two_places_is_refused(target: str) -> None:
    """Merged, an update of one place would be in both."""
    tied = Transformer(hidden=16, layers=1, heads=2, context=32)
    with pytest.raises(InputError, match=f"{target} shares its weight with .*leave it out of targets"):
        Lora(targets=("q_proj", target)).attach(tied.build(0).module, seed=0)


def test_a_model_that_is_no_language_model() -> None:
    """Any linear layers will do, the last one included, for there is none that is said to be the output layer."""
    spec, x = Lora(rank=2, alpha=6.0), torch.randn(8, 5, generator=torch.Generator().manual_seed(2))
    adapted = spec.attach(Mlp(5, 3, hidden=(8,)).build(0).module, seed=0)
    assert sum(p.numel() for p in trainable(adapted).values()) == 2 * (5 + 8) + 2 * (8 + 3)
    check_adapter(spec, lambda: Mlp(5, 3, hidden=(8,)).build(0).module, x, lambda module, batch: module(batch))


def test_a_reward_model_is_adapted_with_its_head() -> None:
    spec = RewardModel(backbone=SPEC)
    adapted = shaken(Lora(rank=2).attach(spec.build(0).module, seed=0))
    names = trainable(adapted)
    assert any("score" in name for name in names) and any("q_proj" in name for name in names)
    expected = logits(adapted)
    merged = Lora(rank=2).merge(adapted)
    assert type(merged) is type(spec.build(0).module)
    assert torch.allclose(logits(merged), expected, atol=1e-5)
    assert not torch.allclose(expected, logits(spec.build(0).module), atol=1e-2)


def test_no_adapter_goes_on_another() -> None:
    with pytest.raises(InputError, match="the model has an adapter on already; merge it first"):
        Lora(rank=2).attach(Lora(rank=2).attach(SPEC.build(0).module, seed=0), seed=0)


def test_the_last_blocks_alone() -> None:
    """All inner linear layers of the last block and of no other; the gradient stops below them."""
    adapted = shaken(Lora(rank=2, last_blocks=1).attach(SPEC.build(0).module, seed=0))
    names = sorted({name.split(".lora_")[0].removeprefix("base_model.model.model.") for name in trainable(adapted)})
    inner = (
        "mlp.down_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "self_attn.k_proj",
        "self_attn.o_proj",
        "self_attn.q_proj",
        "self_attn.v_proj",
    )
    assert names == [f"layers.1.{name}" for name in inner]
    seen: list[bool] = []
    block = adapted.base_model.model.model.layers[0]
    block.register_forward_hook(
        lambda module, args, output: seen.append((output[0] if isinstance(output, tuple) else output).requires_grad)
    )
    adapted(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits.sum().backward()
    assert seen == [False]
    assert all(p.grad is not None for p in trainable(adapted).values())
    before = logits(adapted)
    assert torch.allclose(logits(Lora().merge(adapted)), before, atol=1e-5)


def test_more_blocks_than_there_are_is_an_input_error() -> None:
    with pytest.raises(InputError, match="last_blocks is 3 and the model has 2 transformer blocks"):
        Lora(last_blocks=3).attach(SPEC.build(0).module, seed=0)
    with pytest.raises(ValueError, match="last_blocks must be > 0, found 0"):
        Lora(last_blocks=0)


def test_contract() -> None:
    def forward(module: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return out

    check_adapter(Lora(rank=2), lambda: SPEC.build(0).module, IDS.repeat(2, 1), forward)
