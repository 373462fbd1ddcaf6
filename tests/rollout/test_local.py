"""The local engine: its contract, its books, and the fused passes against the model's own forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from outlay import InputError, make
from outlay.context import Context
from outlay.models import Transformer
from outlay.rollout import Completion, Local, Request, Sampling, Work
from outlay.rollout import local as local_module
from outlay.rollout.fused import fuses
from outlay.testing import check_engine

CONTEXT = 96


def built(architecture: str = "llama", **options: Any) -> tuple[Any, Any]:
    """Return a small model, sharper than a fresh one so that its tokens are told apart, and its tokenizer."""
    tied = options.pop("tied", True)
    if architecture == "gpt2":
        options |= {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
    spec = Transformer(architecture, hidden=32, layers=2, heads=4, context=CONTEXT, tie_embeddings=tied, options=options)
    loaded = spec.build(0)
    with torch.no_grad():
        for parameter in loaded.module.parameters():
            parameter.mul_(3)
    return loaded.module, loaded.tokenizer


def prompt(length: int, first: int = 5) -> tuple[int, ...]:
    return tuple(4 + (first + 7 * i) % 90 for i in range(length))


def written(engine: Local, model: nn.Module, tokenizer: Any, requests: Sequence[Request], **more: Any) -> list[Completion]:
    generator = engine.open(model, Context(0, tokenizer))
    settings = {"sampling": Sampling(), "seed": 3, "leave": lambda work: True} | more
    return generator.generate(requests, **settings)


def tokens_of(found: Sequence[Completion]) -> list[tuple[int, ...]]:
    return [each.tokens for each in found]


@dataclass
class Counter:
    """Counts what the model really computes: positions through its embedding."""

    positions: int = 0

    def __call__(self, module: nn.Module, arguments: Any, result: Any) -> None:
        self.positions += arguments[0].numel()


# ---- the contract --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "fast"), [("llama", True), ("llama", False), ("gpt2", True)])
def test_contract(architecture: str, fast: bool) -> None:
    model, tokenizer = built(architecture)
    others = [Local(slots=1, fast=fast), Local(slots=5, fast=fast)]
    check_engine(Local(fast=fast), model, tokenizer, others=others)


def test_contract_with_an_adapter() -> None:
    from peft import LoraConfig, get_peft_model

    model, tokenizer = built()
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    assert not fuses(wrapped) and not fuses(model)
    check_engine(Local(slots=7), wrapped, tokenizer)


def test_contract_with_prompts_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_module, "SHARED_LENGTH", 1)
    monkeypatch.setattr(local_module, "SHARED_TIMES", 1)
    model, tokenizer = built()
    check_engine(Local(), model, tokenizer, others=[Local(slots=1), Local(slots=5)])


def test_by_name() -> None:
    assert make("rollout/local", slots=8) == Local(slots=8)
    with pytest.raises(ValueError, match="slots must be > 0 or None, found 0"):
        Local(slots=0)


# ---- fused and readable --------------------------------------------------------------------------------------------------------------

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "untied": ("llama", {"tied": False}),
    "grouped queries": ("llama", {"num_key_value_heads": 2}),
    "wide heads": ("llama", {"head_dim": 12}),
    "stretched": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}),
    "mistral": ("mistral", {"num_key_value_heads": 1}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"num_key_value_heads": 2, "head_dim": 16}),
}


def randomised(model: nn.Module) -> None:
    """Give biases and norms values of their own, so that none can be forgotten."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=draw).to(parameter) * 0.3)


@pytest.mark.parametrize("shared", [False, True], ids=["copied", "shared"])
@pytest.mark.parametrize("kind", KINDS)
def test_fused_passes_agree_with_the_models_own(kind: str, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_module, "SHARED_LENGTH", 0 if shared else 10**9)
    monkeypatch.setattr(local_module, "SHARED_TIMES", 0)
    architecture, options = KINDS[kind]
    model, tokenizer = built(architecture, **options)
    randomised(model)
    assert fuses(model)
    # different lengths, samples and limits, more rows than places, some beyond two blocks of columns
    requests = [Request(prompt(3 + 4 * i, i), 1 + i % 3, (40, 9, 23)[i % 3], i) for i in range(7)]
    for kind_of_number, close in ((torch.float32, 1e-4), (torch.float64, 5e-5)):  # the models take their norms in single precision
        model.to(kind_of_number)
        fast = written(Local(slots=5), model, tokenizer, requests)
        plain = written(Local(slots=5, fast=False), model, tokenizer, requests)
        assert tokens_of(fast) == tokens_of(plain)
        assert [each.ended for each in fast] == [each.ended for each in plain]
        for one, other in zip(fast, plain, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=close)


