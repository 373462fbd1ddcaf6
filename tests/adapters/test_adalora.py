"""AdaLoRA: the schedule, the importance, what is cut; peft's implementation on the same gradients; and what it is for."""

from __future__ import annotations

import copy
import functools
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from outlay.adapters import AdaLora, Moment
from outlay.adapters.adalora import Triplets, triplet_layers
from outlay.allocators.rank import keep_highest
from outlay.models import Transformer
from outlay.models.base import seeded
from outlay.testing import check_adapter

SPEC = Transformer(hidden=16, layers=2, heads=2, feed_forward=24, context=32)
IDS = torch.randint(4, 99, (4, 8), generator=torch.Generator().manual_seed(0))


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(*widths: int, seed: int = 0) -> Any:
    parts: list[nn.Module] = []
    for number, (inner, out) in enumerate(itertools.pairwise(widths)):
        layer = nn.utils.skip_init(nn.Linear, inner, out, bias=False)
        layer.weight.data = numbers(out, inner, seed=100 * seed + number) / inner**0.5
        parts += [layer, nn.Tanh()]
    return nn.Sequential(*parts[:-1])


def driven(spec: AdaLora, module: Any, steps: int, total: int, loss: Any, lr: float = 0.02) -> Any:
    """The module after updates 1 .. steps of a run of ``total``, with what was kept after each: (layers, triplets) lists."""
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=lr)
    kept = []
    for step in range(1, steps + 1):
        moment = Moment(step, step / total)
        spec.before(module, moment)
        (loss(module, step) + spec.penalty(module)).backward()
        optimizer.step()
        spec.after(module, optimizer, moment)
        optimizer.zero_grad()
        kept.append([(layer.E != 0).tolist() for layer in triplet_layers(module)])
    return kept


# ---- the schedule and the cut --------------------------------------------------------------------------------------------------------


def test_the_budget_is_cubic_between_its_ends() -> None:
    spec = AdaLora(rank=2, initial=8, warmup=0.2, final=0.3)
    scores = [np.zeros(8)] * 6
    assert [spec.budget(scores, progress) for progress in (0.0, 0.1, 0.2, 0.7, 0.9, 1.0)] == [48, 48, 48, 12, 12, 12]
    assert [spec.budget(scores, 0.2 + 0.5 * x) for x in (0.25, 0.5, 0.75)] == [27, 16, 12]  # 12 + 36 (1 - x)^3, down
    falling = [spec.budget(scores, progress / 200) for progress in range(201)]
    assert falling == sorted(falling, reverse=True)


def test_narrow_matrices_hold_fewer_triplets() -> None:
    adapted = AdaLora(rank=2, initial=8).attach(network(5, 20, 3), seed=0)
    assert [len(layer.E) for layer in triplet_layers(adapted)] == [5, 3]
    # no more is asked for than there is
    assert AdaLora(rank=6, initial=8).budget([np.zeros(5), np.zeros(3)], 1.0) == 8


def test_initial_is_half_as_many_again_unless_told() -> None:
    assert [AdaLora(rank=rank).start for rank in (8, 2, 1, 3)] == [12, 3, 2, 5]
    assert AdaLora(rank=3, initial=3).start == 3


SCORES = st.lists(st.lists(st.integers(0, 5).map(float), min_size=1, max_size=6), min_size=1, max_size=5)


@given(SCORES, st.data())
def test_kept_are_the_highest_of_all_and_exactly_as_many(scores: list[list[float]], data: st.DataObject) -> None:
    arrays = [np.array(each) for each in scores]
    everything = np.concatenate(arrays)
    total = data.draw(st.integers(0, len(everything)))
    kept = np.concatenate(keep_highest(arrays, total))
    assert kept.sum() == total
    assert sorted(everything[kept]) == sorted(everything)[len(everything) - total :]


@given(st.integers(0, 10**6), st.lists(st.integers(1, 7), min_size=1, max_size=5), st.data())
def test_without_ties_it_is_the_threshold_at_the_kth_value(seed: int, sizes: list[int], data: st.DataObject) -> None:
    everything = np.random.default_rng(seed).permutation(sum(sizes)).astype(float)
    arrays = np.split(everything, np.cumsum(sizes)[:-1])
    dropped = data.draw(st.integers(1, len(everything)))
    threshold = torch.kthvalue(torch.from_numpy(everything), dropped).values.item()
    kept = keep_highest(arrays, len(everything) - dropped)
    assert all(np.array_equal(mask, each > threshold) for mask, each in zip(kept, arrays, strict=True))


