"""Masks by their definitions, the frozen rest, the measures by their closed forms, and a small policy gradient."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from outlay.adapters import SafeMask
from outlay.adapters.geometry import (
    Entries,
    Kind,
    changed,
    overlap,
    principal_angles,
    principal_mask,
    principal_part,
    safe_mask,
    small_mask,
    spectral_drift,
)
from outlay.models import Transformer
from outlay.testing import check_adapter

KINDS: tuple[Kind, ...] = ("safe", "principal", "small", "random")
SPEC = Transformer(hidden=16, layers=2, heads=2, feed_forward=24, context=32)
IDS = torch.randint(4, 99, (4, 8), generator=torch.Generator().manual_seed(0))


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def perceptron(*widths: int, seed: int = 0) -> Any:
    parts: list[nn.Module] = []
    for number in range(len(widths) - 1):
        layer = nn.utils.skip_init(nn.Linear, widths[number], widths[number + 1])
        layer.weight.data = 1.2 * numbers(widths[number + 1], widths[number], seed=10 * seed + number) / widths[number] ** 0.5
        layer.bias.data.zero_()
        parts += [layer, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


# ---- masks -----------------------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.floats(0, 1), st.integers(0, 10**6))
def test_masks_have_their_sizes_and_hold_the_extremes(out: int, inner: int, rank: int, share: float, seed: int) -> None:
    w = numbers(out, inner, seed=seed)
    low, high = small_mask(w, share), principal_mask(w, rank, share, draw())
    assert low.sum() == high.sum() == round(share * w.numel())
    part = principal_part(w, rank, draw())
    for mask, values, side in ((low, w.abs(), 1), (high, part.abs(), -1)):
        if mask.any() and not mask.all():
            assert (side * values[mask]).max() <= (side * values[~mask]).min()
    safe = safe_mask(w, rank, share, 1 - share, draw())
    assert torch.equal(safe, ~high | small_mask(w, 1 - share))
    assert w.numel() - round(share * w.numel()) <= safe.sum() <= w.numel()


def test_the_principal_part_is_the_best_of_its_rank() -> None:
    for shape, rank in (((9, 7), 3), ((60, 80), 4), ((5, 9), 40)):
        w = numbers(*shape)
        left, values, right = torch.linalg.svd(w, full_matrices=False)
        expected = (left[:, :rank] * values[:rank]) @ right[:rank]
        part = principal_part(w, rank, draw())
        assert torch.linalg.matrix_rank(part) == min(rank, *shape)
        if min(shape) < rank + 10:
            assert torch.allclose(part, expected, atol=1e-5)
        # a random start sees a flat spectrum nearly
        assert float((w - part).norm()) <= 1.0005 * float((w - expected).norm()) + 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_share_is_trained(kind: Kind) -> None:
    w = numbers(10, 7)
    places = SafeMask(kind, share=0.3, rank=2).chosen(w, draw())
    assert len(places) == 21 and torch.equal(places, places.unique())
    mask = torch.zeros(70, dtype=torch.bool).index_fill(0, places, True).view(10, 7)
    if kind == "principal":
        assert torch.equal(mask, principal_mask(w, 2, 0.3, draw()))
    if kind == "small":
        assert torch.equal(mask, small_mask(w, 0.3))
    assert len(SafeMask(kind, share=1.0).chosen(w, draw())) == 70
    assert len(SafeMask(kind, share=1e-6).chosen(w, draw())) == 1


def test_safe_entries_are_the_safe_mask_of_a_common_cut() -> None:
    """At every cut x the safe mask is what the adapter takes when it is given as large a share."""
    w, sizes = numbers(9, 8), set()
    for cut in range(1, 72):
        mask = safe_mask(w, 2, 1 - cut / 72, cut / 72, draw())
        places = SafeMask("safe", share=float(mask.sum()) / 72, rank=2).chosen(w, draw())
        assert torch.equal(places, mask.flatten().nonzero()[:, 0])
        sizes.add(int(mask.sum()))
    assert len(sizes) > 30


def test_random_entries_come_from_the_seed_and_the_layer() -> None:
    def places(seed: int) -> list[torch.Tensor]:
        adapted: Any = SafeMask("random", share=0.2).attach(perceptron(9, 9, 9), seed)
        return [adapted[0].places, adapted[2].places]

    (one, two), again, other = places(0), places(0), places(1)
    assert torch.equal(one, again[0]) and not torch.equal(one, two) and not torch.equal(one, other[0])


# ---- the module ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_chosen_stays_bit_by_bit(dtype: torch.dtype) -> None:
    base = perceptron(6, 8, 3).to(dtype)
    before = {name: p.detach().clone() for name, p in base.named_parameters()}
    spec = SafeMask("safe", share=0.25, rank=2)
    adapted: Any = spec.attach(base, seed=0)
    layers = [part for part in adapted if isinstance(part, Entries)]
    assert [layer.entries.numel() for layer in layers] == [12, 6]
    assert all(layer.entries.dtype == torch.float32 for layer in layers)
    assert [p is layer.entries for p, layer in zip([p for p in adapted.parameters() if p.requires_grad], layers, strict=True)] == [
        True,
        True,
    ]
    x = numbers(5, 6).to(dtype)
    optimizer = torch.optim.AdamW([layer.entries for layer in layers], lr=0.1)
    for _ in range(5):
        adapted(x).float().square().mean().backward()
        optimizer.step()
    places = [layer.places for layer in layers]
    merged = spec.merge(adapted)
    for (name, p), chosen in zip([(n, p) for n, p in merged.named_parameters() if n.endswith("weight")], places, strict=True):
        differs = (p != before[name]).flatten()
        assert set(differs.nonzero()[:, 0].tolist()) <= set(chosen.tolist()) and differs.sum() > 0.5 * len(chosen)
    assert all(torch.equal(p, before[name]) for name, p in merged.named_parameters() if name.endswith("bias"))


def test_the_gradient_is_the_weights_at_the_chosen_places() -> None:
    base = perceptron(6, 8)
    x = numbers(5, 6)
    adapted: Any = SafeMask("small", share=0.5).attach(copy.deepcopy(base), seed=0)
    base(x).square().sum().backward()
    adapted(x).square().sum().backward()
    assert torch.allclose(adapted[0].entries.grad, base[0].weight.grad.flatten()[adapted[0].places])


# ---- measures --------------------------------------------------------------------------------------------------------------------------


def every_bfloat16() -> torch.Tensor:
    """All positive normal ones, rising."""
    return torch.arange(0x0080, 0x7F80, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)


def test_the_probe_is_exact_for_bfloat16() -> None:
    """Every positive normal number beside its neighbour: different ones count as changed, equal ones do not; and so for negative ones."""
    w = every_bfloat16()
    assert len(w) == 254 * 128
    assert not changed(w, w).any()
    for sign in (1, -1):
        assert changed(sign * w[:-1], sign * w[1:]).all() and changed(sign * w[1:], sign * w[:-1]).all()
    assert changed(w, -w).all() and not changed(torch.zeros(1), torch.zeros(1)).any()


def test_rounding_to_bfloat16_swallows_what_is_below_a_512th() -> None:
    """For every number, up and down; and a tenth more than that is not swallowed everywhere."""
    w = every_bfloat16()[:-128].double()  # the last ones would overflow
    for step in (2**-9 * 0.999, -(2**-9) * 0.999):
        assert torch.equal((w * (1 + step)).to(torch.bfloat16), w.to(torch.bfloat16))
    assert not torch.equal((w * (1 - 2**-9 * 1.1)).to(torch.bfloat16), w.to(torch.bfloat16))


def test_the_probe_by_its_tolerance() -> None:
    before = torch.tensor([1.0, 1.0, -2.0, 0.0, 0.0])
    after = torch.tensor([1.0009, 1.0011, -2.0019, 0.0, 1e-9])
    assert changed(before, after).tolist() == [False, True, False, False, True]
    assert changed(before, after, tolerance=1e-4).tolist() == [True, True, True, False, True]
    # relative to the larger one, whichever that is
    assert changed(torch.tensor([1.0, 1.9]), torch.tensor([1.9, 1.0]), tolerance=0.5).tolist() == [False, False]


def test_spectral_drift_by_closed_forms() -> None:
    w = numbers(7, 5)
    assert spectral_drift(w, 1.25 * w) == pytest.approx(0.25, rel=1e-5)
    turned = torch.linalg.qr(numbers(7, 7, seed=1)).Q @ w @ torch.linalg.qr(numbers(5, 5, seed=2)).Q
    assert spectral_drift(w, turned) == pytest.approx(0, abs=1e-6)
    assert spectral_drift(torch.diag(torch.tensor([3.0, 4.0])), torch.diag(torch.tensor([3.0, 5.0]))) == pytest.approx(0.2)


def test_principal_angles_by_a_rotation() -> None:
    """Of the left vectors by an angle out of the subspace, of the right ones by none."""
    w = torch.diag(torch.tensor([5.0, 4.0, 0.5, 0.1], dtype=torch.float64))
    for angle in (1e-9, 1e-3, 0.4, math.pi / 2):
        turn = torch.eye(4, dtype=torch.float64)
        turn[1, 1] = turn[2, 2] = math.cos(angle)
        turn[2, 1], turn[1, 2] = math.sin(angle), -math.sin(angle)
        left, right = principal_angles(w, turn @ w, 2)
        assert left.tolist() == pytest.approx([0, angle], rel=1e-6, abs=1e-12)
        assert right.tolist() == pytest.approx([0, 0], abs=1e-12)
    # within the subspace nothing turns
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    assert principal_angles(w, turn @ w, 2)[0].tolist() == pytest.approx([0, 0], abs=1e-7)


def test_overlap_beside_chance() -> None:
    mask = torch.tensor([True, True, True, True, False, False, False, False, False, False])
    other = torch.tensor([True, True, True, False, True, False, False, False, False, False])
    assert overlap(mask, other) == pytest.approx((0.75, 0.4))
    assert math.isnan(overlap(torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)).share)


# ---- a small policy gradient -----------------------------------------------------------------------------------------------------------


@functools.cache
def task() -> tuple[Any, torch.Tensor, torch.Tensor]:
    """A classifier pre-trained on digits, and digits half mixed with their own shifted by a pixel."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    held = torch.arange(len(x)) % 3 == 0
    policy, rows = perceptron(64, 64, 64, 10, seed=1), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    for _ in range(300):
        chosen = torch.randint(0, int((~held).sum()), (128,), generator=rows)
        nn.functional.cross_entropy(policy(x[~held][chosen]), y[~held][chosen]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return policy, 0.5 * x + 0.5 * x.view(-1, 8, 8).roll(1, 2).reshape(-1, 64), y


def rewarded(kind: Kind | None, steps: int = 100) -> tuple[float, float, list[float]]:
    """Reward, KL to the start, and the spectral drift of every layer after REINFORCE with four answers a question, reward 1 for a right one."""
    start, x, y = task()
    held = torch.arange(len(x)) % 3 == 0
    policy: Any = copy.deepcopy(start) if kind is None else SafeMask(kind, 0.5, rank=4).attach(copy.deepcopy(start), seed=0)
    optimizer = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], lr=1e-3)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    rows = torch.Generator().manual_seed(1)
    for _ in range(steps):
        chosen = torch.randint(0, int((~held).sum()), (128,), generator=rows)
        chances = policy(x[~held][chosen]).log_softmax(1)
        answers = torch.multinomial(chances.detach().exp(), 4, replacement=True, generator=rows)
        reward = (answers == y[~held][chosen][:, None]).float()
        (-((reward - reward.mean(1, keepdim=True)) * chances.gather(1, answers)).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        falling.step()
    with torch.no_grad():
        now, before = policy(x[held]).log_softmax(1), start(x[held]).log_softmax(1)
        right = float(now.exp().gather(1, y[held][:, None]).mean())
        drifts = [spectral_drift(one.weight, other.weight) for one, other in zip(start[::2], policy[::2], strict=True)]
        return right, float((now.exp() * (now - before)).sum(1).mean()), drifts


def test_off_the_principals_the_spectrum_drifts_less() -> None:
    """From .73, half of the entries reach, off the principals, .85 with a KL of .26, and on them .86 with a KL of .27, where all reach .89 with .32.
    So the ordering of rewards that was reported for large models is not seen in so small a one, and is not asserted; that the principal entries
    move singular values about twice as far is."""
    start, x, y = task()
    with torch.no_grad():
        before = float(start(x).softmax(1).gather(1, y[:, None]).mean())
    safe, principal, dense = (rewarded(kind) for kind in ("safe", "principal", None))
    assert safe[0] > before + 0.08 and dense[0] > safe[0] > dense[0] - 0.06
    assert all(few < 0.75 * many for few, many in zip(safe[2], principal[2], strict=True))
    assert safe[1] < principal[1] < dense[1]


# ---- fields and the contract -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"share": 0.0}, r"share must lie in \(0, 1\], found 0"),
        ({"share": 1.1}, r"share must lie in \(0, 1\], found 1.1"),
        ({"rank": 0}, "rank must be >= 1, found 0"),
        ({"kind": "large"}, "kind must be safe, principal, small or random, found 'large'"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SafeMask(**fields)


@pytest.mark.parametrize("kind", KINDS)
def test_contract(kind: Kind) -> None:
    def forward(module: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return out

    check_adapter(SafeMask(kind, rank=4), lambda: SPEC.build(0).module, IDS, forward)
    check_adapter(SafeMask(kind, share=0.1, rank=2), lambda: perceptron(6, 12, 3), numbers(8, 6), lambda module, x: module(x))