def test_what_the_fused_passes_do_not_know_goes_through_the_model() -> None:
    assert not fuses(built("gpt2")[0])
    assert not fuses(built()[0].bfloat16())
    assert not fuses(built(hidden_act="gelu")[0])
    assert not fuses(built(mlp_bias=True)[0])
    assert not fuses(built(attention_bias=True)[0])  # it has a bias behind attention as well
    scaled = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert not fuses(built(rope_parameters=scaled)[0])
    hooked, _ = built()
    hooked.model.layers[1].register_forward_hook(lambda *_: None)
    assert not fuses(hooked)
    with torch.autocast("cpu", torch.bfloat16):
        assert not fuses(built()[0])
    model, tokenizer = built()
    model.bfloat16()
    found = written(Local(), model, tokenizer, [Request(prompt(4), 2, 6)])
    assert all(len(each.tokens) == 6 or each.ended == "end" for each in found)


def test_numbers_left_in_buffers_reach_nobody() -> None:
    model, tokenizer = built()
    requests = [Request(prompt(3 + i, i), 2, 20 + i, i) for i in range(6)]
    generator = Local(slots=5).open(model, Context(0, tokenizer))
    expected = generator.generate(requests, Sampling(), seed=3, leave=lambda work: True)
    healthy = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(torch.nan)
    generator.generate(requests, Sampling(temperature=0.0), seed=3, leave=lambda work: True)
    model.load_state_dict(healthy)
    assert generator.generate(requests, Sampling(), seed=3, leave=lambda work: True) == expected


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7, top_p=0.8), Sampling(1.3, top_k=5)], ids=str)
def test_first_tokens_come_as_often_as_the_model_says(sampling: Sampling) -> None:
    from scipy.stats import chisquare

    model, tokenizer = built()
    found = written(Local(), model, tokenizer, [Request(prompt(6), 3000, 1, 5)], sampling=sampling)
    counts = torch.bincount(torch.tensor([each.tokens[0] for each in found]), minlength=len(tokenizer))
    with torch.no_grad():
        chances, order = (
            (model.eval()(torch.tensor([prompt(6)])).logits[0, -1].double() / sampling.temperature).softmax(-1).sort(descending=True)
        )
    kept = chances.clone()
    kept[sampling.top_k or len(kept) :] = 0
    kept[(kept.cumsum(0) - kept) >= sampling.top_p * kept.sum()] = 0
    expected = kept / kept.sum() * len(found)
    counts = counts[order]
    assert counts[expected == 0].sum() == 0
    common = expected > 8  # chi-square wants some of each; the rest are counted together
    got, wanted = ([*each[common].tolist(), float(each[~common].sum())] for each in (counts, expected))
    pairs = [(one, other) for one, other in zip(got, wanted, strict=True) if other]
    assert chisquare(*zip(*pairs, strict=True)).pvalue > 0.001


@pytest.mark.parametrize("limit", [7, 20], ids=["in the open block", "in closed columns"])
def test_a_row_that_went_wrong_spoils_nobody_who_takes_its_place(limit: int) -> None:
    model, tokenizer = built(tied=False)
    bad = 30
    with torch.no_grad():
        model.model.embed_tokens.weight[bad] = torch.nan
        model.lm_head.weight[[bad, tokenizer.eos_token_id]] = 0
    good = [Request((5, 6, 7), 1, 40, 0), Request((8, 9, 10), 1, 10, 2)]
    expected = written(Local(slots=2), model, tokenizer, good)
    found = written(Local(slots=2), model, tokenizer, [good[0], Request((8, bad, 9), 1, limit, 1), good[1]])
    assert [found[0].tokens, found[2].tokens] == tokens_of(expected)
    assert found[2].logprobs == pytest.approx(expected[1].logprobs, abs=1e-4)