def test_of_equal_scores_no_more_than_asked_are_cut() -> None:
    """A threshold would cut all six."""
    kept = keep_highest([np.zeros(3), np.zeros(3)], 3)
    assert [mask.tolist() for mask in kept] == [[True, True, False], [True, False, False]]
    assert all(mask.all() for mask in keep_highest([np.zeros(3), np.ones(2)], 5))


# ---- the module ------------------------------------------------------------------------------------------------------------------------


def test_one_layer_by_the_formula() -> None:
    base = network(6, 9)
    w = base[0].weight.detach().clone()
    adapted: Any = AdaLora(rank=2, initial=3, alpha=5.0).attach(base, seed=0)
    layer = adapted[0]
    x = numbers(4, 6, seed=5)
    assert layer.scale == 5.0 / (3 + 1e-5)
    assert torch.equal(adapted(x), x @ w.T) and not layer.E.any()
    layer.E.data = torch.tensor([3.0, -1.0, 2.0])
    expected = w + 5.0 / (3 + 1e-5) * layer.B @ torch.diag(layer.E) @ layer.A
    assert torch.allclose(layer.effective(), expected)
    layer.cut(np.array([True, False, True]))
    assert layer.E.tolist() == [3.0, 0.0, 2.0]
    # the divisor stays that of the start
    expected = w + 5.0 / (3 + 1e-5) * (layer.B[:, [0, 2]] * torch.tensor([3.0, 2.0])) @ layer.A[[0, 2]]
    assert torch.allclose(layer.effective(), expected)
    assert torch.allclose(adapted(x), x @ expected.T, atol=1e-6)
    merged: Any = AdaLora().merge(adapted)
    assert type(merged[0]) is nn.Linear and torch.allclose(merged[0].weight, expected)


def test_a_and_b_are_drawn_with_a_deviation_of_a_fiftieth() -> None:
    layer = triplet_layers(AdaLora(rank=20, initial=40).attach(network(60, 50), seed=0))[0]
    for part in (layer.A.detach(), layer.B.detach()):
        assert float(part.std()) == pytest.approx(0.02, rel=0.05) and abs(float(part.mean())) < 1e-3


def test_the_penalty_by_the_formula() -> None:
    spec = AdaLora(rank=2, initial=2, orthogonality=0.3)
    adapted = spec.attach(network(4, 6, 5), seed=0)
    layers = triplet_layers(adapted)
    one = torch.eye(2)
    norms = [norm for layer in layers for norm in ((layer.A @ layer.A.T - one).norm(), (layer.B.T @ layer.B - one).norm())]
    assert spec.penalty(adapted).item() == pytest.approx(0.3 * sum(norm.item() for norm in norms) / 4)
    for layer in layers:
        layer.A.data = torch.linalg.qr(numbers(4 if layer is layers[0] else 6, 2)).Q.T
        layer.B.data = torch.linalg.qr(numbers(6 if layer is layers[0] else 5, 2)).Q
    assert spec.penalty(adapted).item() == pytest.approx(0, abs=1e-6)


def test_importance_and_scores_by_the_formula() -> None:
    """Two updates written out."""
    layer = triplet_layers(AdaLora(rank=2, initial=2).attach(network(3, 4), seed=0))[0]
    parts = {"A": layer.A, "B": layer.B, "E": layer.E}
    m = {name: torch.zeros_like(p) for name, p in parts.items()}
    u = copy.deepcopy(m)
    for step in range(2):
        for number, (name, p) in enumerate(parts.items()):
            p.data = numbers(*p.shape, seed=10 * step + number)
            p.grad = numbers(*p.shape, seed=10 * step + number + 5)
            i = (p * p.grad).abs().detach()
            m[name] = 0.85 * m[name] + 0.15 * i
            u[name] = 0.9 * u[name] + 0.1 * (i - m[name]).abs()
        layer.watch(0.85, 0.9)
    s = {name: m[name] * u[name] for name in parts}
    expected = [float(s["E"][i] + s["A"][i].mean() + s["B"][:, i].mean()) for i in range(2)]
    assert layer.scores() == pytest.approx(expected, rel=1e-5)


def test_what_has_no_gradient_goes_first_and_what_was_cut_may_come_back() -> None:
    spec = AdaLora(rank=2, initial=4, warmup=0.0, final=0.2, period=2, orthogonality=0.0)
    adapted: Any = spec.attach(network(6, 8, 6), seed=0)
    x, y = numbers(16, 6, seed=1), numbers(16, 6, seed=2)

    def loss(module: Any, step: int) -> torch.Tensor:
        # the first layer's output is taken off the graph
        return (module[2](module[1](module[0](x)).detach()) - y).square().mean()

    kept = driven(spec, adapted, 20, 20, loss)
    assert kept[-1] == [[False] * 4, [True] * 4]
    # E receives gradient although it is cut: between cuts a triplet is seen to move
    whole = driven(spec, spec.attach(network(6, 8, 6), seed=1), 20, 20, lambda m, step: (m(x) - y).square().mean())
    counts = [sum(sum(layer) for layer in after) for after in whole]
    assert counts[0] == counts[2] == 8 and counts[1] < 8
    assert counts[15:] == [4] * 5 and whole[15:] == [whole[15]] * 5
    assert counts[-1] == 4


