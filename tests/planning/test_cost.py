"""What an example costs: exact formulas, and nothing left behind."""

import copy
import json
from collections.abc import Mapping
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from outlay.adapters import Lora
from outlay.errors import InputError
from outlay.models import Cnn, Mlp, Transformer
from outlay.objectives import Classification, NextToken, OwnLoss
from outlay.planning.cost import Cost, Costs, formula_cost, measure, shape_key, upper_envelope
from outlay.planning.live import LiveBytes
from outlay.sources.base import IGNORED, Batch

HIDDEN, LAYERS, LENGTH, VOCABULARY, INNER = 32, 2, 16, 100, 48


def images(count: int, *shape: int) -> Batch:
    return {"inputs": torch.randn(count, *shape), "labels": torch.arange(count) % 3}


def texts(count: int, labelled: int = LENGTH) -> Batch:
    ids = torch.arange(count * LENGTH).view(count, LENGTH) % VOCABULARY
    labels = ids.clone()
    labels[:, : LENGTH - labelled] = IGNORED
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def llama() -> nn.Module:
    return Transformer(hidden=HIDDEN, layers=LAYERS, heads=4, context=LENGTH, feed_forward=INNER).build(0).module


# ---- FLOPs -------------------------------------------------------------------------------------------------------------------------


def test_mlp_by_hand() -> None:
    cost = measure(Mlp(20, 3, (16, 8)).build(0).module, Classification(), images(4, 20))
    products = 20 * 16 + 16 * 8 + 8 * 3
    assert cost.forward_flops_per_example == 2 * products
    assert cost.flops_per_example == 6 * products - 2 * 20 * 16, "the inputs of the first layer need no gradient"


def test_frozen_layers_cost_less() -> None:
    module = Mlp(20, 3, (16, 8)).build(0).module
    for p in list(module.parameters())[:-2]:
        p.requires_grad_(False)
    cost = measure(module, Classification(), images(4, 20))
    assert cost.flops_per_example == 2 * (20 * 16 + 16 * 8 + 8 * 3) + 2 * 8 * 3, (
        "only the last weight's gradient is left of the backward pass"
    )


def test_cnn_by_hand() -> None:
    cost = measure(Cnn(2, 3, (4, 8)).build(0).module, Classification(), images(4, 2, 8, 8))
    first, second, last = 8 * 8 * 9 * 2 * 4, 4 * 4 * 9 * 4 * 8, 8 * 3
    assert cost.forward_flops_per_example == 2 * (first + second + last)
    assert cost.flops_per_example == 6 * (first + second + last) - 2 * first


def llama_flops() -> tuple[int, int]:
    """Return (products with weights, products inside attention) a forward pass of one example takes."""
    weights = LAYERS * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER) + HIDDEN * VOCABULARY
    return 2 * LENGTH * weights, LAYERS * 2 * 2 * LENGTH * LENGTH * HIDDEN


def test_llama_is_six_flops_a_weight_and_token_and_the_attention() -> None:
    cost = measure(llama(), NextToken(), texts(4))
    weights, attention = llama_flops()
    assert cost.forward_flops_per_example == weights + attention
    assert cost.flops_per_example == 3 * weights + attention + attention * 5 / 2


def test_lora_by_hand() -> None:
    module = Lora(rank=2).attach(llama(), 0)
    cost = measure(module, NextToken(), texts(4))
    weights, attention = llama_flops()
    # A and B beside the seven linear layers of a block, which see (in, out) of these widths
    widths = [(HIDDEN, HIDDEN)] * 4 + [(HIDDEN, INNER)] * 2 + [(INNER, HIDDEN)]
    adapters = 2 * LENGTH * LAYERS * 2 * sum(a + b for a, b in widths)
    assert cost.forward_flops_per_example == weights + attention + adapters
    # no gradient flows into the embeddings: the inputs of the first block's q, k and v, and of their A, need none
    first = 2 * LENGTH * 3 * (HIDDEN * HIDDEN + 2 * HIDDEN)
    assert cost.flops_per_example == (weights + attention + adapters) + (weights + attention * 5 / 2 + 2 * adapters) - first


class Checkpointed(nn.Module):
    def __init__(self, on: bool) -> None:
        super().__init__()
        self.first, self.last, self.on = nn.Linear(32, 32), nn.Linear(32, 1), on
        self.body = nn.Sequential(*[nn.Sequential(nn.Linear(32, 32), nn.GELU()) for _ in range(4)])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.first(inputs)
        hidden = checkpoint(self.body, hidden, use_reentrant=False) if self.on else self.body(hidden)
        out: torch.Tensor = self.last(hidden).mean()
        return out


