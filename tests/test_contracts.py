"""Every rule of a contract refuses a part that breaks it, and only by that rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional

from outlay.context import Context
from outlay.evaluations import HeldOutLoss
from outlay.models import Loaded, Mlp
from outlay.models.base import save_plain, seeded
from outlay.objectives import Classification
from outlay.optim import AdamW, Sgd
from outlay.sources import Arrays, Columns, Shuffled
from outlay.sources.base import IGNORED
from outlay.testing import check_exam, check_model, check_objective, check_optimizer, check_source

FORTY = {"inputs": torch.arange(40.0).unsqueeze(1), "labels": torch.arange(40)}
CONTEXT = Context(seed=1)


class Eager(Shuffled):
    def draw(self, count: int) -> Any:
        batch = super().draw(count)
        self._cursor += 1
        return batch


class Sticky(Shuffled):
    def advance(self, count: int) -> None:
        self._cursor += max(1, count - 1)


class Greedy(Shuffled):
    def draw(self, count: int) -> Any:
        return self._examples.collate([self._index(self._cursor + i) for i in range(count)])


class Swapped(Shuffled):
    def draw(self, count: int) -> Any:
        mine = range(self._cursor + (self._context.rank + 1) % self._context.world, self._cursor + count, self._context.world)
        return self._examples.collate([self._index(position) for position in mine])


class Slow(Shuffled):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._cursor = 0
        while self._cursor < state["cursor"]:
            self.advance(1)


class Forgetful(Shuffled):
    def state_dict(self) -> dict[str, Any]:
        return {"cursor": self._cursor // 2 * 2, "examples": 40}


class Unseeded(Shuffled):
    def _index(self, position: int) -> int:
        return position * 7 % 40


class Global(Shuffled):
    def _index(self, position: int) -> int:
        torch.rand(1)
        return super()._index(position)


@dataclasses.dataclass(frozen=True)
class Made:
    units: ClassVar[tuple[str, ...]] = ("examples",)

    stream: type[Shuffled]
    leak: bool = False

    def open(self, context: Context) -> Shuffled:
        return self.stream(Columns(FORTY), context)

    def held_out(self, context: Context) -> Columns:
        return Columns({"inputs": torch.tensor([[-1.0], [17.0 if self.leak else -2.0]]), "labels": torch.tensor([0, 1])})


def test_a_sound_source_passes() -> None:
    check_source(lambda: Made(Shuffled), CONTEXT)


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        (Made(Eager), "drawing twice gives the same"),
        (Made(Sticky), "reading in pieces equals reading at once"),
        (Made(Greedy), "the processes share a batch exactly"),
        (Made(Swapped), "the processes share a batch exactly|process r of w gets examples r, r"),
        (Made(Slow), "going to a saved cursor takes the same time wherever it lies"),
        (Made(Forgetful), "going on from a state equals never having stopped"),
        (Made(Unseeded), "another seed gives another order"),
        (Made(Global), "never from a global generator"),
        (Made(Shuffled, leak=True), "held-out examples are never trained on"),
    ],
)
def test_broken_sources_are_refused(source: Made, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_source(lambda: source, CONTEXT)


class Bigram(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(9, 9, generator=torch.Generator().manual_seed(1)))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.table[input_ids])


def text() -> dict[str, torch.Tensor]:
    ids = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0], [3, 2, 2, 1, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    labels = torch.where(mask.bool(), ids, IGNORED)
    labels[0, :2] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@dataclasses.dataclass(frozen=True)
class Bent:
    """Next-token loss with one fault."""

    knobs: ClassVar[dict[str, float]] = {"label_smoothing": 0.0}

    fault: str = ""

    def weight(self, batch: Any) -> float:
        taught = self._targets(batch) != IGNORED
        return float(len(taught)) if self.fault == "weight" else float(taught.sum())

    def _targets(self, batch: Any) -> torch.Tensor:
        targets = batch["labels"] if self.fault == "shift" else batch["labels"][:, 1:]
        return targets.clamp(min=0) if self.fault == "padding" else targets

    def __call__(self, model: nn.Module, batch: Any, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        targets = self._targets(batch)
        logits = logits[:, : targets.shape[1]]
        smoothing = knobs.get("label_smoothing", 0.1 if self.fault == "default" else 0.0)
        each = functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED, label_smoothing=smoothing)
        count = (targets != IGNORED).sum()
        loss = each.sum() / count
        if self.fault == "rows":
            loss = (each.sum(1) / (targets != IGNORED).sum(1)).mean()
        if self.fault == "vector":
            loss = loss.reshape(1)
        measure = loss.detach() * count if self.fault == "measure" else loss.detach()
        return loss, {"copy": measure}


def test_a_sound_objective_passes() -> None:
    check_objective(Bent(), Bigram(), text())


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("weight", "pieces of a batch, averaged by weight, equal the whole; .*the loss"),
        ("rows", "pieces of a batch, averaged by weight, equal the whole; .*the loss"),
        ("measure", "pieces of a batch, averaged by weight, equal the whole; .*copy"),
        ("padding", "padding teaches nothing"),
        ("shift", "exactly the positions before a labelled token are taught"),
        ("default", "knobs that are not given stand at their defaults"),
        ("vector", "the loss is a scalar with a gradient"),
    ],
)
def test_broken_objectives_are_refused(fault: str, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_objective(Bent(fault), Bigram(), text())


def test_differences_alone_find_a_wrong_gradient() -> None:
    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient / 2

    class Half(Classification):
        def __call__(self, model: nn.Module, batch: Any, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            loss, measures = super().__call__(model, batch, knobs)
            return Halved.apply(loss), measures  # type: ignore[no-untyped-call]

    data = {"inputs": torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), "labels": torch.tensor([0, 1, 1, 0])}
    model = Mlp(inputs=3, classes=2, hidden=(4,)).build(0).module
    check_objective(Classification(), model, data)
    with pytest.raises(AssertionError, match="the gradient is the loss's"):
        check_objective(Half(), model, data)


class Light(AdamW):
    def state_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
        return super().state_bytes(shapes, element_size) - 4


class Unnamed(Sgd):
    knobs: ClassVar[dict[str, float]] = {**Sgd.knobs, "warmth": 1.0}


class Displaced(Sgd):
    knobs: ClassVar[dict[str, float]] = {**Sgd.knobs, "momentum": 0.8}

    def build(self, parameters: Sequence[tuple[str, nn.Parameter]], seed: int = 0) -> torch.optim.Optimizer:
        return Sgd().build(parameters)


class Partial(Sgd):
    def build(self, parameters: Sequence[tuple[str, nn.Parameter]], seed: int = 0) -> torch.optim.Optimizer:
        return super().build(parameters[1:])


class Hidden(Sgd):
    """Keeps a count outside its state."""

    def build(self, parameters: Sequence[tuple[str, nn.Parameter]], seed: int = 0) -> torch.optim.Optimizer:
        optimizer, count = super().build(parameters), [0]

        def bias(*_: object) -> None:
            count[0] += 1
            for _, p in parameters:
                if p.grad is not None:
                    p.grad.mul_(count[0])

        optimizer.register_step_pre_hook(bias)
        return optimizer


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        (Light(), r"state_bytes is exact; Light in torch.float32 holds 364 bytes at most and states 360"),
        (Unnamed(), "a knob is a field of every group; 'warmth'"),
        (Displaced(), "a knob stands at its default; momentum is 0.9, not 0.8"),
        (Partial(), "state_bytes is exact|every parameter is in one group"),
        (Hidden(), "going on from a saved state equals never having stopped"),
    ],
)
def test_broken_optimizers_are_refused(spec: Any, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_optimizer(spec)


def test_a_knob_without_effect_is_refused() -> None:
    class Deaf(torch.optim.SGD):
        def __init__(self, groups: Any) -> None:
            super().__init__(groups, lr=0.1)
            for group in self.param_groups:
                group["shine"] = 1.0

    class Spec:
        knobs: ClassVar[dict[str, float]] = {"lr": 0.1, "shine": 1.0}

        def build(self, parameters: Sequence[tuple[str, nn.Parameter]], seed: int = 0) -> torch.optim.Optimizer:
            return Deaf([p for _, p in parameters])

        def state_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
            return 0

    with pytest.raises(AssertionError, match=r"a knob acts; shine at 0.5 instead of 1.0 changed nothing"):
        check_optimizer(Spec())


class BentSitting:
    def __init__(self, inner: Any, fault: str) -> None:
        self.inner, self.fault, self.runs = inner, fault, 0

    def bound(self) -> dict[str, float]:
        return {unit: amount - (self.fault == "bound") for unit, amount in self.inner.bound().items()}

    def run(self, model: Any, charge: Any) -> dict[str, float]:
        self.runs += 1
        result = self.inner.run(model, (lambda batch, new: None) if self.fault == "free" else charge)
        if self.fault == "mode":
            model.train()
        if self.fault == "weights":
            next(model.parameters()).add_(1e-6)
        if self.fault == "gradient":
            parameter = next(model.parameters())
            parameter.grad = torch.zeros_like(parameter)
        if self.fault == "frozen":
            next(model.parameters()).requires_grad_(False)
        if self.fault == "drift":
            result = {name: value + self.runs for name, value in result.items()}
        if self.fault == "random":
            torch.rand(1)
        return {name: torch.tensor(value) for name, value in result.items()} if self.fault == "tensor" else result  # type: ignore[misc]


@dataclasses.dataclass(frozen=True)
class BentExam:
    fault: str = ""

    def open(self, context: Context, source: Any) -> Any:
        return BentSitting(HeldOutLoss(objective=Classification()).open(context, source), self.fault)


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("", None),
        ("bound", "an exam never charges more than its bound; .*examples"),
        ("free", "an exam charges what it uses"),
        ("mode", "leaves the model as it was; BentExam changed .'mode of the model'"),
        ("weights", "leaves the model as it was; BentExam changed .'tensor 1.weight'"),
        ("gradient", "leaves the model as it was; BentExam changed .'gradient of 1.weight'"),
        ("frozen", "leaves the model as it was; BentExam changed .'requires_grad of 1.weight'"),
        ("drift", "the same exam of the same model gives the same result"),
        ("random", "never from a global generator"),
        ("tensor", "metrics are named numbers"),
    ],
)
def test_broken_exams_are_refused(fault: str, rule: str | None) -> None:
    source = Arrays(train=FORTY, test={"inputs": FORTY["inputs"], "labels": FORTY["labels"] % 3})
    model = Mlp(inputs=1, classes=3, hidden=(2,)).build(0).module
    if rule is None:
        assert set(check_exam(BentExam(), CONTEXT, source, model)) == {"held_out/loss", "held_out/accuracy"}
        return
    with pytest.raises(AssertionError, match=rule):
        check_exam(BentExam(fault), CONTEXT, source, model)


@dataclasses.dataclass(frozen=True)
class BentModel:
    fault: str = ""

    def build(self, seed: int) -> Loaded:
        if self.fault == "global":
            return Loaded(nn.Linear(2, 2))
        if self.fault == "seeding":
            torch.manual_seed(seed)
            return Loaded(nn.Linear(2, 2))
        with seeded(0 if self.fault == "fixed" else seed, "model"):
            return Loaded(nn.Linear(2, 2), save=self.save)

    def save(self, module: nn.Module, folder: Path) -> None:
        if self.fault == "save":
            module = nn.Linear(2, 2)
        save_plain(module, folder)


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("", None),
        ("global", "never from a global generator"),
        ("seeding", "never from a global generator"),
        ("fixed", "another seed gives other weights"),
        ("save", "a saved model computes the same"),
    ],
)
def test_broken_models_are_refused(fault: str, rule: str | None) -> None:
    if rule is None:
        check_model(BentModel(), torch.ones(1, 2))
        return
    with pytest.raises(AssertionError, match=rule):
        check_model(BentModel(fault), torch.ones(1, 2))


def test_a_model_that_differs_between_builds_is_refused() -> None:
    class Counting:
        count = 0

        def build(self, seed: int) -> Loaded:
            Counting.count += 1
            with seeded(seed, "model", Counting.count):
                return Loaded(nn.Linear(2, 2))

    with pytest.raises(AssertionError, match="the same seed gives the same weights"):
        check_model(Counting(), torch.ones(1, 2))


def test_the_checks_leave_the_global_generators_where_they_were() -> None:
    state = torch.get_rng_state()
    check_model(BentModel(), torch.ones(1, 2))
    assert torch.equal(torch.get_rng_state(), state)