def test_before_the_warmup_is_over_and_between_cuts_nothing_is_cut() -> None:
    spec = AdaLora(rank=1, initial=4, warmup=0.5, final=0.1, period=3)
    x, y = numbers(16, 6, seed=1), numbers(16, 6, seed=2)
    adapted = spec.attach(network(6, 8, 6), seed=0)
    counts = [sum(sum(each) for each in kept) for kept in driven(spec, adapted, 18, 20, lambda m, s: (m(x) - y).square().mean())]
    assert counts[:11] == [8] * 11
    assert counts[11] == spec.budget([np.zeros(4)] * 2, 0.6) < 8
    assert counts[12:14] == [8, 8] and counts[17] == 2


def test_scores_stay_in_the_final_phase() -> None:
    """From 16 of 20 updates on, with a final phase of a fifth."""
    spec = AdaLora(rank=1, initial=4, warmup=0.0, final=0.2)
    x, y = numbers(16, 6, seed=1), numbers(16, 6, seed=2)
    averages = []
    for steps in (14, 15, 20):
        adapted = spec.attach(network(6, 8, 6), seed=0)
        driven(spec, adapted, steps, 20, lambda m, s: (m(x) - y).square().mean())
        averages.append([layer.scores() for layer in triplet_layers(adapted)])
    assert all(np.array_equal(one, other) for one, other in zip(averages[1], averages[2], strict=True))
    assert not any(np.array_equal(one, other) for one, other in zip(averages[0], averages[1], strict=True))


# ---- peft ------------------------------------------------------------------------------------------------------------------------------


def test_importance_and_masks_are_pefts_on_the_same_gradients() -> None:
    """Over a whole run, every triplet and every score. They differ where peft's threshold takes ties along and where nothing is to be cut, for
    which it has no threshold: there the equation's "keep the highest b" is followed here."""
    peft = pytest.importorskip("peft")
    total, period = 40, 3
    base = network(6, 8, 8, 5)
    config = peft.AdaLoraConfig(
        init_r=4, target_r=2, tinit=4, tfinal=10, deltaT=period, total_step=total, lora_alpha=16, orth_reg_weight=0.1,
        target_modules=["0", "2", "4"],
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = peft.get_peft_model(copy.deepcopy(base), config)
    spec = AdaLora(rank=2, initial=4, warmup=4 / total, final=10 / total, period=period)
    ours = spec.attach(base, seed=0)
    layers = triplet_layers(ours)
    twins = [theirs.base_model.model[number] for number in (0, 2, 4)]
    for layer, twin in zip(layers, twins, strict=True):
        for mine, its in ((layer.A, twin.lora_A), (layer.B, twin.lora_B)):
            mine.data.copy_(its["default"])
    assert all(twin.ranknum["default"] == 4 for twin in twins)
    x, y = numbers(32, 6, seed=1), numbers(32, 5, seed=2)
    optimizers = [torch.optim.Adam([p for p in m.parameters() if p.requires_grad], lr=0.02) for m in (ours, theirs)]
    seen = set()
    for step in range(1, total + 1):
        moment = Moment(step, step / total)
        with torch.no_grad():
            assert torch.allclose(ours(x), theirs(x), atol=1e-5)
        # the penalty of peft is added to the loss of language models alone; without it on both sides
        for module, optimizer in zip((ours, theirs), optimizers, strict=True):
            (module(x) - y).square().mean().backward()
            optimizer.step()
        spec.after(ours, optimizers[0], moment)
        theirs.base_model.update_and_allocate(step)
        for optimizer in optimizers:
            optimizer.zero_grad()
        for layer, twin in zip(layers, twins, strict=True):
            assert torch.equal(layer.E == 0, twin.lora_E["default"][:, 0] == 0), step
            assert torch.allclose(layer.E, twin.lora_E["default"][:, 0], atol=1e-5)
        if step < total - 10:
            compare_averages(layers, theirs.base_model.rankallocator)
        seen.add(sum(int((layer.E != 0).sum()) for layer in layers))
    assert len(seen) > 4 and min(seen) == 6


def compare_averages(layers: list[Triplets], allocator: Any) -> None:
    for number, layer in zip((0, 2, 4), layers, strict=True):
        for part in "ABE":
            name = f"{number}.lora_{part}.default"
            importance, uncertainty = allocator.exp_avg_ipt[name], allocator.exp_avg_unc[name]
            assert torch.allclose(
                layer.get_buffer(f"importance_{part}"), importance.reshape_as(layer.get_parameter(part)), rtol=1e-3, atol=1e-9
            )
            assert torch.allclose(
                layer.get_buffer(f"uncertainty_{part}"), uncertainty.reshape_as(layer.get_parameter(part)), rtol=1e-3, atol=1e-9
            )


# ---- what it is for --------------------------------------------------------------------------------------------------------------------


@functools.cache
def task(seed: int) -> tuple[Any, Any]:
    """A network of six layers of tanh, and a teacher that is the same but for a matrix of rank 8 on the fourth."""
    teacher = network(*[24] * 7, seed=seed)
    teacher[6].weight.data += 3 * numbers(24, 8, seed=seed + 50) @ numbers(8, 24, seed=seed + 60) / (8 * 24) ** 0.5
    return network(*[24] * 7, seed=seed), teacher


def trained(module: Any, teacher: Any, seed: int, spec: AdaLora | None, lr: float = 0.04, steps: int = 300) -> float:
    """Test error after training."""
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=lr)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    draw = torch.Generator().manual_seed(seed)
    for step in range(1, steps + 1):
        x = torch.randn(128, 24, generator=draw)
        with torch.no_grad():
            y = teacher(x)
        loss = (module(x) - y).square().mean()
        (loss + spec.penalty(module) if spec is not None else loss).backward()
        optimizer.step()
        if spec is not None:
            spec.after(module, optimizer, Moment(step, (step - 1) / steps))
        optimizer.zero_grad()
        falling.step()
    x = torch.randn(2000, 24, generator=draw)
    with torch.no_grad():
        return float((module(x) - teacher(x)).square().mean())


