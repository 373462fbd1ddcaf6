"""FedHyper: the four forms by hand, their bounds, and a real federation of clients who each know two digits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from outlay import rng
from outlay.controllers import FedHyper
from outlay.controllers.fedhyper import BOUNDS, alignment, client_multiplier, server_step, with_momentum
from outlay.testing import check_controller, record

Weights = dict[str, Tensor]


def up(*values: float) -> Weights:
    """An update of two parameters."""
    half = len(values) // 2
    return {"weight": torch.tensor(values[:half]), "bias": torch.tensor(values[half:])}


def rounds(controller: FedHyper, *alignments: float) -> list[float]:
    values = []
    for number, found in enumerate(alignments, start=1):
        controller.observe(record(number, metrics={"round_alignment": found}))
        values.append(controller.value(0.5))
    return values


# ---- the controller ------------------------------------------------------------------------------------------------------------------


def test_the_sum_of_the_alignments_by_hand() -> None:
    controller = FedHyper()
    assert controller.value(0.5) == 1.0
    assert rounds(controller, 0.5, 0.25, -1.0, 2.0) == [1.5, 1.75, 0.75, 2.75]


@pytest.mark.parametrize(("form", "low", "high"), [("global", 0.2, 5.0), ("global_momentum", 0.8, 5.0), ("local", 0.1, 10.0)])
def test_parallel_rounds_come_to_the_cap_and_opposite_ones_to_the_floor(form: Any, low: float, high: float) -> None:
    assert rounds(FedHyper(form), *[1.5] * 10)[-1] == high
    assert rounds(FedHyper(form), *[-0.3] * 10)[-1] == low
    assert rounds(FedHyper(form, low=0.5, high=2.0), *[1.5] * 4, *[-9.0] * 4)[3::4] == [2.0, 0.5]


def test_the_servers_bound_is_left_at_once_and_the_clients_is_not() -> None:
    assert rounds(FedHyper("global"), 9.0, -1.0) == [5.0, 4.0]
    assert rounds(FedHyper("local"), 12.0, -1.0, -4.0) == [10.0, 10.0, 8.0]


def test_a_round_without_an_alignment_changes_nothing() -> None:
    controller = FedHyper()
    controller.observe(record(1))
    controller.observe(record(1, metrics={"round_alignment": math.nan}))
    controller.observe(record(1, kind="evaluation", metrics={"round_alignment": 1.0}))
    assert controller.value(0.5) == 1.0


# ---- the functions -------------------------------------------------------------------------------------------------------------------


def test_alignment_by_hand() -> None:
    one, other = up(1.0, 2.0, 0.0, -1.0), up(3.0, 0.5, 7.0, 2.0)
    assert alignment(one, other) == 2.0
    assert alignment(one, other, cosine=True) == pytest.approx(2 / math.sqrt(6 * 62.25))
    assert alignment(one, {name: 10 * x for name, x in other.items()}) == 20.0
    assert alignment(one, one, cosine=True) == pytest.approx(1.0) and alignment(one, up(0.0, 0.0, 0.0, 0.0), cosine=True) == 0.0
    with pytest.raises(ValueError, match="the same parameters"):
        alignment(one, {"weight": one["weight"]})


def test_the_servers_step_by_hand() -> None:
    aggregated, update, last = up(1.0, 1.0, 1.0, 1.0), up(1.0, 2.0, 3.0, 4.0), up(10.0, 0.0, 0.0, -10.0)
    momentum = with_momentum(update, last)
    assert momentum["weight"].tolist() == [10.0, 2.0] and momentum["bias"].tolist() == [3.0, -5.0]
    stepped = server_step(aggregated, momentum, 0.5)
    assert stepped["weight"].tolist() == [6.0, 2.0] and stepped["bias"].tolist() == [2.5, -1.5]


def test_the_clients_multiplier_by_hand() -> None:
    step, last, server = up(0.5, 0.0, 0.0, 0.0), up(0.1, 9.0, 0.0, 0.0), up(0.4, 9.0, 0.0, 0.0)
    # 1 + 0.05 + 0.1 * 0.2 / 4
    assert client_multiplier(2.0, step, last, server, 4) == pytest.approx(2.0 * 1.055)
    assert client_multiplier(2.0, step, last, server, 4, share=0.0) == pytest.approx(2.0 * 1.05)
    assert client_multiplier(2.0, step, up(-0.5, 0.0, 0.0, 0.0), server, 1) == pytest.approx(2.0 * 0.77)
    # at most 1.1 a step, and both bounds
    assert client_multiplier(2.0, step, up(9.0, 0.0, 0.0, 0.0), server, 4) == pytest.approx(2.2)
    assert client_multiplier(9.9, step, up(9.0, 0.0, 0.0, 0.0), server, 4) == 10.0
    assert client_multiplier(0.11, step, up(-1.9, 0.0, 0.0, 0.0), server, 4) == 0.1
    assert client_multiplier(2.0, step, up(-99.0, 0.0, 0.0, 0.0), server, 4) == 0.1


# ---- a real federation ---------------------------------------------------------------------------------------------------------------

CLIENTS, LOCAL_STEPS = 5, 4
Rule = Literal["FedAvg", "G", "GM", "SL", "CL", "FULL"]
RULES: tuple[Rule, ...] = ("FedAvg", "G", "GM", "SL", "CL", "FULL")


@cache
def parts() -> list[tuple[Tensor, Tensor]]:
    """Client i knows the digits 2 i and 2 i + 1 alone."""
    digits = load_digits()
    images, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    return [(images[labels // 2 == client], labels[labels // 2 == client]) for client in range(CLIENTS)]


def model() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(rng.derive(0, "federation"))
        return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))


def start() -> Weights:
    return {name: p.detach().clone() for name, p in model().named_parameters()}


def minus(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Weights:
    return {name: x - other[name] for name, x in one.items()}


def loss_of(weights: Mapping[str, Tensor]) -> float:
    with torch.no_grad():
        losses = [cross_entropy(functional_call(model(), dict(weights), (images,)), labels) for images, labels in parts()]
    return float(torch.stack(losses).mean())


def train_client(weights: Weights, client: int, number: int, rate: float, server: Weights | None) -> Weights:
    """Train one client from the server's weights; with ``server``, the last round's update, by the form CL."""
    net = model()
    net.load_state_dict(weights)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.5)
    images, labels = parts()[client]
    order = torch.randperm(len(labels), generator=rng.torch_generator(0, f"client {client}", number))
    multiplier, last = 1.0, server
    for step in range(LOCAL_STEPS):
        chosen = order[step * 32 : (step + 1) * 32]
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        optimizer.param_groups[0]["lr"] = rate * multiplier
        optimizer.zero_grad()
        cross_entropy(net(images[chosen]), labels[chosen]).backward()
        optimizer.step()
        if server is not None and last is not None and step > 0:
            moved = minus({name: p.detach() for name, p in net.named_parameters()}, before)
            multiplier, last = client_multiplier(multiplier, moved, last, server, CLIENTS), moved
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def federate(rule: Rule, rate: float, count: int = 12) -> tuple[Weights, list[float]]:
    """Return the weights after ``count`` rounds and the server's (SL: the clients') multipliers."""
    momentum = rule in ("GM", "FULL")
    controller = FedHyper("local" if rule == "SL" else "global_momentum" if momentum else "global")
    weights, last, values = start(), None, []
    update = {name: torch.zeros_like(x) for name, x in weights.items()}
    for number in range(1, count + 1):
        local_rate = rate * (controller.value(0.0) if rule == "SL" else 1.0)
        server = update if rule in ("CL", "FULL") else None
        trained = [train_client(weights, client, number, local_rate, server) for client in range(CLIENTS)]
        aggregated = {name: torch.stack([one[name] for one in trained]).mean(0) for name in weights}
        update = minus(aggregated, weights)
        if rule not in ("FedAvg", "CL") and last is not None:
            controller.observe(record(number, metrics={"round_alignment": alignment(last, update)}))
        extra = 0.0 if rule == "SL" else controller.value(number / count) - 1.0
        last = with_momentum(update, last) if momentum and last is not None else update
        weights = server_step(aggregated, last, extra)
        values.append(controller.value(number / count))
    return weights, values


def test_without_an_alignment_it_is_federated_averaging() -> None:
    """Orthogonal rounds, h = 0, leave every weight of the average as it is, bit by bit."""
    controller = FedHyper()
    weights = start()
    for number in range(1, 4):
        trained = [train_client(weights, client, number, 0.1, None) for client in range(CLIENTS)]
        aggregated = {name: torch.stack([one[name] for one in trained]).mean(0) for name in weights}
        update = minus(aggregated, weights)
        controller.observe(record(number, metrics={"round_alignment": 0.0}))
        stepped = server_step(aggregated, update, controller.value(0.0) - 1.0)
        assert all(torch.equal(stepped[name], aggregated[name]) for name in weights)
        weights = stepped
    averaged, values = federate("FedAvg", 0.1, 3)
    assert all(torch.equal(averaged[name], weights[name]) for name in weights) and values == [1.0] * 3


@pytest.mark.parametrize("rule", RULES[1:])
def test_every_form_learns_faster_from_a_rate_that_is_too_small(rule: Rule) -> None:
    weights, values = federate(rule, 0.1)
    averaged, _ = federate("FedAvg", 0.1)
    assert loss_of(weights) < loss_of(averaged) < loss_of(start())
    low, high = BOUNDS["local" if rule == "SL" else "global_momentum" if rule in ("GM", "FULL") else "global"]
    assert all(low <= value <= high for value in values)
    assert values[0] == 1.0 and (values[-1] > 1.0) == (rule != "CL")


# ---- contract ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", BOUNDS)
def test_holds_the_contract(form: Any) -> None:
    records = [record(k, metrics={"round_alignment": found}) for k, found in enumerate([0.5, 0.2, -0.1, 3.0, 9.0, -2.0, -40.0, 0.3])]
    values = check_controller(lambda: FedHyper(form), records)
    assert values[:4] == pytest.approx([1.0, 1.5, 1.7, 1.6]) and max(values) == BOUNDS[form][1] and min(values) == BOUNDS[form][0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"form": "client"}, "form must be one of global, global_momentum, local, found 'client'"),
        ({"low": 0.0}, r"low must lie in \(0, 1\], or be None, found 0.0"),
        ({"high": 0.5}, "high must be finite and >= 1, or None, found 0.5"),
    ],
)
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FedHyper(**fields)


def test_functions_refuse() -> None:
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\), found 1.0"):
        with_momentum(up(1.0, 1.0), up(1.0, 1.0), 1.0)
    with pytest.raises(ValueError, match="clients must be >= 1, found 0"):
        client_multiplier(1.0, up(1.0, 1.0), up(1.0, 1.0), up(1.0, 1.0), 0)
