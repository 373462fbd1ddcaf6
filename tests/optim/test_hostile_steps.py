"""Optimizers where things are not usual: states loaded elsewhere, bfloat16, processes that fail, gradients that stay out."""

from __future__ import annotations

import io
import math
from functools import partial
from typing import Any

import pytest
import torch
from small_steps import gradients
from torch import nn

from outlay.optim import METHODS, AdamWBf16, Apollo, Frugal, GaLore, OptimizerSpec, PerLayer, Subspace, ZerothOrder, follow
from outlay.projectors import Columns, Gaussian
from outlay.residuals import Sign

Named = list[tuple[str, nn.Parameter]]


def matrices(count: int = 3, shape: tuple[int, ...] = (6, 4), dtype: torch.dtype = torch.float32) -> Named:
    return [(f"{i}.weight", nn.Parameter(start.to(dtype))) for i, start in enumerate(gradients(count, shape, seed=9))]


def drive(optimizer: torch.optim.Optimizer, named: Named, first: int, last: int) -> None:
    for step in range(first, last):
        for (_, w), g in zip(named, gradients(len(named), tuple(named[0][1].shape), seed=step), strict=True):
            w.grad = g.to(w.dtype)
        optimizer.step()


def held(optimizer: torch.optim.Optimizer) -> int:
    return sum(value.numel() * value.element_size() for kept in optimizer.state.values() for value in kept.values())


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("decay", ["before", "after"])
def test_bfloat16_weights_decay_on_average_when_rounded_stochastically(rounding: Any, decay: Any) -> None:
    w = nn.Parameter(torch.full((64, 64), 1.5, dtype=torch.bfloat16))
    optimizer = Subspace(rounding=rounding, decay=decay, names=("",)).build([("w", w)])
    follow(optimizer, "lr", 0.01)
    follow(optimizer, "weight_decay", 0.1)
    for _ in range(200):
        w.grad = torch.zeros_like(w)
        optimizer.step()
    # a decay by 2^-10 a step is less than half of bfloat16's own
    expected = 1.5 * 0.999**200 if rounding == "stochastic" else 1.5
    assert abs(float(w.detach().float().mean()) - expected) < 0.003


RANDOM: dict[str, OptimizerSpec] = {
    "a sketch that is not kept": Apollo(rank=2, period=4),
    "columns drawn anew": Frugal(projector=Columns(0.5), period=2),
    "weights rounded at random": AdamWBf16(),
    "directions": ZerothOrder(),
    "within the backward pass": PerLayer(Apollo(rank=2, period=4)),
}


@pytest.mark.parametrize("name", RANDOM)
def test_a_state_goes_on_in_an_optimizer_that_was_built_with_another_seed(name: str) -> None:
    """What is drawn next is the state's business, not that of whoever loads it."""
    dtype = torch.bfloat16 if isinstance(RANDOM[name], AdamWBf16) else torch.float32
    named = matrices(dtype=dtype)
    optimizer = RANDOM[name].build(named, seed=1)

    def go_on(one: torch.optim.Optimizer, its: Named, first: int, last: int) -> None:
        for _ in range(first, last) if isinstance(RANDOM[name], ZerothOrder) else ():
            one.step(lambda: sum(float(w.square().sum()) for _, w in its))  # type: ignore[arg-type]
        if not isinstance(RANDOM[name], ZerothOrder):
            drive(one, its, first, last)

    go_on(optimizer, named, 0, 3)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    twins = [(name, nn.Parameter(w.detach().clone())) for name, w in named]
    other = RANDOM[name].build(twins, seed=2)
    other.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    go_on(optimizer, named, 3, 9)
    go_on(other, twins, 3, 9)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(named, twins, strict=True))


@pytest.mark.parametrize("order", ["random", "ascending", "descending", "mirror"])
@pytest.mark.parametrize("period", [1, 3])
def test_matrices_that_step_one_by_one_never_hold_more_than_was_said(order: Any, period: int) -> None:
    """As within a backward pass: whose turn comes must not wait for those whose turn is over."""
    from outlay.projectors import Blocks

    named = matrices(5)
    spec = Frugal(projector=Blocks(0.4, order), period=period)
    optimizer = spec.build(named)
    said, seen = spec.state_bytes({name: tuple(w.shape) for name, w in named}), []
    for step in range(4 * period * 3):
        for _, w in reversed(named):
            w.grad = gradients(1, (6, 4), seed=step)[0].float()
            optimizer.step()
            w.grad = None
            seen.append(held(optimizer))
    assert max(seen) == said


def test_small_gradients_beside_large_ones_keep_their_signs() -> None:
    """Columns are split without rounding, so that whatever is left is meant."""
    named = matrices(1, (4, 8), torch.bfloat16)
    spec = Subspace(Columns(0.5), residual=Sign(), period=None, moments="reset")
    w, optimizer = named[0][1], spec.build(named)
    follow(optimizer, "lr", 1.0)
    w.data.zero_()
    w.grad = torch.zeros_like(w)
    optimizer.step()
    active = torch.zeros(8, dtype=torch.bool)
    active[optimizer.state[w]["projector.indices"].long()] = True
    w.grad = torch.where(active, 1000.0, 0.25).expand(4, 8).to(torch.bfloat16).contiguous()
    optimizer.step()
    assert torch.equal(w.detach()[:, ~active], torch.full((4, 4), -1.0, dtype=torch.bfloat16))


def explorer(spec: ZerothOrder, w: nn.Parameter) -> Any:
    return spec.build([("w", w)])


def noted(told: list[bytes], sent: bytes) -> list[bytes]:
    told.append(sent)
    return [sent]


