"""Hypergradient: by hand, against the derivative itself, and with real SGD on quadratics."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.controllers import Hypergradient
from outlay.record import Record
from outlay.testing import check_controller, record

CURVATURES = torch.tensor([1.0, 0.3, 0.05], dtype=torch.float64)


def seen(alignment: float, norm: float = 1.0, step: int = 1, **fields: Any) -> Record:
    return record(step, gradient_norm=norm, metrics={"descent_alignment": alignment}, **fields)


def loss_of(weights: torch.Tensor) -> torch.Tensor:
    return 0.5 * (CURVATURES * weights**2).sum()


def descend(controller: Hypergradient, peak: float, steps: int) -> tuple[list[float], list[float]]:
    """Train with torch's SGD at peak * value, measuring the alignment by hand; return the losses and the rates followed."""
    weights = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = torch.optim.SGD([weights], lr=peak)
    direction, losses, rates = None, [], []
    for step in range(1, steps + 1):
        rate = peak * controller.value(step / steps)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = loss_of(weights)
        loss.backward()
        assert weights.grad is not None
        metrics = {} if direction is None else {"descent_alignment": float(weights.grad @ direction)}
        before = weights.detach().clone()
        optimizer.step()
        direction = (before - weights.detach()) / rate
        assert torch.allclose(direction, weights.grad, rtol=1e-9)  # the definition, with plain SGD
        controller.observe(record(step, float(loss.detach()), gradient_norm=float(weights.grad.norm()), metrics=metrics))
        losses.append(float(loss.detach()))
        rates.append(rate)
    return losses, rates


# ---- by hand -------------------------------------------------------------------------------------------------------------------------


def test_additive_by_hand() -> None:
    controller = Hypergradient("additive", beta=0.25)
    values = []
    for alignment in (2.0, -1.0, 0.0, -4.0):
        controller.observe(seen(alignment))
        values.append(controller.value(0.5))
    assert values == [1.5, 1.25, 1.25, 0.25]


def test_multiplicative_by_hand() -> None:
    controller = Hypergradient(beta=0.5)
    values = []
    # norms 2, 4, 1, 1: cosines of 4 / 8 and -3 / 4, then beyond -1; the first has no gradient to be compared with
    for alignment, norm in ((9.0, 2.0), (4.0, 4.0), (-3.0, 1.0), (-7.0, 1.0)):
        controller.observe(seen(alignment, norm))
        values.append(controller.value(0.5))
    assert values == [1.0, 1.25, 1.25 * 0.625, 1.25 * 0.625 * 0.5]


@given(st.floats(1e-6, 1e6), st.lists(st.tuples(st.floats(-1, 1), st.floats(0.1, 10)), max_size=20))
def test_the_multiplicative_form_does_not_feel_the_losss_scale(scale: float, steps: list[tuple[float, float]]) -> None:
    one, scaled, last = Hypergradient(), Hypergradient(), 1.0
    for cosine, norm in steps:
        one.observe(seen(cosine * norm * last, norm))
        scaled.observe(seen(cosine * norm * last * scale**2, norm * scale))
        last = norm
    assert scaled.value(0.5) == pytest.approx(one.value(0.5), rel=1e-9)


def test_stays_within_its_bounds() -> None:
    for form in ("additive", "multiplicative"):
        controller = Hypergradient(form, beta=0.9, minimum=0.25, maximum=2.0)
        for alignment, expected in ((50.0, 2.0), (-50.0, 0.25)):
            for _ in range(20):
                controller.observe(seen(alignment))
            assert controller.value(0.5) == expected


@pytest.mark.parametrize("form", ["additive", "multiplicative"])
def test_passes_over_what_says_nothing(form: Any) -> None:
    controller = Hypergradient(form, beta=0.5)
    controller.observe(seen(0.0))
    for nothing in (
        record(1, gradient_norm=1.0),
        seen(math.nan),
        seen(math.inf),
        seen(1.0, outcome="skipped"),
        seen(1.0, kind="evaluation"),
    ):
        controller.observe(nothing)
    assert controller.value(0.5) == 1.0
    controller.observe(seen(1.0))
    assert controller.value(0.5) == 1.5


