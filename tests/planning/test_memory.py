"""Memory: by hand, against the allocator's own books, and how a batch is cut."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from outlay.errors import InputError
from outlay.models import Cnn, Mlp, Transformer
from outlay.objectives import Classification, NextToken, Objective
from outlay.optim import AdamW, OptimizerSpec, Sgd
from outlay.planning.cost import Cost, formula_cost, measure
from outlay.planning.memory import HEAD_ROOM, _container_memory, _machine_memory, available_memory, choose_micro_batch, memory
from outlay.sources.base import Batch

WEIGHTS = 20 * 16 + 16 + 16 * 3 + 3


def mlp() -> nn.Module:
    return Mlp(20, 3, (16,)).build(0).module


def flat(fixed: float, each: float, again: float = 0.0) -> Cost:
    return Cost(0.0, 0.0, peak=((fixed, each),), peak_again=((fixed + again, each),))


def test_parts_by_hand() -> None:
    needed = memory(mlp(), AdamW(), flat(0, 10_000), 3)
    assert needed.weights == needed.gradients == 4 * WEIGHTS
    assert needed.optimizer == 8 * WEIGHTS + 4 * 4, "two moments, and a step count for each of four tensors"
    assert needed.activations == 30_000 - needed.gradients, "gradients come while activations go"
    assert needed.total == needed.weights + needed.gradients + needed.optimizer + needed.activations == 12 * WEIGHTS + 16 + 30_000


def test_gradients_are_the_least_beyond_weights_and_state() -> None:
    needed = memory(mlp(), Sgd(), flat(0, 1), 1)
    assert (needed.activations, needed.total) == (0, 3 * 4 * WEIGHTS)


def test_frozen_weights_have_neither_gradient_nor_state() -> None:
    module = mlp()
    module[1].requires_grad_(False)
    needed = memory(module, Sgd(), flat(0, 10_000), 1)
    assert (needed.weights, needed.gradients, needed.optimizer) == (4 * WEIGHTS, 4 * (16 * 3 + 3), 4 * (16 * 3 + 3))


def test_buffers_shared_weights_and_narrow_types() -> None:
    module = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8))
    module[1].weight = module[0].weight
    module.to(torch.bfloat16)
    needed = memory(module, Sgd(), flat(0, 10_000), 1)
    assert needed.weights == 2 * (64 + 16 + 16) + 8, "one shared matrix, two vectors, two running statistics, a count of batches"
    assert needed.gradients == needed.optimizer == 2 * (64 + 16)


def test_a_formula_knows_no_memory() -> None:
    with pytest.raises(InputError, match="measure its cost"):
        memory(mlp(), Sgd(), formula_cost(10, 10, 1), 1)


# ---- against the allocator ----------------------------------------------------------------------------------------------------------


def language_model() -> tuple[nn.Module, Objective, Batch]:
    ids = torch.arange(8 * 48).view(8, 48) % 90 + 4
    module = Transformer(hidden=64, layers=2, heads=4, context=48).build(0).module
    return module, NextToken(), {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def image_model() -> tuple[nn.Module, Objective, Batch]:
    inputs = torch.linspace(-1, 1, 16 * 3 * 16 * 16).view(16, 3, 16, 16)
    return Cnn(3, 10, (16, 32)).build(0).module, Classification(), {"inputs": inputs, "labels": torch.arange(16) % 10}


def wide_model() -> tuple[nn.Module, Objective, Batch]:
    inputs = torch.linspace(-1, 1, 16 * 64).view(16, 64)
    return Mlp(64, 10, (256, 256)).build(0).module, Classification(), {"inputs": inputs, "labels": torch.arange(16) % 10}


@pytest.mark.parametrize("spec", [AdamW(), Sgd()], ids=["adamw", "sgd"])
@pytest.mark.parametrize("pieces", [1, 4])
@pytest.mark.parametrize("case", [language_model, image_model, wide_model])
def test_prediction_is_what_the_allocator_hands_out(
    case: Callable[[], tuple[nn.Module, Objective, Batch]], pieces: int, spec: OptimizerSpec
) -> None:
    module, objective, batch = case()
    size = len(batch["labels"]) // pieces
    needed = memory(module, spec, measure(module, objective, batch), size, again=pieces > 1)
    module.train()
    optimizer = spec.build(list(module.named_parameters()))
    step = lambda: train(module, objective, optimizer, batch, size)  # noqa: E731
    step()  # the optimizer's state is there from the second step on
    state = sum(value.nbytes for entry in optimizer.state.values() for value in entry.values() if isinstance(value, torch.Tensor))
    assert needed.optimizer == state
    assert needed.total == pytest.approx(needed.weights + state + allocator_peak(step), rel=0.01)


def train(module: nn.Module, objective: Objective, optimizer: torch.optim.Optimizer, batch: Batch, size: int) -> None:
    for start in range(0, len(batch["labels"]), size):
        here = {name: column[start : start + size].clone() for name, column in batch.items()}
        loss, _ = objective(module, here, {})
        loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def allocator_peak(work: Callable[[], None]) -> int:
    """Return the most bytes the CPU allocator had handed out during ``work``, beyond what it had before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    held = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


