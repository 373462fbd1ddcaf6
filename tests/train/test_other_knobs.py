"""Every knob that is not the learning rate, end to end: a run equals the same updates written out in plain torch, bit by bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import digits, lines, plain_stage
from torch import nn
from torch.nn import functional

import outlay
from outlay.context import Context
from outlay.knob import Knob
from outlay.models import VariationalAutoencoder
from outlay.models.base import seeded
from outlay.objectives import Variational
from outlay.schedules import Constant, Linear, Rex, Sequence
from outlay.train import Recipe

STEPS = 6
Loss = Callable[[nn.Module, Mapping[str, torch.Tensor], Mapping[str, float]], torch.Tensor]


def cross_entropy(module: nn.Module, batch: Mapping[str, torch.Tensor], knobs: Mapping[str, float]) -> torch.Tensor:
    """Cross entropy against (1 - s) one-hot + s uniform."""
    return functional.cross_entropy(module(batch["inputs"]), batch["labels"], label_smoothing=knobs.get("label_smoothing", 0.0))


def weighted_bound(module: nn.Module, batch: Mapping[str, torch.Tensor], knobs: Mapping[str, float]) -> torch.Tensor:
    """Squared error, with its constant, and the divergence beta times."""
    seen, x = module(batch["inputs"]), batch["inputs"].flatten(1)
    error = ((x - seen.logits.flatten(1)) ** 2 / 2.0 + 0.9189385332046727).sum(1).mean()
    divergence = 0.5 * (seen.mean**2 + seen.log_variance.exp() - 1.0 - seen.log_variance).flatten(1).sum(1).mean()
    return error + knobs["beta"] * divergence


def by_hand(recipe: Recipe, loss: Loss, used: Callable[[float], Mapping[str, float]]) -> nn.Module:
    """Train with momentum SGD written out, whose knobs at progress p are ``used(p)``."""
    module = recipe.model.build(recipe.seed).module.train()
    stream = recipe.stages[0].source.open(Context(recipe.seed))
    velocity: dict[str, torch.Tensor] = {}
    for step in range(STEPS):
        knobs = used(step / STEPS)
        for part in module.modules():
            if isinstance(part, nn.Dropout) and "dropout" in knobs:
                part.p = knobs["dropout"]
        batch = stream.draw(32)
        stream.advance(32)
        with seeded(recipe.seed, "dropout/0", (step + 1) * 4096):
            value = loss(module, batch, knobs)
        module.zero_grad()
        value.backward()
        if "clip" in knobs:
            nn.utils.clip_grad_norm_(list(module.parameters()), knobs["clip"])
        with torch.no_grad():
            for name, p in module.named_parameters():
                g = p.grad.add(p, alpha=knobs["weight_decay"]) if p.dim() >= 2 and knobs["weight_decay"] else p.grad.clone()
                velocity[name] = velocity[name].mul(knobs["momentum"]).add(g) if name in velocity and knobs["momentum"] else g
                p.add_(velocity[name], alpha=-knobs["lr"])
    return module


def classifier(**knobs: Any) -> Recipe:
    recipe = digits(budget=f"{STEPS} steps", stages=[plain_stage(optimizer="sgd", knobs={})])
    return dataclasses.replace(recipe, stages=(dataclasses.replace(recipe.stages[0], knobs={"lr": 0.2, **knobs}),))


def autoencoder(**knobs: Any) -> Recipe:
    recipe = classifier()
    stage = dataclasses.replace(recipe.stages[0], objective=Variational(), knobs={"lr": 0.001, **knobs})
    return dataclasses.replace(recipe, model=VariationalAutoencoder(inputs=64, latent=4, hidden=(16,)), stages=(stage,))


#: knob, the recipe it belongs to, its loss, and a schedule that goes through values that differ in every step
CASES = [
    ("weight_decay", classifier, cross_entropy, Knob(0.5, Linear(0.0, 1.0))),
    ("momentum", classifier, cross_entropy, Knob(0.9, Linear(0.5, 1.0))),
    ("clip", classifier, cross_entropy, Knob(0.2, Rex())),
    ("label_smoothing", classifier, cross_entropy, Knob(0.4)),
    ("label_smoothing", classifier, cross_entropy, Knob(0.4, Linear(1.0, 0.0))),
    ("dropout", classifier, cross_entropy, Knob(0.5, Linear())),
    ("beta", autoencoder, weighted_bound, Knob(4.0, Linear(0.0, 1.0))),
    ("beta", autoencoder, weighted_bound, Knob(1.0, Sequence((Constant(0.0), Constant(8.0))))),
]


@pytest.mark.parametrize(("name", "make", "loss", "knob"), CASES)
def test_a_run_follows_the_knob(name: str, make: Callable[..., Recipe], loss: Loss, knob: Knob, tmp_path: Path) -> None:
    recipe = make(**{name: knob})
    outlay.run(recipe, tmp_path / "run")
    values = [line["knobs"][name] for line in lines(tmp_path / "run", "step")]
    assert values == [knob.value(step / STEPS) for step in range(STEPS)]
    stage = recipe.stages[0]
    usual = {**stage.optimizer.knobs, **stage.objective.knobs, "lr": stage.knobs["lr"].value(0.0)}
    assert same(trained(recipe, tmp_path / "run"), by_hand(recipe, loss, lambda p: {**usual, name: knob.value(p)}))
    # and would not be the same with the knob left out, or held at its mean
    assert not same(trained(recipe, tmp_path / "run"), by_hand(recipe, loss, lambda p: usual))
    if len(set(values)) > 1:
        mean = sum(values) / STEPS
        assert not same(trained(recipe, tmp_path / "run"), by_hand(recipe, loss, lambda p: {**usual, name: mean}))


def test_several_knobs_at_once(tmp_path: Path) -> None:
    knobs = {name: knob for name, make, _, knob in CASES if make is classifier}
    recipe = classifier(**knobs, lr=Knob(0.2, Rex()))
    outlay.run(recipe, tmp_path / "run")
    used = {**knobs, "lr": Knob(0.2, Rex())}
    assert same(
        trained(recipe, tmp_path / "run"), by_hand(recipe, cross_entropy, lambda p: {name: knob.value(p) for name, knob in used.items()})
    )


def test_a_weight_of_the_loss_shows_in_what_is_learned(tmp_path: Path) -> None:
    """The same budget with a heavier divergence ends with less of it."""
    ends = {}
    for beta in (0.0, 20.0):
        outlay.run(dataclasses.replace(autoencoder(beta=beta), budget=outlay.Budget.parse("150 steps")), tmp_path / str(beta))
        ends[beta] = lines(tmp_path / str(beta), "step")[-1]["metrics"]
    assert ends[20.0]["divergence"] < ends[0.0]["divergence"]
    assert ends[20.0]["reconstruction"] > ends[0.0]["reconstruction"]


def trained(recipe: Recipe, folder: Path) -> nn.Module:
    from safetensors.torch import load_model

    module = recipe.model.build(7).module
    load_model(module, str(folder / "model" / "model.safetensors"))
    return module


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