@pytest.mark.parametrize("code", ["byte", "float"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_machines_stay_alike_when_the_loss_of_one_is_not_finite(code: Any, bad: float) -> None:
    starts = gradients(1, (4,))[0].float()
    ws = [nn.Parameter(starts.clone()) for _ in range(2)]
    optimizers = [explorer(ZerothOrder(code=code), w) for w in ws]
    for optimizer in optimizers:
        follow(optimizer, "lr", 0.1)
        follow(optimizer, "weight_decay", 0.1)

    def losses(round: int) -> None:
        # all bytes of a round are known before anybody moves
        told: list[bytes] = []
        for rank in range(2):
            twin = nn.Parameter(ws[rank].detach().clone())
            scout = explorer(ZerothOrder(code=code), twin)
            scout.load_state_dict(optimizers[rank].state_dict())
            scout.explore(loss(twin, rank, round), partial(noted, told), rank)
        for rank in range(2):
            optimizers[rank].explore(loss(ws[rank], rank, round), lambda _: told, rank)

    def loss(w: nn.Parameter, rank: int, round: int) -> Any:
        return lambda: bad if rank == 0 and round == 1 else float((w - rank).square().sum())

    losses(0)
    before = ws[0].detach().clone()
    assert not torch.equal(before, starts) and torch.equal(ws[0], ws[1])
    losses(1)
    # nobody moves, as when there is one machine
    assert torch.equal(ws[0], before) and torch.equal(ws[1], before)
    losses(2)
    assert torch.equal(ws[0], ws[1]) and not torch.equal(ws[0], before)


def test_steps_by_losses_have_no_backward_pass_to_be_taken_in() -> None:
    for spec in (ZerothOrder(), PerLayer()):
        with pytest.raises(ValueError, match=f"optimizer must step by whole gradients, and {type(spec).__name__} does not"):
            PerLayer(spec)


@pytest.mark.parametrize(
    "name", ["shared.weight", "model.shared.weight", "classifier.weight", "classifier.out_proj.weight", "score.weight"]
)
def test_other_names_of_embeddings_and_output_layers(name: str) -> None:
    assert not GaLore().composed().projects(name, (8, 4))
    assert GaLore().composed().projects("mlp.shared_expert.up_proj.weight", (8, 4))


PROJECTED = ["galore", "fira", "apollo", "apollo_mini", "frugal", "natural_galore", "dct_adamw"]


def small(name: str, **more: Any) -> Any:
    import dataclasses

    wanted = {"rank": 2, "density": 0.5, "period": 2, "history": 2, **more}
    cls = METHODS[name]
    return cls(**{field.name: wanted[field.name] for field in dataclasses.fields(cls) if field.name in wanted})


@pytest.mark.parametrize("name", PROJECTED)
@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1), (3, 2), (4, 4)])
@pytest.mark.parametrize("period", [1, None])
def test_thin_matrices_high_ranks_zero_gradients_and_rates(name: str, shape: tuple[int, int], period: int | None) -> None:
    """Weights stay finite, do not move at a rate of 0, and do afterwards; the bytes are those that were said."""
    spec = small(name, rank=64, period=period, density=1.0)
    named = matrices(1, shape)
    w, optimizer = named[0][1], spec.build(named)
    w.grad = torch.zeros(shape)
    optimizer.step()
    assert held(optimizer) + held_tables(optimizer) == spec.state_bytes({"0.weight": shape})
    follow(optimizer, "lr", 0.0)
    before = w.detach().clone()
    drive(optimizer, named, 0, 3)
    assert torch.equal(w, before)
    follow(optimizer, "lr", 0.01)
    drive(optimizer, named, 3, 6)
    assert bool(w.isfinite().all()) and not torch.equal(w, before)


def held_tables(optimizer: Any) -> int:
    return sum(table.numel() * table.element_size() for table in optimizer.tables.values())


@pytest.mark.parametrize("name", PROJECTED)
def test_a_matrix_whose_gradients_come_later_steps_as_if_it_had_just_begun(name: str) -> None:
    """Its moments, its subspace and its correction for the start are its own."""
    spec = small(name, density=1.0)
    late, fresh = matrices(2), matrices(2)
    late_optimizer, fresh_optimizer = spec.build(late), spec.build(fresh)
    for step in range(3):
        late[0][1].grad = gradients(1, seed=50 + step)[0].float()
        late_optimizer.step()
    drive(late_optimizer, late, 0, 5)
    drive(fresh_optimizer, fresh, 0, 5)
    assert torch.equal(late[1][1], fresh[1][1]) and not torch.equal(late[0][1], fresh[0][1])


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("name", PROJECTED)
def test_a_state_through_a_runs_checkpoint_is_the_same_at_and_beside_a_refresh(name: str, at: int) -> None:
    from outlay.train.checkpoint import optimizer_from_plain, optimizer_to_plain

    spec, named = small(name), matrices(3, (4, 6), torch.bfloat16)
    optimizer = spec.build(named, seed=1)
    drive(optimizer, named, 0, at)
    twins = [(name, nn.Parameter(w.detach().clone())) for name, w in named]
    other = spec.build(twins, seed=5)
    optimizer_from_plain(other, *optimizer_to_plain(optimizer))
    drive(optimizer, named, at, 7)
    drive(other, twins, at, 7)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(named, twins, strict=True))


def test_a_sketch_that_is_kept_is_the_one_that_is_drawn() -> None:
    drawn, stored = matrices(), matrices()
    drive(Apollo(projector=Gaussian(2), period=3).build(drawn, seed=4), drawn, 0, 8)
    drive(Apollo(projector=Gaussian(2, stored=True), period=3).build(stored, seed=4), stored, 0, 8)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(drawn, stored, strict=True))