def test_checkpointing_pays_flops_for_memory() -> None:
    plain, saving = (measure(Checkpointed(on), OwnLoss(), {"inputs": torch.randn(4, 32)}) for on in (False, True))
    assert saving.flops_per_example == plain.flops_per_example + 2 * 4 * 32 * 32
    assert saving.forward_flops_per_example == plain.forward_flops_per_example
    # inputs and outputs of the body are kept, its eight hidden layers are not
    assert plain.activation_bytes_per_example - saving.activation_bytes_per_example == pytest.approx(7 * 32 * 4)


def test_formula() -> None:
    assert formula_cost(1000, 1000, 16).flops_per_example == 6 * 1000 * 16
    assert formula_cost(1000, 0, 16).flops_per_example == 4 * 1000 * 16
    assert formula_cost(1000, 10, 1) == Cost(4020.0, 2000.0)
    for wrong in ((0, 0, 1), (10, 11, 1), (10, -1, 1), (10, 10, 0)):
        with pytest.raises(InputError):
            formula_cost(*wrong)
    with pytest.raises(InputError, match="never run"):
        formula_cost(1000, 1000, 16).peak_bytes(1)


def test_formula_is_near_what_is_measured() -> None:
    module = llama()
    count = sum(p.numel() for p in module.parameters())
    measured = measure(module, NextToken(), texts(4)).flops_per_example
    assert formula_cost(count, count, LENGTH).flops_per_example == pytest.approx(measured, rel=0.15)


# ---- memory ------------------------------------------------------------------------------------------------------------------------


def test_activations_of_an_mlp_by_hand() -> None:
    cost = measure(Mlp(20, 3, (16,)).build(0).module, Classification(), images(4, 20))
    # kept: the input, the ReLU's output, the dropout of nothing, the log-probabilities; labels and the accuracy's parts
    inputs, hidden, classes, label = 20 * 4, 16 * 4, 3 * 4, 8
    assert cost.activation_bytes_per_example == inputs + hidden + classes + label
    assert cost.activation_bytes_fixed <= 12, "the loss, the accuracy and the number of examples"


@pytest.mark.parametrize("case", ["llama", "cnn", "mlp"])
def test_peak_of_a_large_batch_follows_from_two_small_ones(case: str) -> None:
    module, objective, batch = {
        "llama": (llama(), NextToken(), texts(12)),
        "cnn": (Cnn(2, 3, (4, 8)).build(0).module, Classification(), images(12, 2, 8, 8)),
        "mlp": (Mlp(20, 3, (64,)).build(0).module, Classification(), images(12, 20)),
    }[case]
    cost = measure(module, objective, batch)
    for again in (False, True):
        assert cost.peak_bytes(12, again) == real_peak(module, objective, batch, again)


def real_peak(module: nn.Module, objective: object, batch: Batch, again: bool) -> int:
    """Return the most bytes alive during a pass over the whole batch, from the live count after every operation."""
    module = copy.deepcopy(module).train()
    held = 0
    if again:
        for p in module.parameters():
            p.grad = torch.zeros_like(p)
            held += p.grad.nbytes
    known = [*module.parameters(), *module.buffers(), *[p.grad for p in module.parameters() if p.grad is not None]]
    with LiveBytes(known) as live:
        here = {name: column.clone() for name, column in batch.items()}
        loss, _ = objective(module, here, {})  # type: ignore[operator]
        loss.backward()
    return held + max(other + kept for other, kept, _ in live.moments([]))


def test_the_heaviest_example_is_measured() -> None:
    light, heavy = texts(6, labelled=2), texts(6, labelled=2)
    heavy["labels"][4] = heavy["input_ids"][4]
    more, less = (measure(llama(), NextToken(), batch).activation_bytes_per_example for batch in (heavy, light))
    # the log-probabilities and the target of each further labelled position; the first position has none before it to predict it from
    assert more - less == (LENGTH - 1 - 2) * (VOCABULARY * 4 + 8)


def test_the_mask_that_padding_builds_is_measured() -> None:
    whole, padded = texts(12), texts(12)
    padded["attention_mask"][5, -3:] = 0
    module = llama()
    cost = measure(module, NextToken(), padded)
    real = real_peak(module, NextToken(), padded, again=False)
    assert real > measure(module, NextToken(), whole).peak_bytes(12)
    assert cost.peak_bytes(12) == real