@functools.cache
def allocated(initial: int, seed: int) -> tuple[float, list[int]]:
    """Test error, and how many triplets each layer keeps of 12 in all."""
    base, teacher = task(seed)
    # the task's loss is small, and so must be the penalty's weight: with 0.1 it rules, and little is gained
    spec = AdaLora(rank=2, initial=initial, alpha=32.0, warmup=0.1, final=0.3, period=5, orthogonality=0.01)
    module = spec.attach(copy.deepcopy(base), seed)
    loss = trained(module, teacher, seed, spec)
    return loss, [int((layer.E != 0).sum()) for layer in triplet_layers(module)]


@functools.cache
def even(seed: int) -> float:
    """Test error of LoRA with rank 2 in every layer, as peft has it."""
    peft = pytest.importorskip("peft")
    base, teacher = task(seed)
    with seeded(seed, "test"):
        names = [str(number) for number in range(0, 12, 2)]
        module = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(r=2, lora_alpha=16, target_modules=names))
    return trained(module, teacher, seed, None)


@pytest.mark.parametrize("seed", [1, 2])
def test_triplets_go_where_they_are_needed(seed: int) -> None:
    """With 12 triplets left in all: from 8 a layer, less than a third of the error of even LoRA remains (.0013 of .0100, .0021 of .0122). From 3
    a layer, which the one that matters cannot grow beyond, more than half of it does (.0060 and .0080)."""
    many, kept = allocated(8, seed)
    few, narrow = allocated(3, seed)
    assert sum(kept) == sum(narrow) == 12
    assert kept[3] == max(kept) >= 5 and narrow[3] == 3
    assert many < 0.33 * even(seed) and many < 0.4 * few
    assert few > 0.5 * even(seed)


# ---- fields and the contract -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "ranks must be 1 <= rank <= initial, found 0"),
        ({"rank": 4, "initial": 3}, "ranks must be 1 <= rank <= initial, found 4 and 3"),
        ({"alpha": 0.0}, "alpha must be > 0, found 0"),
        ({"warmup": 0.5, "final": 0.5}, "warmup and final must be >= 0 and below 1 together, found 0.5 and 0.5"),
        ({"final": -0.1}, "warmup and final must be >= 0"),
        ({"period": 0}, "period must be >= 1, found 0"),
        ({"beta2": 1.0}, r"beta1 and beta2 must lie in \[0, 1\), found 0.85 and 1"),
        ({"orthogonality": -1.0}, "orthogonality must be >= 0, found -1"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaLora(**fields)


def test_contract() -> None:
    def forward(module: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return out

    check_adapter(AdaLora(rank=2, period=2), lambda: SPEC.build(0).module, IDS, forward)
    check_adapter(AdaLora(rank=1, initial=4, period=1), lambda: network(6, 12, 3), numbers(8, 6), lambda module, x: module(x))
