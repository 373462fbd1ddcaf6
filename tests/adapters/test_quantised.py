"""Quantisation-aware training: rounded forward passes, straight-through gradients, merged values, and what it gains over rounding at the end."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from outlay.adapters import Quantised
from outlay.catalog import make
from outlay.errors import InputError
from outlay.formats import E4M3, Dynamic8, Format, Integer, Microscaling
from outlay.models import Mlp, Transformer
from outlay.testing import check_adapter


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def through(form: Format, x: torch.Tensor) -> torch.Tensor:
    return form.decode(form.encode(x), tuple(x.shape))


@pytest.mark.parametrize("activations", [None, E4M3, Integer(8, scaling="tensor")], ids=["whole", "e4m3", "int8"])
@pytest.mark.parametrize("weights", [Integer(4), E4M3, Microscaling("e2m1"), Dynamic8()], ids=["int4", "e4m3", "mxfp4", "dynamic8"])
def test_a_layer_by_its_formula(weights: Format, activations: Format | None) -> None:
    layer, x = nn.Linear(40, 6), randn(5, 40, seed=1).requires_grad_()
    with torch.no_grad():
        layer.weight.copy_(randn(6, 40, seed=2))
    w, b = layer.weight.detach().clone(), layer.bias.detach().clone()
    made = Quantised(weights, activations).attach(layer, seed=0)
    q_x = x.detach() if activations is None else through(activations, x.detach())
    q_w = through(weights, w)
    out = made(x)
    assert torch.equal(out, functional.linear(q_x, q_w, b))
    assert not torch.allclose(out, functional.linear(x, w, b), rtol=1e-4)
    upstream = randn(5, 6, seed=3)
    out.backward(upstream)
    # straight through: gradients of the rounded values, handed to the whole ones
    assert torch.allclose(x.grad, upstream @ q_w, rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]
    parameters = dict(made.named_parameters())
    assert torch.allclose(parameters["weight"].grad, upstream.T @ q_x, rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]
    assert torch.equal(parameters["weight"], w)


def test_contract() -> None:
    def build() -> nn.Module:
        return Mlp(inputs=6, classes=4).build(0).module

    for spec in (Quantised(), Quantised(Microscaling("e2m1"))):
        check_adapter(spec, build, randn(8, 6), lambda module, x: module(x), starts_there=False)
    # a layer alone
    check_adapter(Quantised(), fixed, randn(8, 6), lambda module, x: module(x), False)


def fixed() -> nn.Module:
    layer = nn.utils.skip_init(nn.Linear, 6, 4)
    with torch.no_grad():
        layer.weight.copy_(randn(4, 6, seed=4))
        layer.bias.copy_(randn(4, seed=5))
    return layer


def test_names_and_parameters_stay_and_merged_values_need_no_more_rounding() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3, bias=False))
    before, names = list(model.parameters()), list(model.state_dict())
    spec = Quantised(Integer(3))
    attached = spec.attach(model, seed=0)
    assert [id(p) for p in attached.parameters()] == [id(p) for p in before]
    assert list(attached.state_dict()) == names and all(p.requires_grad for p in attached.parameters())
    x = randn(4, 8)
    expected = attached(x)
    merged = spec.merge(attached)
    assert isinstance(merged, nn.Sequential)
    assert [type(part) for part in merged] == [nn.Linear, nn.Tanh, nn.Linear]
    assert torch.equal(merged(x), expected) and list(merged.state_dict()) == names
    for name, values in merged.state_dict().items():
        if name.endswith("weight"):
            assert torch.equal(through(Integer(3), values), values)
            assert all(len(row.unique()) <= 7 for row in values)


def test_weights_in_bfloat16_stay_in_it() -> None:
    layer = nn.Linear(8, 4, dtype=torch.bfloat16)
    made = Quantised(Integer(4)).attach(layer, seed=0)
    out = made(randn(2, 8).bfloat16())
    assert out.dtype == torch.bfloat16
    assert Quantised(Integer(4)).merge(made).weight.dtype == torch.bfloat16


def test_a_transformers_output_layer_is_left_alone() -> None:
    module = Transformer(hidden=16, layers=1, heads=2, feed_forward=24, context=32).build(0).module
    whole = copy.deepcopy(module)
    ids = torch.arange(8)[None] + 4
    attached = Quantised(Integer(2)).attach(module, seed=0)
    named = {name for name, part in attached.named_modules() if type(part).__name__ == "QuantisedLinear"}
    assert len(named) == 7 and not any("lm_head" in name for name in named)
    with torch.no_grad():
        expected = attached(input_ids=ids).logits
        assert not torch.allclose(expected, whole(input_ids=ids).logits, atol=1e-3)
        merged = Quantised(Integer(2)).merge(attached)
        assert torch.equal(merged(input_ids=ids).logits, expected)
    assert set(merged.state_dict()) == set(whole.state_dict())
    some = Quantised(Integer(2), targets=("q_proj",)).attach(whole, seed=0)
    assert [n for n, p in some.named_modules() if type(p).__name__ == "QuantisedLinear"] == ["model.layers.0.self_attn.q_proj"]


def test_an_unknown_target_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no linear layer named nowhere"):
        Quantised(targets=("nowhere",)).attach(Mlp(inputs=4, classes=2).build(0).module, seed=0)


def test_made_from_plain_values() -> None:
    made = make("adapters/quantised", weights={"microscaling": {"element": "e2m1"}}, activations="small_float")
    assert made == Quantised(Microscaling("e2m1"), E4M3)


def test_trained_with_its_rounding_a_model_loses_less_than_rounded_at_the_end() -> None:
    """Digits in 2 bits (-1, 0, 1 times a scale a row)."""
    datasets = pytest.importorskip("sklearn.datasets")
    pixels, labels = datasets.load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)

    def trained(spec: Quantised | None) -> float:
        module = Mlp(inputs=64, classes=10).build(0).module
        module = module if spec is None else spec.attach(module, seed=0)
        optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
        for step in range(150):
            rows = torch.randint(len(x), (128,), generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            functional.cross_entropy(module(x[rows]), y[rows]).backward()
            optimizer.step()
        end = Quantised(Integer(2))
        module = end.merge(end.attach(module, seed=0) if spec is None else module)
        with torch.no_grad():
            return float((module(x).argmax(1) == y).float().mean())

    after, during = trained(None), trained(Quantised(Integer(2)))
    assert during > 0.93 and during > after + 0.02