def test_lower_precision_keeps_less_per_example_and_copies_of_the_weights() -> None:
    module = Mlp(64, 3, (64, 64)).build(0).module
    full, half = (measure(module, Classification(), images(4, 64), precision) for precision in ("fp32", "bf16"))
    assert half.flops_per_example == full.flops_per_example
    assert half.activation_bytes_per_example < full.activation_bytes_per_example
    # the two weights that a gradient flows through are kept in two bytes
    assert half.activation_bytes_fixed - full.activation_bytes_fixed >= 2 * (64 * 64 + 64 * 3)


lines = st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 20)), min_size=1, max_size=12)


@given(lines)
def test_envelope_is_the_maximum_everywhere_and_no_longer_than_needed(drawn: list[tuple[int, int]]) -> None:
    kept = upper_envelope(drawn)
    assert set(kept) <= set(drawn)
    for n in [1, 1.5, 2, 3, 7, 20, 101, 1e6]:
        assert max(a + b * n for a, b in kept) == max(a + b * n for a, b in drawn)
    assert [b for _, b in kept] == sorted({b for _, b in kept})


def test_a_line_that_is_never_highest_is_dropped() -> None:
    # the middle one is at 8.3 where the others cross at 10, and the last is below before 1 alone
    assert upper_envelope([(10, 0), (5, 1), (0, 3), (0.5, 2.5)]) == ((10, 0), (0, 3))


# ---- around --------------------------------------------------------------------------------------------------------------------------


def test_measuring_leaves_no_trace() -> None:
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(20), nn.Linear(20, 3), nn.Dropout(0.5)).eval()
    module[2].weight.grad = torch.ones(3, 20)
    batch = images(4, 20)
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    measure(module, Classification(), batch)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert module[2].bias.grad is None and torch.equal(module[2].weight.grad, torch.ones(3, 20))
    assert not any(part.training for part in module.modules())
    assert not module[2].weight._post_accumulate_grad_hooks


def test_one_example_is_enough_also_for_batch_norm() -> None:
    module = nn.Sequential(nn.BatchNorm1d(20), nn.Linear(20, 3))
    assert measure(module, Classification(), images(1, 20)) == measure(module, Classification(), images(9, 20))


def test_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        assert measure(Mlp(20, 3, (16,)).build(0).module, Classification(), images(4, 20)).flops_per_example > 0


def test_what_cannot_be_measured_is_refused() -> None:
    module = Mlp(20, 3, (16,)).build(0).module
    with pytest.raises(InputError, match="fp32, no, bf16, fp16"):
        measure(module, Classification(), images(2, 20), "fp8")
    with pytest.raises(InputError, match=r"inputs.*\(0, 20\)"):
        measure(module, Classification(), images(0, 20))
    with pytest.raises(InputError, match="nothing to train"):
        measure(module.requires_grad_(False), Classification(), images(2, 20))


def test_shape_key_forgets_the_examples_alone() -> None:
    assert shape_key({"labels": torch.zeros(5), "inputs": torch.zeros(5, 3, 8)}) == "inputs 3x8, labels 1"
    assert shape_key(texts(3)) == shape_key(texts(7)) != shape_key({name: column[:, :8] for name, column in texts(3).items()})


class Counting(OwnLoss):
    calls = 0

    def __call__(self, *arguments: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        Counting.calls += 1
        return super().__call__(*arguments)  # type: ignore[arg-type]


class Demanding(OwnLoss):
    knobs: ClassVar[dict[str, float]] = {"scale": 3.0}

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, more = super().__call__(model, batch, knobs)
        return loss * knobs["scale"], more


def test_the_objective_gets_the_defaults_of_its_knobs() -> None:
    assert measure(Squares(), Demanding(), {"inputs": torch.randn(2, 4)}).flops_per_example == 4 * 4 * 2


class Squares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(inputs).square().mean()
        return out


def test_costs_are_measured_once_a_shape_and_survive_json() -> None:
    Counting.calls = 0
    costs = Costs(Squares(), Counting())
    narrow, wide = {"inputs": torch.randn(6, 4)}, {"inputs": torch.randn(2, 5, 4)}
    first = costs.of(narrow)
    assert costs.spent_on_last == 5 * first.flops_per_example
    assert costs.of({"inputs": torch.randn(3, 4)}) == first and Counting.calls == 2 and len(costs) == 1
    second = costs.of(wide)
    assert second.flops_per_example == 5 * first.flops_per_example and len(costs) == 2
    again = Costs(Squares(), Counting())
    again.load_state_dict(json.loads(json.dumps(costs.state_dict())))
    assert (again.of(narrow), again.of(wide)) == (first, second)
    assert Counting.calls == 4, "nothing was measured again"
