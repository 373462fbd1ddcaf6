"""Proposing: what fits under a ceiling, in which order, and what is told; gradients that go as they come."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from outlay.catalog import methods_of
from outlay.errors import InputError
from outlay.models import Mlp, Transformer
from outlay.objectives import Classification, NextToken
from outlay.optim import AdamW, PerLayer, Sgd, ZerothOrder
from outlay.planning.cost import Cost, measure
from outlay.planning.live import LiveBytes
from outlay.planning.memory import HEAD_ROOM, choose_micro_batch, floor, memory
from outlay.planning.proposing import candidates, choices, measured, proposal
from outlay.train import load_recipe, plan


def language() -> tuple[nn.Module, Cost]:
    module = Transformer(hidden=32, layers=2, heads=2, context=16, tokenizer="bytes").build(0).module
    ids = torch.randint(5, 200, (2, 16), generator=torch.Generator().manual_seed(0))
    return module, measure(module, NextToken(), {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids})


def test_what_fits_comes_first_and_then_what_loses_least() -> None:
    module, cost = language()
    needed = memory(module, AdamW(), cost, 1, again=True).total
    for ceiling in (needed * 2, needed / (1 - HEAD_ROOM), needed * 0.95, needed * 0.7, needed * 0.1):
        found = choices(module, cost, ceiling, batch=4)
        assert [one.fits for one in found] == sorted((one.fits for one in found), reverse=True)
        assert all(one.fits == (one.total <= ceiling * (1 - HEAD_ROOM)) for one in found)
        for one, other in itertools.pairwise([one for one in found if one.fits]):
            assert (one.expected.mean if one.expected else 99) <= (other.expected.mean if other.expected else 99)
    assert not any(one.fits for one in choices(module, cost, needed * 0.1, batch=4))
    assert proposal(module, cost, needed * 0.1, batch=4) == ""


def test_every_proposal_is_a_recipe_that_holds_what_is_said() -> None:
    import yaml

    module, cost = language()
    for _, text, spec in candidates(module):
        recipe = load_recipe({
            "budget": "3 steps", "model": {"mlp": {"inputs": 64, "classes": 10}},
            "stages": [{"source": {"images": {"name": "digits"}}, "objective": "classification", "optimizer": yaml.safe_load(text)}],
        })  # fmt: skip
        assert recipe.stages[0].optimizer == spec
    plain = {one.recipe: one for one in choices(module, cost, 1e12)}
    assert plain["adamw"].total == memory(module, AdamW(), cost, 1).total
    assert set(measured()["losses"]) <= set(methods_of("optim"))


def test_the_message_of_what_does_not_fit_names_a_choice_that_does() -> None:
    module, cost = language()
    ceiling = memory(module, AdamW(), cost, 1, again=True).total * 0.95
    best = next(one for one in choices(module, cost, ceiling, batch=4) if one.fits)
    with pytest.raises(InputError) as caught:
        choose_micro_batch(module, AdamW(), cost, 4, ceiling)
    assert best.text() in str(caught.value)
    # and taking its advice is enough
    spec = next(spec for _, text, spec in candidates(module) if text == best.recipe)
    assert choose_micro_batch(module, spec, cost, 4, ceiling)[0] >= 1


def test_a_plan_under_a_ceiling_lists_choices() -> None:
    plain = {
        "budget": "3 steps, 1GiB", "model": {"mlp": {"inputs": 64, "classes": 10, "hidden": [32]}},
        "stages": [{"source": {"images": {"name": "digits"}}, "objective": "classification", "knobs": {"lr": 0.003}}],
    }  # fmt: skip
    made = plan(load_recipe(plain))
    assert made.choices and all(choice.fits for choice in made.choices)
    assert [text for what, text in made.rows() if what == "fits as well"] == [choice.text() for choice in made.choices]
    assert made.to_json()["choices"][0]["recipe"] == made.choices[0].recipe
    assert not plan(load_recipe({**plain, "budget": "3 steps"})).choices


def test_gradients_that_go_as_they_come_are_not_held() -> None:
    """The bytes of a real pass with steps inside, at its worst moment, against those that are planned."""
    module = Mlp(64, 10, (256, 256, 256, 256)).build(0).module
    batch = {"inputs": torch.randn(4, 64, generator=torch.Generator().manual_seed(0)), "labels": torch.tensor([0, 1, 2, 3])}
    cost = measure(module, Classification(), batch)
    spec, shapes = PerLayer(Sgd()), {name: tuple(p.shape) for name, p in module.named_parameters()}
    planned, plain = memory(module, spec, cost, 4), memory(module, Sgd(), cost, 4)
    assert planned.gradients == spec.gradient_bytes(shapes) == 256 * 256 * 4
    assert plain.total - planned.total >= 2 * 256 * 256 * 4
    optimizer = spec.build(list(module.named_parameters()))
    objective = Classification()
    with optimizer.armed():  # type: ignore[attr-defined]
        objective(module, batch, {"label_smoothing": 0.0})[0].backward()  # momentum buffers exist from here
    state = [value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, torch.Tensor)]
    with LiveBytes([*module.parameters(), *module.buffers(), *state]) as live, optimizer.armed():  # type: ignore[attr-defined]
        objective(module, batch, {"label_smoothing": 0.0})[0].backward()
    held = max(other + kept for other, kept, _ in live.moments([]))
    expected = planned.gradients + planned.activations
    # a step makes a tensor or two of its own beside the gradient
    assert expected * 0.5 < held < expected + 2 * planned.gradients
    assert held < plain.gradients


def test_losses_alone_hold_no_gradients() -> None:
    module, _ = language()
    spec = ZerothOrder(exact=False)
    assert floor(module, spec).total < floor(module, Sgd()).total
    assert floor(module, spec).optimizer == 4 * len(list(module.parameters()))
