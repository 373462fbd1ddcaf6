from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from outlay.errors import InputError
from outlay.models import Cnn, Mlp, Pretrained, PythonModel, Transformer
from outlay.rng import derive
from outlay.testing import check_model

TINY = Transformer(hidden=16, layers=2, heads=2, context=32)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_llama_by_the_formula() -> None:
    for tie in (True, False):
        module = Transformer(hidden=24, layers=3, heads=4, feed_forward=40, context=64, tie_embeddings=tie).build(0).module
        block = 4 * 24 * 24 + 3 * 24 * 40 + 2 * 24
        assert parameters(module) == (1 if tie else 2) * 100 * 24 + 3 * block + 24
        assert module.config.max_position_embeddings == 64
    assert TINY.build(0).module.config.intermediate_size == 48  # 8/3 * 16 = 42.7, rounded up to a multiple of 16


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen3", "gpt_neox"])
def test_architectures_take_the_fields(architecture: str) -> None:
    loaded = Transformer(architecture=architecture, hidden=16, layers=3, heads=2, feed_forward=20, context=32, tokenizer="bytes").build(0)
    config = loaded.module.config
    assert (config.model_type, config.vocab_size, config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (
        architecture, 260, 16, 3, 2,
    )  # fmt: skip
    assert config.max_position_embeddings == 32
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)
    ids = torch.arange(10).unsqueeze(0)
    assert loaded.module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape == (1, 10, 260)
    assert any(20 in p.shape for p in loaded.module.parameters())


def test_options_reach_the_configuration_and_unknown_ones_are_refused() -> None:
    assert Transformer(hidden=16, layers=1, heads=2, options={"num_key_value_heads": 1}).build(0).module.config.num_key_value_heads == 1
    with pytest.raises(InputError, match=r"configuration of llama has no field 'rms_norm_epsilon'; did you mean 'rms_norm_eps'\?"):
        Transformer(options={"rms_norm_epsilon": 1e-6}).build(0)
    with pytest.raises(InputError, match=r"transformers knows no architecture 'lama'; did you mean"):
        Transformer(architecture="lama").build(0)
    with pytest.raises(ValueError, match="hidden must be divisible by heads, found 10 and 4"):
        Transformer(hidden=10)
    with pytest.raises(ValueError, match="layers must be > 0, found 0"):
        Transformer(layers=0)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_contract_of_transformers(architecture: str) -> None:
    check_model(Transformer(architecture=architecture, hidden=16, layers=2, heads=2, context=32))


def test_pretrained_reads_what_was_saved(tmp_path: Path) -> None:
    loaded = TINY.build(7)
    loaded.save(loaded.module, tmp_path / "m")
    check_model(Pretrained(str(tmp_path / "m")), drawn=False)
    halved = Pretrained(str(tmp_path / "m"), dtype="bfloat16").build(0)
    assert {p.dtype for p in halved.module.parameters()} == {torch.bfloat16}
    assert halved.tokenizer("abc")["input_ids"] == loaded.tokenizer("abc")["input_ids"]
    with pytest.raises(InputError, match=r"no model at .*absent.*; accepted: a folder, a hub name, smollm2-135m-instruct"):
        Pretrained(str(tmp_path / "absent")).build(0)


def test_mlp() -> None:
    spec = Mlp(inputs=12, classes=3, hidden=(8, 5), dropout=0.25)
    module = spec.build(0).module
    assert parameters(module) == (12 * 8 + 8) + (8 * 5 + 5) + (5 * 3 + 3)
    assert [layer.p for layer in module.modules() if isinstance(layer, nn.Dropout)] == [0.25, 0.25]
    assert module(torch.zeros(2, 3, 4)).shape == (2, 3)
    check_model(spec, torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)))


def test_cnn() -> None:
    spec = Cnn(channels=2, classes=4, widths=(3, 5))
    module = spec.build(0).module
    assert parameters(module) == (2 * 3 * 9 + 2 * 3) + (3 * 5 * 9 + 2 * 5) + (5 * 4 + 4)
    assert module(torch.zeros(2, 2, 8, 8)).shape == (2, 4)
    check_model(spec, torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0)))


def test_any_module_of_python(tmp_path: Path) -> None:
    spec = PythonModel("torch.nn:Linear", {"in_features": 3, "out_features": 2})
    torch.manual_seed(derive(11, "model"))
    expected = nn.Linear(3, 2)
    assert torch.equal(spec.build(11).module.weight, expected.weight)
    check_model(spec, torch.ones(1, 3))
    spec.build(0).save(expected, tmp_path)
    described = json.loads((tmp_path / "model.json").read_text())
    assert described == {"class": "torch.nn.modules.linear.Linear", "shapes": {"weight": [2, 3], "bias": [2]}}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mlp(inputs=0, classes=2), "inputs and hidden must be > 0"),
        (lambda: Mlp(inputs=1, classes=2, dropout=1.0), r"dropout must lie in \[0, 1\), found 1.0"),
        (lambda: Cnn(widths=()), "widths must be > 0"),
        (lambda: PythonModel("torch.nn.Linear"), "target reads package.module:function"),
        (lambda: PythonModel("torch.nn:Linea").build(0), "cannot import 'torch.nn:Linea'"),
        (lambda: PythonModel("torch.nn:Linear", {"in_features": 3}).build(0), "'torch.nn:Linear' cannot be called with .*'out_features'"),
        (lambda: PythonModel("fractions:Fraction").build(0), "'fractions:Fraction' returned Fraction; it must return a torch.nn.Module"),
    ],
)
def test_wrong_fields_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
