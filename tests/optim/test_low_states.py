"""Optimizers with few bytes of state: contracts, bytes, and what rounding does to weights and losses."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import pytest
import torch
from torch import nn
from torch.nn import functional

from outlay.formats import Bf16, Dynamic8
from outlay.inner_rules import Adam, Natural
from outlay.optim import Adafactor, AdamW, AdamW8bit, AdamWBf16, Lion, OptimizerSpec, SignSgd, Subspace, Whole, follow
from outlay.testing import check_optimizer

SPECS: dict[str, OptimizerSpec] = {
    "adamw_8bit": AdamW8bit(),
    "adamw_8bit, blocks of 4": AdamW8bit(block=4, rounding="stochastic"),
    "adamw_bf16": AdamWBf16(),
    "adafactor": Adafactor(),
    "adafactor, first moment": Adafactor(beta1=0.9),
    "signsgd": SignSgd(),
    "signum": SignSgd(momentum=0.9, states=Dynamic8()),
    "lion": Lion(),
    "lion, bf16": Lion(states=Bf16()),
    "whole": Whole(),
    "whole, natural": Whole(Natural(history=2)),
}


@pytest.mark.parametrize("name", SPECS)
def test_contract(name: str) -> None:
    check_optimizer(SPECS[name])


def test_bytes_by_hand() -> None:
    shapes = {"embed.weight": (1000, 64), "bias": (64,)}
    count = 1000 * 64 + 64
    steps = 2 * 4
    assert AdamW8bit().state_bytes(shapes) == 2 * (count + 4 * (250 + 1)) + steps
    assert AdamWBf16().state_bytes(shapes) == 4 * count + steps
    assert Adafactor().state_bytes(shapes) == 4 * (1000 + 64 + 64) + steps
    assert SignSgd().state_bytes(shapes) == steps
    assert Lion().state_bytes(shapes) == 4 * count + steps
    assert Lion().state_bytes(shapes, 2) == 2 * count + steps
    assert AdamW().state_bytes(shapes) == 8 * count + steps


def test_no_parameter_is_projected() -> None:
    spec = Whole().composed()
    assert isinstance(spec, Subspace)
    assert not any(spec.projects(name, (4, 3)) for name in ("", "w", "layer.0.weight", "lm_head.weight"))
    w = nn.Parameter(torch.eye(4))
    optimizer = AdamW8bit().build([("layer.weight", w)])
    w.grad = torch.ones(4, 4)
    optimizer.step()
    assert all(name == "step" or name.startswith("inner.") for name in optimizer.state[w])


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_on_all_parameters_is_that_of_torch(decay: float) -> None:
    start = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    w, own = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    peer, mine = torch.optim.AdamW([w], lr=0.01, weight_decay=decay), Whole(Adam()).build([("w", own)])
    follow(mine, "lr", 0.01)
    follow(mine, "weight_decay", decay)
    for step in range(50):
        w.grad = torch.randn(6, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        own.grad = w.grad.clone()
        peer.step()
        mine.step()
    assert torch.allclose(w.detach(), own.detach(), rtol=1e-9)


def after_small_steps(spec: OptimizerSpec, lr: float, steps: int = 200) -> torch.Tensor:
    """Weights of 1.5 in bfloat16 under a gradient of 1."""
    w = nn.Parameter(torch.full((64, 64), 1.5, dtype=torch.bfloat16))
    optimizer = spec.build([("w", w)])
    follow(optimizer, "lr", lr)
    for _ in range(steps):
        w.grad = torch.ones_like(w)
        optimizer.step()
    return w.detach().float()


def test_bfloat16_weights_stall_to_nearest_and_move_right_on_average() -> None:
    lr = 2**-9 * 1.5 / 4
    stalled = after_small_steps(AdamWBf16(rounding="nearest"), lr)
    assert torch.equal(stalled, torch.full((64, 64), 1.5))
    assert torch.equal(after_small_steps(Whole(Adam()), lr), stalled)
    moved = after_small_steps(AdamWBf16(), lr)
    # Adam's steps under a constant gradient are lr each
    assert abs(float(moved.mean()) - (1.5 - 200 * lr)) < 0.01 * 200 * lr
    # with steps above half of bfloat16's own, both move
    assert float(after_small_steps(AdamWBf16(rounding="nearest"), 2**-7, 20).mean()) < 1.5 - 10 * 2**-7


def test_second_moments_in_bfloat16_reach_their_mean_only_when_rounded_stochastically() -> None:
    def second(rounding: Literal["nearest", "stochastic"]) -> float:
        w = nn.Parameter(torch.zeros(500))
        optimizer = AdamWBf16(beta2=0.999, rounding=rounding).build([("w", w)])
        for _ in range(700):
            w.grad = torch.ones(500)
            optimizer.step()
        return float(optimizer.state[w]["inner.v.values"].float().mean())

    assert abs(second("stochastic") - (1 - 0.999**700)) < 0.01
    assert second("nearest") < 0.3


def test_weights_in_single_precision_are_not_rounded() -> None:
    w = nn.Parameter(torch.ones(4))
    optimizer = AdamWBf16().build([("w", w)])
    follow(optimizer, "lr", 1e-6)
    w.grad = torch.ones(4)
    optimizer.step()
    assert torch.allclose(w.detach(), torch.full((4,), 1 - 1e-6), rtol=0, atol=1e-7)
    assert {state.dtype for name, state in optimizer.state[w].items() if name != "step"} == {torch.bfloat16}


def test_moments_in_8_bits_differ_from_those_in_32_by_their_rounding_alone() -> None:
    """One step from zero: every moment is that of Adam within the format's bound."""
    g = torch.randn(512, generator=torch.Generator().manual_seed(0))
    w = nn.Parameter(torch.zeros(512))
    optimizer = AdamW8bit().build([("w", w)])
    w.grad = g
    optimizer.step()
    state = optimizer.state[w]
    for name, exact, form, bound in (("m", 0.1 * g, Dynamic8(), 0.0071), ("v", 0.05 * g**2, Dynamic8(False), 0.0036)):
        kept = {part: state[f"inner.{name}.{part}"] for part in ("codes", "scales")}
        error = (form.decode(kept, (512,)) - exact).abs().reshape(2, 256)
        assert bool((error <= bound * exact.abs().reshape(2, 256).amax(1, keepdim=True)).all()) and float(error.max()) > 0
    # the step itself is taken with the moments before they are rounded
    assert torch.allclose(w.detach(), -1e-3 * g.sign(), rtol=1e-4)


