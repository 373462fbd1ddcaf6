"""PPO: the critic's targets and loss by hand, where its gradient goes, and the actor's part untouched by it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_rollouts import rollouts
from small_texts import bigram
from torch import nn

from outlay.advantages import Generalised, Group, Whitened
from outlay.errors import InputError
from outlay.models import Transformer
from outlay.objectives import ActorCritic, PolicyGradient, Ppo
from outlay.objectives.base import Attaches
from outlay.sequences import answer_mask, shifted
from outlay.testing import check_objective


class Deep(nn.Module):
    """A causal model in miniature: each position sees itself and what came before, through one hidden layer."""

    def __init__(self, seed: int = 0, tokens: int = 7, size: int = 5) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.config = SimpleNamespace(hidden_size=size)
        self.embedding = nn.Parameter(torch.randn(tokens, size, generator=draw, dtype=torch.float64))
        self.out = nn.Parameter(torch.randn(size, tokens, generator=draw, dtype=torch.float64))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, output_hidden_states: bool = False) -> Any:
        seen = (self.embedding[input_ids] * attention_mask[..., None]).cumsum(1)
        hidden = torch.tanh(seen)
        return SimpleNamespace(logits=hidden @ self.out, hidden_states=(seen, hidden) if output_hidden_states else None)


def made(objective: Any, seed: int = 0) -> Deep:
    model = Deep()
    model.attached = objective.attach(model, seed).double()
    return model


def batch() -> dict[str, torch.Tensor]:
    return rollouts()


def test_the_critic_by_hand() -> None:
    objective = Ppo(kl=0.0, value_clip=0.1, critic=0.7)
    model = made(objective)
    ready = objective.prepare(model, batch(), {})
    mask = answer_mask(ready)
    own = mask & ready["judged"][:, None]
    model.attached.weight.data *= 1.5  # it has learnt a little
    values = model.attached(model(ready["input_ids"], ready["attention_mask"], True).hidden_states[-1][:, :-1]).squeeze(-1)
    before, targets = shifted(ready, "values"), shifted(ready, "returns")
    assert torch.equal(
        targets, Generalised().returns({**batch(), "values": ready["values"]}, mask, torch.zeros(mask.shape, dtype=torch.float64))
    )
    near = torch.minimum(torch.maximum(values, before - 0.1), before + 0.1)
    wrong = torch.maximum((values - targets) ** 2, (near - targets) ** 2) / 2
    loss, measures = objective(model, ready, {})
    actor = PolicyGradient(Whitened(Generalised()))(model, ready, {})[0]
    assert float(measures["value_loss"]) == pytest.approx(float(wrong[own].mean().detach()))
    assert float(measures["value"]) == pytest.approx(float(values[own].mean().detach()))
    for knobs, weight in (({}, 0.7), ({"critic": 2.0}, 2.0)):
        assert float(objective(model, ready, knobs)[0].detach()) == pytest.approx(float((actor + weight * wrong[own].mean()).detach()))
    head = list(model.attached.parameters())
    found, expected = torch.autograd.grad(loss, head), torch.autograd.grad(0.7 * wrong[own].mean(), head)
    assert all(torch.allclose(a, b) for a, b in zip(found, expected, strict=True))


def test_the_advantage_is_whitened_and_the_target_is_not() -> None:
    objective = Ppo(kl=0.0)
    model = made(objective)
    ready = objective.prepare(model, batch(), {})
    own = answer_mask(ready) & ready["judged"][:, None]
    raw = (shifted(ready, "returns") - shifted(ready, "values"))[own]
    assert torch.allclose(shifted(ready, "advantage")[own], (raw - raw.mean()) / raw.std(), atol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_where_the_critics_gradient_goes(shared: bool) -> None:
    objective = ActorCritic(shared=shared, critic=1.0)
    model = made(objective)
    ready = objective.prepare(model, batch(), {})
    with_critic = torch.autograd.grad(objective(model, ready, {})[0], [model.embedding])[0]
    without = torch.autograd.grad(objective(model, ready, {"critic": 0.0})[0], [model.embedding])[0]
    assert torch.allclose(with_critic, without) is not shared


def test_a_critic_that_is_right_leaves_no_gradient() -> None:
    objective = Ppo(kl=0.0, trace=1.0)
    model = made(objective)
    data = batch()
    model.attached.weight.data.zero_()
    model.attached.bias.data.fill_(0.5)
    data["reward"][:] = 0.5
    ready = objective.prepare(model, data, {})
    assert not torch.autograd.grad(objective(model, ready, {})[0], [model.embedding])[0].any()


def test_the_head_follows_its_seed() -> None:
    one, other, third = (Ppo().attach(Deep(), seed).weight for seed in (1, 1, 2))
    assert torch.equal(one, other) and not torch.equal(one, third) and one.shape == (1, 5)
    assert isinstance(Ppo(), Attaches) and isinstance(ActorCritic(), Attaches)
    assert (Ppo().passes, Ppo(kl=0.0).passes) == (3.0, 1.0)
    assert dict(Ppo().knobs) == {"kl": 0.05, "critic": 0.1}


@pytest.mark.parametrize(
    "objective", [Ppo(), Ppo(value_clip=None, shared=False), Ppo(kl=0.0, trace=0.5, discount=0.9, critic=1.0)], ids=str
)
def test_contract(objective: Any) -> None:
    # detached values have a gradient of their own that the loss's value does not show
    check_objective(objective, Deep(), batch(), frozen=Deep(2), differences=objective.shared)


def test_a_real_model_has_what_a_critic_needs() -> None:
    model = Transformer(hidden=16, layers=1, heads=2, context=16).build(0).module
    objective = Ppo()
    model.attached = objective.attach(model, 0)
    bound = objective.bind(lambda: Transformer(hidden=16, layers=1, heads=2, context=16).build(1).module)
    data = {name: column.float() if column.is_floating_point() else column for name, column in batch().items()}
    loss, measures = bound(model, bound.prepare(model, data, {}), {})
    loss.backward()
    assert model.attached.weight.grad.any() and float(measures["value_loss"]) > 0 and "kl" in measures


def test_what_is_refused() -> None:
    for wrong, message in (
        (lambda: ActorCritic(Group()), "a critic needs an advantage that says what it should learn, found Group"),
        (lambda: ActorCritic(Whitened(Group())), "a critic needs an advantage that says what it should learn"),
        (lambda: Ppo(critic=-1), "critic must be >= 0"), (lambda: Ppo(value_clip=0), "value_clip must be > 0"),
        (lambda: Ppo(trace=2), "trace must lie in"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            wrong()
    with pytest.raises(InputError, match="a critic needs a model whose config names its hidden_size"):
        Ppo().attach(bigram(0), 0)
