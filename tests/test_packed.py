"""Packed passes give what the padded pass gives, logits and gradients, and step aside where they would not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from outlay.models import Transformer
from outlay.packed import lay_out, packed_logits, padded
from outlay.sequences import answer_logits, answer_mask, chosen_logits
from outlay.sources.base import IGNORED, Batch

#: (prompt, answer) of each row by the number of tokens; rows of a group share a prompt
LENGTHS = [(5, 3), (5, 20), (5, 1), (2, 4), (2, 30), (9, 2), (9, 2), (9, 7)]
GROUPS = [0, 0, 0, 1, 1, 2, 2, 2]


def rows(lengths: list[tuple[int, int]] = LENGTHS, groups: list[int] = GROUPS, seed: int = 0) -> Batch:
    """A batch of random tokens, padded on the right to a width that no row has."""
    random = torch.Generator().manual_seed(seed)
    width = max(map(sum, lengths)) + 3
    ids = torch.randint(4, 90, (len(lengths), width), generator=random)
    here, batch = torch.arange(width), {}
    prompts, ends = torch.tensor([one for one, _ in lengths])[:, None], torch.tensor(list(map(sum, lengths)))[:, None]
    shared = torch.randint(4, 90, (max(groups) + 1, width), generator=random)[torch.tensor(groups)]
    ids = torch.where(here < prompts, shared, torch.where(here < ends, ids, 0))
    batch["input_ids"], batch["attention_mask"] = ids, (here < ends).long()
    batch["labels"] = torch.where((here >= prompts) & (here < ends), ids, IGNORED)
    return batch | {"group": torch.tensor(groups)}


def model(architecture: str = "llama", **options: Any) -> nn.Module:
    made = Transformer(architecture, hidden=32, layers=2, heads=4, context=64, options=options).build(3).module.double()
    with torch.no_grad():  # far from the flat start, so that places and neighbours matter
        for weight in made.parameters():
            weight.mul_(4.0 if weight.dim() > 1 else 1.0)
    return made.eval()


def plain(module: nn.Module, batch: Batch) -> torch.Tensor:
    return chosen_logits(module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits, batch)


def gradients(module: nn.Module, logits: torch.Tensor) -> list[torch.Tensor]:
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    aim = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1), dtype=logits.dtype)
    return list(torch.autograd.grad((logits.log_softmax(-1) * aim).sum(), weights))


def agree(module: nn.Module, batch: Batch) -> None:
    found, wanted = packed_logits(module, batch), plain(module, batch)
    assert found is not None
    # norms of the Llama family round to single precision even in double precision
    torch.testing.assert_close(found, wanted, atol=2e-6 * float(wanted.detach().abs().max()), rtol=0)
    for one, other in zip(gradients(module, found), gradients(module, wanted), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * float(other.abs().max()), rtol=0)


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}), "grouped heads": ("llama", {"num_key_value_heads": 2}), "biases": ("qwen2", {}),
    "head norms": ("qwen3", {"num_key_value_heads": 1}), "learnt positions": ("gpt2", {}), "partial rotation": ("gpt_neox", {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_those_of_the_padded_pass(kind: str) -> None:
    architecture, options = KINDS[kind]
    agree(model(architecture, **options), rows())


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_lengths_and_groups(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 5, (4,), generator=random).tolist()
    prompts = torch.randint(1, 20, (4,), generator=random).tolist()
    lengths = [
        (prompt, int(torch.randint(1, 30, (), generator=random))) for prompt, size in zip(prompts, sizes, strict=True) for _ in range(size)
    ]
    agree(model(), rows([*lengths, (1, 40)], [group for group, size in enumerate(sizes) for _ in range(size)] + [4], seed))


def test_adapters_are_computed_too() -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model(), LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)).double()
    agree(adapted.eval(), rows())


def test_labels_with_gaps_are_predicted_and_rows_without_labels_left_out() -> None:
    batch = rows()
    batch["labels"][1, 9:14] = IGNORED  # another speaker's turn within the answer
    batch["labels"][5] = IGNORED
    agree(model(), batch)


def test_prompts_are_computed_once_and_nothing_behind_the_last_label() -> None:
    layout = lay_out(rows())
    assert layout is not None
    # prompts of 5, 2 and 9, and of each answer all but its last token
    assert len(layout.ids) == 5 + 2 + 9 + (2 + 19 + 0) + (3 + 29) + (1 + 1 + 6)
    assert len(layout.wanted) == 3 + 20 + 1 + 4 + 30 + 2 + 2 + 7
    # the prompt's last token predicts the first token of all its answers
    assert layout.wanted[0] == layout.wanted[3] == layout.wanted[23] == 4
    assert len(layout.spread) == sum(count * width for count, width in layout.pieces) < 8 * 34


def test_prompts_are_shared_between_neighbours_of_one_group_alone() -> None:
    batch = rows([(4, 2), (4, 3)], [0, 0])
    together, apart = lay_out(batch), lay_out(batch | {"group": torch.tensor([0, 1])})
    without = lay_out({name: column for name, column in batch.items() if name != "group"})
    assert together is not None and apart is not None and without is not None
    assert (len(together.ids), len(apart.ids), len(without.ids)) == (7, 11, 11)
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][1, 2] += 1  # another question under the same number
    found = lay_out(other)
    assert found is not None and len(found.ids) == 11
    for one in (batch | {"group": torch.tensor([0, 1])}, other):
        agree(model(), one)


def test_the_temperature_divides_packed_logits() -> None:
    batch, module = rows() | {"temperature": torch.tensor([1.0, 2.0, 0.5, 0.0, 1.0, 1.0, 3.0, 1.0])}, model()
    raw = packed_logits(module, batch)
    assert raw is not None
    divisors = torch.tensor([1.0, 2.0, 0.5, 1.0, 1.0, 1.0, 3.0, 1.0]).double()[:, None].expand(8, answer_mask(batch).shape[1])
    torch.testing.assert_close(answer_logits(module, batch), raw / divisors[answer_mask(batch)][:, None])


def test_the_model_is_left_as_it_was() -> None:
    module: Any = model().train()
    usual = module.config._attn_implementation
    assert packed_logits(module, rows()) is not None and module.training
    assert module.config._attn_implementation == usual == "sdpa"


# ---- stepping aside -----------------------------------------------------------------------------------------------------------------


def test_batches_that_it_does_not_fit() -> None:
    batch, module = rows(), model()
    left = {name: column.flip(1) if column.dim() == 2 else column for name, column in batch.items()}
    assert lay_out(left) is None and packed_logits(module, left) is None
    silent = batch | {"labels": torch.full_like(batch["labels"], IGNORED)}
    assert lay_out(silent) is None and answer_logits(module, silent).shape == (0, 100)
    # nothing shared and nearly no padding: 2 rows of 49 out of 2 x 53 places
    assert packed_logits(module, rows([(10, 40), (10, 40)], [0, 1])) is None
    with padded():
        assert packed_logits(module, batch) is None
    assert packed_logits(module, batch) is not None


def test_models_that_it_does_not_fit() -> None:
    batch = rows()
    assert packed_logits(nn.Linear(2, 2), batch) is None
    assert packed_logits(model("mistral", sliding_window=8), batch) is None
    dropping = model("llama", attention_dropout=0.1)
    assert packed_logits(dropping.train(), batch) is None and packed_logits(dropping.eval(), batch) is not None
    saving: Any = model()
    saving.activation_checkpointing_enable()
    assert packed_logits(saving, batch) is None
    eager: Any = model()
    eager.set_attn_implementation("eager")
    assert packed_logits(eager, batch) is None


class Counting(LlamaForCausalLM):
    """A model that numbers places itself, whatever it is told."""

    def forward(self, input_ids: Any = None, position_ids: Any = None, logits_to_keep: Any = 0, **named: Any) -> Any:
        return super().forward(input_ids=input_ids, logits_to_keep=logits_to_keep, **named)


class Stubborn(LlamaForCausalLM):
    """A model that raises on what it does not expect."""

    def forward(self, input_ids: Any = None, position_ids: Any = None, logits_to_keep: Any = 0, **named: Any) -> Any:
        if position_ids is not None:
            raise ValueError("positions are my business")
        return super().forward(input_ids=input_ids, logits_to_keep=logits_to_keep, **named)


@pytest.mark.parametrize("kind", [Counting, Stubborn])
def test_a_model_that_does_otherwise_is_found_out_by_trial(kind: type[LlamaForCausalLM]) -> None:
    usual: Any = model()
    odd = kind(usual.config).double()
    odd.load_state_dict(usual.state_dict())
    assert packed_logits(odd.eval(), rows()) is None
    torch.testing.assert_close(answer_logits(odd, rows()), plain(usual, rows()))