# ---- books ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 4, 64])
def test_what_is_charged_is_what_the_model_computes(slots: int) -> None:
    model, tokenizer = built()
    counter, works = Counter(), []
    model.get_input_embeddings().register_forward_hook(counter)
    requests = [Request(prompt(3 + i % 3, i // 2), 1 + i % 2, 4 + i, i) for i in range(6)]
    found = written(Local(slots=slots, fast=False), model, tokenizer, requests, leave=lambda work: works.append(work) or True)
    assert counter.positions == sum(work.prompt_tokens + work.read_tokens for work in works)
    assert sum(work.new_tokens for work in works) == sum(len(each.tokens) for each in found)
    assert sum(work.rollouts for work in works) == len(found)


@pytest.mark.parametrize("fast", [True, False])
def test_a_prompt_is_read_once_for_everybody(fast: bool) -> None:
    model, tokenizer = built()
    works: list[Work] = []
    requests = [Request(prompt(11), 5, 3, 0), Request(prompt(7), 1, 2, 1), Request(prompt(11), 4, 6, 2)]
    for slots in (2, 64):
        works.clear()
        written(Local(slots=slots, fast=fast), model, tokenizer, requests, leave=lambda work: works.append(work) or True)
        assert sum(work.prompt_tokens for work in works) == 11 + 7


def test_places_are_taken_again_while_others_write() -> None:
    model, tokenizer = built()
    works: list[Work] = []
    requests = [Request(prompt(5, i), 1, (2, 30)[i % 2], i) for i in range(8)]
    written(Local(slots=4), model, tokenizer, requests, leave=lambda work: works.append(work) or True, sampling=Sampling(0.0))
    steps = [work for work in works if work.read_tokens]
    assert max(work.new_tokens for work in steps) <= 4
    # 4 long rows and 4 short ones: in pairs of batches they would take 29 + 29 steps, or 29 + 1
    assert len(steps) <= 31
    # those with the most to write for a position to read come first
    assert works[0] == Work(prompt_tokens=20, new_tokens=4, rollouts=4)


def test_by_itself_an_engine_takes_no_more_rows_than_its_room_bears(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = built(num_key_value_heads=2)
    works: list[Work] = []

    def most(samples: int) -> int:
        works.clear()
        written(Local(), model, tokenizer, [Request(prompt(5), samples, 3)], leave=lambda work: works.append(work) or True)
        return max(work.rollouts for work in works)

    assert most(300) == 256
    # 8 positions of 2 layers x 2 heads x 8 numbers x 4 bytes, keys and values
    monkeypatch.setattr(local_module, "ROOM", 3 * 8 * 2 * 2 * 2 * 8 * 4 + 1)
    assert most(300) == 3
    monkeypatch.setattr(local_module, "ROOM", 1)
    assert most(4) == 1


def test_cut_in_the_middle() -> None:
    model, tokenizer = built()
    requests = [Request(prompt(5, i), 1, 10, i) for i in range(3)]
    whole = written(Local(slots=2), model, tokenizer, requests)
    left = [4]

    def leave(work: Work) -> bool:
        left[0] -= 1
        return left[0] >= 0

    found = written(Local(slots=2), model, tokenizer, requests, leave=leave)
    assert [each.ended for each in found] == ["cut", "cut", "cut"]
    assert tokens_of(found) == [whole[0].tokens[:4], whole[1].tokens[:4], ()]


# ---- what is refused -----------------------------------------------------------------------------------------------------------------


def test_wrong_requests_are_refused_before_anything_is_spent() -> None:
    model, tokenizer = built()

    def never(work: Work) -> bool:
        raise AssertionError("asked for leave")

    for requests, message in (
        ([Request((), 1, 1)], "request 0 needs at least one prompt token"),
        ([Request((5,), 1, 1), Request((5,), 0, 1)], "request 1 needs at least one prompt token, sample"),
        ([Request((5,), 1, 0)], "limit 0"),
        ([Request((5, 10**6), 1, 1)], "outside 0 to"),
        ([Request(prompt(90), 1, 8)], f"takes 97 positions and the model has {CONTEXT}; shorten its prompt of 90 tokens or its limit of 8"),
    ):
        with pytest.raises(InputError, match=message):
            written(Local(), model, tokenizer, requests, leave=never)
    with pytest.raises(InputError, match="need a tokenizer"):
        written(Local(), model, None, [Request((5,), 1, 1)], sampling=Sampling(stop=("x",)), leave=never)
    assert written(Local(), model, tokenizer, [], leave=never) == []
    assert len(written(Local(), model, tokenizer, [Request(prompt(89), 1, 8)])) == 1


def test_a_window_is_a_limit() -> None:
    model, tokenizer = built("mistral", sliding_window=20)
    assert written(Local(), model, tokenizer, [Request(prompt(11), 1, 10)])
    with pytest.raises(InputError, match="takes 21 positions and the model has 20"):
        written(Local(), model, tokenizer, [Request(prompt(12), 1, 10)])


def test_models_that_would_come_out_wrong_are_refused() -> None:
    with pytest.raises(InputError, match="needs a causal language model of transformers"):
        Local().open(nn.Linear(2, 2), Context(0))
    bloom = Transformer("bloom", options={"n_layer": 1, "n_head": 2}, hidden=16, layers=1, heads=2).build(0)
    with pytest.raises(InputError, match="takes no position_ids"):
        Local().open(bloom.module, Context(0, bloom.tokenizer))
    mamba = Transformer("mamba", hidden=16, layers=1, heads=2).build(0)
    with pytest.raises(InputError):
        Local().open(mamba.module, Context(0, mamba.tokenizer))


def test_without_a_tokenizer_nothing_ends_but_by_its_limit() -> None:
    model, _ = built()
    assert {each.ended for each in written(Local(), model, None, [Request(prompt(4), 20, 30)])} == {"limit"}
