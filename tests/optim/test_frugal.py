"""FRUGAL: its readable twin, its two ends, the state it frees, and what it gains on its own Adam part."""

from __future__ import annotations

import pytest
import torch
from small_steps import Drawn, drive, gradients, kept, positions, regression
from torch import nn

from outlay.layout import Slots
from outlay.optim import Frugal, GaLore, follow
from outlay.optim.frugal import reference_frugal
from outlay.projectors import Blocks, Columns, Place, Svd
from outlay.residuals import Drop, Raw
from outlay.testing import check_optimizer

START = gradients(1, seed=9)[0]
HALF = Columns(0.5)


def active_columns(round: int) -> torch.Tensor:
    """(4,) 1 for the columns of "w" that have their turn in a round."""
    kept: dict[str, torch.Tensor] = {}
    place = Place("w", round=round)
    Slots(kept, "").fill(HALF.layout((6, 4), place), START)
    HALF.refresh(kept, START, place)
    return torch.zeros(4, dtype=torch.float64).index_fill_(0, kept["indices"].long(), 1.0)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_a_hundred_steps_agree_with_the_readable_twin(decay: float) -> None:
    spec, steps = Frugal(projector=HALF, period=7, scale=0.5, inactive_scale=0.1), gradients(100)
    chosen = [active_columns(t // 7).expand(6, 4) for t in range(100)]
    assert len({tuple(each[0].tolist()) for each in chosen}) > 3
    expected = reference_frugal(START, steps, chosen, spec, lr=0.01, decay=decay)
    assert torch.allclose(drive(spec, START, steps, lr=0.01, weight_decay=decay), expected, rtol=1e-9)


def adamw(start: torch.Tensor, steps: Drawn, restart: int | None = None) -> torch.Tensor:
    w = nn.Parameter(start.clone())
    for t, gradient in enumerate(steps):
        if t == 0 or (restart and t % restart == 0):
            peer = torch.optim.AdamW([w], lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.3)
        w.grad = gradient.clone()
        peer.step()
    return w.detach()


@pytest.mark.parametrize("projector", [None, Columns(1.0)])
def test_density_one_is_adamw_with_restarts(projector: Columns | None) -> None:
    steps = gradients(50)
    got = drive(Frugal(density=1.0, period=None, projector=projector), START, steps, lr=0.01, weight_decay=0.3)
    assert torch.allclose(got, adamw(START, steps), rtol=0, atol=1e-12)
    got = drive(Frugal(density=1.0, period=20, projector=projector), START, steps, lr=0.01, weight_decay=0.3)
    assert torch.allclose(got, adamw(START, steps, restart=20), rtol=0, atol=1e-12)


@pytest.mark.parametrize("projector", [None, Columns(0.0)])
def test_density_zero_is_sign_descent(projector: Columns | None) -> None:
    steps = gradients(20)
    expected = START.clone()
    for g in steps:
        expected.sub_(g.sign(), alpha=0.125)
    assert torch.equal(drive(Frugal(density=0.0, projector=projector), START, steps, lr=0.125), expected)
    # embeddings follow Adam all the same
    embedded = drive(Frugal(density=0.0, projector=projector), START, steps, name="embed.weight", lr=0.01, weight_decay=0.3)
    assert torch.allclose(embedded, adamw(START, steps), rtol=0, atol=1e-12)


def test_without_signs_columns_rest_until_their_turn() -> None:
    seen = positions(Frugal(projector=HALF, residual=Drop(), period=2), START, gradients(12), lr=0.01)
    for round in range(6):
        active, before, after = active_columns(round).bool(), seen[2 * round], seen[2 * round + 2]
        assert torch.equal(after[:, ~active], before[:, ~active])
        assert bool((after[:, active] != before[:, active]).all())
    assert bool((seen[-1] != START).any(0).all())


def test_the_residual_may_be_stepped_along_as_it_is() -> None:
    g = gradients(1)[0]
    moved = drive(Frugal(projector=HALF, residual=Raw(1.0, 0.1)), START, [g], lr=0.5) - START
    rest = ~active_columns(0).bool()
    assert torch.allclose(moved[:, rest], -0.5 * 0.1 * g[:, rest], rtol=1e-9)


def test_singular_vectors_without_signs_are_galore_until_the_first_refresh() -> None:
    steps = gradients(12)
    one = drive(Frugal(projector=Svd(2), residual=Drop(0.25), period=None, eps=1e-14), START, steps, lr=0.01)
    other = drive(GaLore(rank=2, period=None, eps=1e-14), START, steps, lr=0.01)
    assert torch.allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize("density", [0.0, 0.25, 0.5, 1.0])
def test_only_active_matrices_have_moments(density: float) -> None:
    weights = [(f"{i}.weight", nn.Parameter(torch.zeros(6, 4))) for i in range(4)]
    optimizer = Frugal(density=density, period=2).build(weights)
    had_turn: set[str] = set()
    for step in range(8):
        for gradient, (_, w) in zip(gradients(4, seed=step, dtype=torch.float32), weights, strict=True):
            w.grad = gradient
        optimizer.step()
        sizes = {name: optimizer.state[w]["inner.m"].numel() + optimizer.state[w]["inner.v"].numel() for name, w in weights}
        assert sum(sizes.values()) == 2 * density * 4 * 24
        had_turn |= {name for name, size in sizes.items() if size}
    assert len(had_turn) == (4 if density else 0)


def test_a_share_of_the_columns_has_moments() -> None:
    sizes = kept(Frugal(projector=Columns(0.25)), (6, 8))
    assert sizes["inner.m"] + sizes["inner.v"] == 2 * 0.25 * 48 and sizes["projector.indices"] == 2


@pytest.mark.parametrize("rank", [4, None])
def test_it_learns_what_its_adam_part_alone_does_not(rank: int | None) -> None:
    def best(residual: Drop | None) -> float:
        spec = Frugal(projector=Columns(4 / 32), period=None, residual=residual)
        return min(regression(spec, lr, rank=rank) for lr in (1e-2, 3e-2))

    assert best(None) < 1e-3
    assert best(Drop()) > 0.8


def test_the_inactive_scale_reaches_the_signs_alone() -> None:
    g = gradients(1)
    whole, tenth = (drive(Frugal(projector=HALF, inactive_scale=scale), START, g, lr=0.5) - START for scale in (1.0, 0.1))
    active = active_columns(0).bool()
    assert torch.equal(whole[:, active], tenth[:, active])
    assert torch.allclose(whole[:, ~active], 10 * tenth[:, ~active], rtol=1e-9)


def test_parts_refusals_and_contract() -> None:
    assert Frugal().composed().projector == Blocks(0.25)
    w = nn.Parameter(torch.zeros(2, 2))
    optimizer = Frugal().build([("w", w)])
    follow(optimizer, "lr", 0.5)
    assert optimizer.param_groups[0]["lr"] == 0.5 and Frugal.knobs["lr"] == 1e-3
    with pytest.raises(ValueError, match=r"density must lie in \[0, 1\], found 1\.5"):
        Frugal(density=1.5)
    with pytest.raises(ValueError, match=r"inactive_scale must be >= 0"):
        Frugal(inactive_scale=-1.0)
    check_optimizer(Frugal(density=0.5, period=1), steps=4)
    check_optimizer(Frugal(projector=Columns(0.5), period=2))
    check_optimizer(Frugal(density=0.0))
