"""Prodigy, D-Adaptation and schedule-free AdamW: the equations, the weights to be used, and what is missing without the extra."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
from torch import nn

from outlay.errors import MissingExtra
from outlay.optim import AdamW, DAdaptation, Prodigy, ScheduleFree, follow
from outlay.optim.base import SCALES, Averages, settle, settled
from outlay.testing import check_optimizer

pytest.importorskip("pytorch_optimizer")
ALL = [Prodigy(), DAdaptation(), ScheduleFree()]
GRADIENTS = [1.0, 1.5, 2.0, 0.25]


def drive(spec: Any, lr: float, decay: float = 0.0) -> tuple[float, torch.optim.Optimizer, nn.Parameter]:
    """A matrix of one entry, 2.0 at the start, after a step for each gradient."""
    w = nn.Parameter(torch.full((1, 1), 2.0, dtype=torch.float64))
    optimizer = spec.build([("w", w)])
    follow(optimizer, "lr", lr)
    follow(optimizer, "weight_decay", decay)
    for gradient in GRADIENTS:
        w.grad = torch.full_like(w, gradient)
        optimizer.step()
    return w.item(), optimizer, w


def test_prodigy_by_the_formula() -> None:
    lr, decay, d0, eps = 0.7, 0.1, 0.01, 1e-3
    got, _, _ = drive(Prodigy(beta1=0.8, beta2=0.81, eps=eps, first=d0, coefficient=1.5), lr, decay)
    w, m, v, r, s, d = 2.0, 0.0, 0.0, 0.0, 0.0, d0
    for g in GRADIENTS:
        rate = lr * d
        r = 0.9 * r + d / d0 * rate * g * (2.0 - w)
        s = 0.9 * s + d / d0 * rate * g
        m, v = 0.8 * m + 0.2 * d * g, 0.81 * v + 0.19 * d * d * g * g
        d = max(d, 1.5 * r / abs(s))
        w = w * (1 - decay * rate) - rate * m / (math.sqrt(v) + d * eps)
    assert d > d0 and got == pytest.approx(w, rel=1e-6)  # the package sums r in single precision


def test_d_adaptation_by_the_formula() -> None:
    lr, decay, d0, eps = 0.7, 0.1, 0.01, 1e-3
    got, optimizer, _ = drive(DAdaptation(beta1=0.8, beta2=0.81, eps=eps, first=d0), lr, decay)
    w, m, v, r, s, d = 2.0, 0.0, 0.0, 0.0, 0.0, d0
    for g in GRADIENTS:
        rate = lr * d
        r = 0.9 * r + 0.1 * rate * g * s / (math.sqrt(v) + eps)
        s = 0.9 * s + 0.1 * rate * g
        m, v = 0.8 * m + 0.2 * rate * g, 0.81 * v + 0.19 * g * g
        w = w * (1 - decay * rate) - m / (math.sqrt(v) + eps)
        d = max(d, r / (0.1 * abs(s)))
    assert d > d0 and got == pytest.approx(w, rel=1e-6)
    assert optimizer.param_groups[0]["d"] == pytest.approx(d, rel=1e-6)


def test_schedule_free_by_the_formula() -> None:
    lr, decay, eps = 0.05, 0.1, 1e-3
    spec = ScheduleFree(beta1=0.8, beta2=0.9, eps=eps)
    got, optimizer, w = drive(spec, lr, decay)
    z = x = y = 2.0
    v = 0.0
    for t, g in enumerate(GRADIENTS, 1):
        v = 0.9 * v + 0.1 * g * g
        step = g / (math.sqrt(v / (1 - 0.9**t)) + eps) + decay * y
        z = z - lr * step
        x = (1 - 1 / t) * x + z / t
        y = 0.2 * z + 0.8 * x
    assert got == pytest.approx(y, rel=1e-9)
    ((parameter, average),) = spec.averages(optimizer)
    assert parameter is w and average.item() == pytest.approx(x, rel=1e-9) and x != pytest.approx(y, rel=1e-3)
    # the package's own switch gives the same
    optimizer.eval()  # type: ignore[attr-defined]
    assert w.item() == pytest.approx(x, rel=1e-9)


def test_settled_gives_the_averages_and_takes_them_back_bit_by_bit() -> None:
    spec = ScheduleFree()
    _, optimizer, w = drive(spec, 0.03)
    before, average = w.detach().clone(), spec.averages(optimizer)[0][1]
    with settled(spec, optimizer):
        assert torch.equal(w, average) and not torch.equal(w, before)
    assert torch.equal(w, before)
    with pytest.raises(RuntimeError), settled(spec, optimizer):
        raise RuntimeError
    assert torch.equal(w, before)
    settle(spec, optimizer)
    assert torch.equal(w, average)


def test_other_optimizers_have_nothing_to_settle() -> None:
    spec = AdamW()
    assert not isinstance(spec, Averages) and isinstance(ScheduleFree(), Averages)
    _, optimizer, w = drive(spec, 0.1)
    before = w.detach().clone()
    with settled(spec, optimizer):
        assert torch.equal(w, before)
    settle(spec, optimizer)
    assert torch.equal(w, before)


def test_before_the_first_step_there_is_no_average() -> None:
    assert ScheduleFree().averages(ScheduleFree().build([("w", nn.Parameter(torch.ones(2, 2)))])) == []


def test_prodigy_and_d_adaptation_find_their_rate() -> None:
    """On w^2 / 2 from w = 3 the estimate of the distance grows from a millionth to that order."""
    for spec in (Prodigy(), DAdaptation()):
        w = nn.Parameter(torch.full((1, 1), 3.0))
        optimizer = spec.build([("w", w)])
        for _ in range(300):
            w.grad = w.detach().clone()
            optimizer.step()
        assert 0.01 < optimizer.param_groups[0]["d"] < 10 and abs(w.item()) < 1


def test_state_bytes_by_hand() -> None:
    assert [spec.state_bytes({"a": (2, 3), "b": (3,)}) for spec in ALL] == [4 * 9 * 4, 3 * 9 * 4, 2 * 9 * 4]
    assert [spec.state_bytes({"a": (2, 3)}, 2) for spec in ALL] == [48, 36, 24]


@pytest.mark.parametrize("spec", ALL)
def test_vectors_do_not_decay(spec: Any) -> None:
    groups = spec.build([("w", nn.Parameter(torch.ones(2, 2))), ("b", nn.Parameter(torch.ones(2)))]).param_groups
    assert [group[SCALES] for group in groups] == [{}, {"weight_decay": 0.0}]


@pytest.mark.parametrize("cls", [Prodigy, DAdaptation, ScheduleFree])
def test_without_the_extra(cls: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(MissingExtra, match=r"pip install 'outlay\[optim\]'"):
        cls()


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (Prodigy, {"beta1": 1.0}, r"beta1 and beta2 must lie in \[0, 1\), found 1.0"),
        (Prodigy, {"first": 0.0}, "eps, first and coefficient must be > 0, found 1e-08, 0.0 and 1.0"),
        (DAdaptation, {"beta2": -1.0}, "found 0.9 and -1.0"),
        (DAdaptation, {"growth": 1.0}, "growth > 1, found 1e-08, 1e-06 and 1.0"),
        (ScheduleFree, {"beta1": 0.0}, r"beta1 must lie in \(0, 1\)"),
        (ScheduleFree, {"eps": 0.0}, "eps must be > 0, found 0.0"),
    ],
)
def test_wrong_fields_are_refused(cls: type, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**fields)


@pytest.mark.parametrize(
    "spec", [*ALL, Prodigy(bias_correction=True, safeguard_warmup=True, first=1e-3), DAdaptation(growth=1.5), ScheduleFree(beta1=0.5)]
)
def test_contract(spec: Any) -> None:
    check_optimizer(spec)