TIGHT = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_memory import *
from outlay.planning.memory import return_freed_memory
torch.set_num_threads(1)
assert return_freed_memory()
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
module, objective, _ = wide_model()
module, spec = Mlp(256, 10, (1024, 1024)).build(0).module.train(), AdamW()
batch = {"inputs": torch.zeros(8192, 256), "labels": torch.zeros(8192, dtype=torch.long)}
needed = memory(module, spec, measure(module, objective, batch), 8192)
optimizer = spec.build(list(module.named_parameters()))
small = {name: column[:512] for name, column in batch.items()}
train(module, objective, optimizer, small, 512)
held = status("VmRSS") - needed.weights - needed.optimizer
for _ in range(4):
    train(module, objective, optimizer, batch, 8192)
print(needed.total, status("VmHWM") - held)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status and needs glibc")
def test_a_process_that_returns_freed_memory_grows_as_predicted() -> None:
    done = subprocess.run([sys.executable, "-c", TIGHT, str(Path(__file__).parent)], capture_output=True, text=True, check=True)
    predicted, grown = map(int, done.stdout.split())
    assert predicted == pytest.approx(grown, rel=0.1)


# ---- cutting a batch ------------------------------------------------------------------------------------------------------------------

FIXED = 12 * WEIGHTS + 16  # weights, two moments, and the gradients of the pieces before


def ceiling_for(examples: float) -> float:
    """Return the ceiling under which just so many examples of 10,000 bytes fit when gradients are held."""
    return (FIXED + 4 * WEIGHTS + 10_000 * examples) / (1 - HEAD_ROOM)


@pytest.mark.parametrize(
    ("batch", "fit", "piece"),
    [
        (64, 64, 64),
        (64, 63, 32),  # equal pieces
        (64, 21, 16),
        (48, 20, 16),  # three equal pieces, not twenty and a rest
        (50, 16, 10),  # four do not divide 50, five do
        (31, 8, 8),  # a prime: four pieces, the last of them smaller
        (31, 1, 1),
        (1, 1, 1),
    ],
)
def test_fewest_pieces_that_fit(batch: int, fit: int, piece: int) -> None:
    cost = flat(0, 10_000, 4 * WEIGHTS)
    assert choose_micro_batch(mlp(), AdamW(), cost, batch, ceiling_for(fit) + 1)[0] == piece


@given(batch=st.integers(1, 200), fit=st.integers(1, 250))
@settings(max_examples=40, deadline=None)
def test_every_choice_fits_and_is_nearly_the_fewest(batch: int, fit: int) -> None:
    module, cost, ceiling = mlp(), flat(0, 10_000, 45_000), ceiling_for(fit + 4.5) - 4 * WEIGHTS / (1 - HEAD_ROOM) + 1
    piece, _ = choose_micro_batch(module, AdamW(), cost, batch, ceiling)
    assert 1 <= piece <= batch
    assert memory(module, AdamW(), cost, piece, again=piece < batch).total <= ceiling * (1 - HEAD_ROOM)
    assert -(-batch // piece) <= 2 * -(-batch // fit)


def test_reason_is_given() -> None:
    cost = flat(0, 2**20)
    assert choose_micro_batch(mlp(), AdamW(), cost, 8, 2**30)[1] == "the batch of 8 in one piece needs 8 MiB of 1 GiB"
    assert choose_micro_batch(mlp(), AdamW(), cost, 8, 5 * 2**20) == (
        4,
        "2 pieces of the batch of 8 need 4 MiB of 5 MiB; one piece would need 8 MiB",
    )


def test_refusal_names_consumers_the_ceiling_that_would_do_and_two_settings() -> None:
    module = nn.Linear(1000, 1000, bias=False)
    with pytest.raises(InputError) as caught:
        choose_micro_batch(module, AdamW(), flat(0, 5e6, 4e6), 1, 10e6)
    assert str(caught.value) == (
        "even one example at a time needs 16.2 MiB, and the ceiling is 9.54 MiB of which 10% is kept free; "
        "the most is taken by optimizer state 7.63 MiB, weights 3.81 MiB, gradients 3.81 MiB. A ceiling of 18 MiB would do; "
        "or train few weights with an adapter (adapter: lora) "
        "or choose a smaller model of at most 499,999 parameters instead of 1,000,000 (model)"
    )
    total = 17_000_004
    assert choose_micro_batch(module, AdamW(), flat(0, 5e6), 1, total / (1 - HEAD_ROOM) + 1)[0] == 1
    with pytest.raises(InputError, match=r"would do; or optimizer: .* needs .* or train .* or take an optimizer that keeps less"):
        choose_micro_batch(module, AdamW(), flat(0, 4e6), 1, 10e6)
    with pytest.raises(InputError, match=r"activations 95.* shorten the examples .* or choose a smaller model"):
        choose_micro_batch(module, Sgd(), flat(0, 104e6), 4, 10e6)


# ---- what is there --------------------------------------------------------------------------------------------------------------------


def test_available_memory_of_this_machine() -> None:
    there = available_memory("cpu")
    assert 2**20 < there < 2**50
    block = torch.ones(2**26)  # a quarter GiB
    assert available_memory("cpu") < there - 2**27 or block is None


def test_machine_memory_as_the_kernel_says(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemFree:  7 kB\nMemAvailable:    42 kB\nHugePages_Total:       0\n")
    assert _machine_memory(tmp_path / "meminfo") == 42 * 1024
    assert _machine_memory(tmp_path / "absent") > 2**27


def test_limit_of_the_container(tmp_path: Path) -> None:
    assert _container_memory(tmp_path) > 2**60
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("5000\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("2000\n")
    assert _container_memory(tmp_path) == 3000
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert _container_memory(tmp_path) == 3000, "no limit in version 2"
    (tmp_path / "memory.max").write_text("1000\n")
    assert _container_memory(tmp_path) == 400