@lru_cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    datasets = pytest.importorskip("sklearn.datasets")
    pixels, labels = datasets.load_digits(return_X_y=True)
    return torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)


def losses(spec: OptimizerSpec, lr: float, dtype: torch.dtype = torch.float32, steps: int = 300) -> tuple[float, nn.Linear]:
    """Logistic regression on the digits by batches of 128; the loss on all of them in the end."""
    x, y = digits()
    layer = nn.Linear(64, 10).to(dtype)
    with torch.no_grad():
        layer.weight.zero_(), layer.bias.zero_()
    optimizer = spec.build(list(layer.named_parameters()))
    for step in range(steps):
        follow(optimizer, "lr", lr * (1 - step / steps))
        rows = torch.randint(len(x), (128,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        functional.cross_entropy(layer(x[rows].to(dtype)).float(), y[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        return float(functional.cross_entropy(layer.float()(x), y)), layer


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize(("beta2", "reached"), [(0.95, 0.13), (0.999, 0.19)])
def test_on_the_digits_8_bits_track_32(beta2: float, reached: float, rounding: Literal["nearest", "stochastic"]) -> None:
    full, _ = losses(AdamW(beta2=beta2), 0.02)
    assert full < reached
    kept, layer = losses(AdamW8bit(beta2=beta2, rounding=rounding), 0.02)
    assert 0 < abs(kept / full - 1) < 0.02
    assert math.isfinite(float(layer.weight.detach().abs().max()))


def test_on_the_digits_bfloat16_tracks_single_precision_only_when_rounded_stochastically() -> None:
    lr = 2e-4  # of steps this small, nearest rounding loses most once weights have grown
    full, _ = losses(AdamW(), lr, steps=600)
    drawn, _ = losses(AdamWBf16(), lr, torch.bfloat16, 600)
    nearest, _ = losses(AdamWBf16(rounding="nearest"), lr, torch.bfloat16, 600)
    assert abs(drawn / full - 1) < 0.02
    assert nearest / full > 1.05


@pytest.mark.parametrize(
    ("spec", "lr"), [(Adafactor(), 0.02), (Lion(), 0.005), (SignSgd(momentum=0.9), 0.005)], ids=["adafactor", "lion", "signum"]
)
def test_the_others_learn_the_digits(spec: OptimizerSpec, lr: float) -> None:
    assert losses(spec, lr)[0] < 0.3  # of log 10 = 2.3 at the start