@pytest.mark.parametrize("norm", [0.0, math.inf, math.nan])
def test_a_norm_that_cannot_be_divided_by_changes_nothing(norm: float) -> None:
    controller = Hypergradient(beta=0.5)
    for entry in (seen(1.0, norm), seen(1.0, 1.0), seen(1.0, norm)):
        controller.observe(entry)
    assert controller.value(0.5) == 1.0


# ---- with torch ----------------------------------------------------------------------------------------------------------------------


def test_the_alignment_is_minus_the_derivative_by_the_last_rate() -> None:
    weights = torch.ones(3, dtype=torch.float64)
    rate = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    gradient = CURVATURES * weights
    after = loss_of(weights - rate * gradient)
    after.backward()
    assert rate.grad is not None
    alignment = float((CURVATURES * (weights - 0.4 * gradient)) @ gradient)
    assert alignment == pytest.approx(-float(rate.grad), rel=1e-12)


def test_is_the_papers_sgd_one_step_later() -> None:
    """alpha <- alpha + beta g_t . g_{t-1}, written out; a rate found in step t is followed in step t + 1."""
    peak, beta, steps = 0.05, 0.02, 40
    _, rates = descend(Hypergradient("additive", beta=beta / peak), peak, steps)
    weights, last, alpha, expected = torch.ones(3, dtype=torch.float64), None, peak, []
    for _ in range(steps):
        gradient = CURVATURES * weights
        expected.append(alpha)
        weights = weights - alpha * gradient
        alpha = alpha if last is None else alpha + beta * float(gradient @ last)
        last = gradient
    assert rates == pytest.approx(expected, rel=1e-10)
    assert rates[-1] > 1.2 * peak


def test_the_papers_multiplicative_form() -> None:
    peak, beta, steps = 0.05, 0.1, 40
    _, rates = descend(Hypergradient(beta=beta), peak, steps)
    weights, last, alpha, expected = torch.ones(3, dtype=torch.float64), None, peak, []
    for _ in range(steps):
        gradient = CURVATURES * weights
        expected.append(alpha)
        weights = weights - alpha * gradient
        alpha = alpha if last is None else alpha * (1 + beta * float(gradient @ last / (gradient.norm() * last.norm())))
        last = gradient
    assert rates == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("form", ["additive", "multiplicative"])
def test_mends_a_rate_that_is_too_small(form: Any) -> None:
    controller = Hypergradient(form, beta=0.05 if form == "multiplicative" else 5.0)
    losses, rates = descend(controller, 0.01, 200)
    fixed, _ = descend(Hypergradient(form, maximum=1.0, minimum=1.0), 0.01, 200)
    assert losses[-1] < 0.5 * fixed[-1] and rates[-1] > 5 * rates[0]


def test_mends_a_rate_that_diverges() -> None:
    """Beyond 2 / curvature gradients turn against each other, and the rate falls until they no longer do."""
    losses, rates = descend(Hypergradient(beta=0.2), 2.5, 100)
    fixed, _ = descend(Hypergradient(maximum=1.0, minimum=1.0), 2.5, 100)
    assert fixed[-1] > 1e6 and losses[-1] < 1e-3 and rates[-1] < 2.1


# ---- contract ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["additive", "multiplicative"])
def test_holds_the_contract(form: Any) -> None:
    records = [seen(math.sin(k), 1.0 + 0.1 * k, step=k) for k in range(1, 12)]
    values = check_controller(lambda: Hypergradient(form, beta=0.3), records)
    assert len(set(values)) > 8
    assert Hypergradient.needs == ("descent_alignment",)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"form": "sum"}, "form must be multiplicative or additive, found 'sum'"),
        ({"beta": 1.0}, r"beta must lie in \(0, 1\) for the multiplicative form, found 1.0"),
        ({"form": "additive", "beta": 0.0}, r"beta must lie in \(0, inf\) for the additive form, found 0.0"),
        ({"minimum": 0.0}, r"minimum must lie in \(0, 1\], found 0.0"),
        ({"maximum": 0.5}, "maximum must be finite and >= 1, found 0.5"),
    ],
)
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hypergradient(**fields)
