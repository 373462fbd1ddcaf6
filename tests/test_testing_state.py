"""The checks of what keeps state: each rule is broken once, on purpose, and must be found."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from outlay.record import Record
from outlay.schedules import Linear
from outlay.testing import check_controller, check_resumable, record

RECORDS = [record(step, loss) for step, loss in enumerate([3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0], start=1)]


# ---- controllers ---------------------------------------------------------------------------------------------------------------------


class Sound:
    """Halves whenever the loss did not fall; the controllers below break it in one place each."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"multiplier": 1.0, "losses": []}

    def value(self, progress: float) -> float:
        return float(self.state["multiplier"]) * (1.0 - progress / 2)

    def observe(self, record: Record) -> None:
        if record.loss is None:
            return
        losses = self.state["losses"]
        if losses and record.loss >= losses[-1]:
            self.state["multiplier"] *= 0.5
        losses.append(record.loss)

    def state_dict(self) -> dict[str, Any]:
        return copy.deepcopy(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = copy.deepcopy(state)


class MovesWhenRead(Sound):
    def value(self, progress: float) -> float:
        self.state["multiplier"] *= 0.999
        return super().value(progress)


class WritesWhenRead(Sound):
    """The values are right, but the state is not left alone."""

    def value(self, progress: float) -> float:
        self.state["read at"] = progress
        return super().value(progress)


class KeepsTensor(Sound):
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"steps": torch.tensor(len(self.state["losses"]))}


class KeepsInfinity(Sound):
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"best": math.inf}


class KeepsTuple(Sound):
    """JSON gives a list back, so what is loaded is not what was saved."""

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"losses": tuple(self.state["losses"])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state | {"losses": list(state["losses"])})


class Forgets(Sound):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state | {"losses": []})


class ForgetsTheMultiplierAfterLoading(Sound):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state | {"multiplier": 1.0})


class AddsToWhatItHas(Sound):
    """Loading is right in a fresh object only."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        loaded = copy.deepcopy(state)
        self.state = {"multiplier": loaded["multiplier"], "losses": self.state["losses"] + loaded["losses"]}


class HandsOutItsOwn(Sound):
    def state_dict(self) -> dict[str, Any]:
        return {"multiplier": self.state["multiplier"], "losses": self.state["losses"]}


class KeepsWhatItLoads(Sound):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


class MindsEverything(Sound):
    def observe(self, record: Record) -> None:
        self.state["multiplier"] *= 0.5 if record.kind == "evaluation" else 1.0
        super().observe(record)


class CountsEverything(Sound):
    """Its values are right, but its state tells of what was of no concern."""

    def observe(self, record: Record) -> None:
        self.state["seen"] = self.state.get("seen", 0) + 1
        super().observe(record)


class Random(Sound):
    made = 0

    def __init__(self) -> None:
        super().__init__()
        Random.made += 1
        self.state["multiplier"] = 1.0 / Random.made


class Infinite(Sound):
    def value(self, progress: float) -> float:
        return math.inf if self.state["multiplier"] < 0.5 else 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (MovesWhenRead, r"reading a controller changes nothing; .*in the state \{.*\} gave \[.*\] at .* and, read again"),
        (WritesWhenRead, r"reading a controller changes nothing; .*was read and came into the state \{.*read at"),
        (KeepsTensor, "a controller's state is plain values that survive JSON; .*has the state .*tensor"),
        (KeepsInfinity, r"a state holds tensors and plain, finite values; state\['best'\] is inf"),
        (KeepsTuple, "a controller's state is plain values that survive JSON; .*which came back as"),
        (Forgets, "going on from a state equals never having stopped, bit by bit; saved after 1 steps, taken up by a fresh part"),
        (
            ForgetsTheMultiplierAfterLoading,
            r"going on from a state .*; saved after 3 steps, .* driven on to 3: ",
        ),
        (AddsToWhatItHas, "going on from a state equals never having stopped, bit by bit; .*taken up by a part that had gone on"),
        (HandsOutItsOwn, "a state handed out is a copy; the state .* became"),
        (KeepsWhatItLoads, "a state taken up is copied, not kept; the state .* became"),
        (MindsEverything, "unrelated records change nothing; .*after 0 records gave"),
        (CountsEverything, "unrelated records change nothing"),
        (Random, "two parts made and driven alike agree|going on from a state equals"),
        (Infinite, r"a schedule is finite on \[0, 1\]; .*gave inf"),
        (Linear, "a controller has value, observe, state_dict and load_state_dict; found Linear"),
    ],
)
def test_a_broken_controller_is_found(make: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        check_controller(make, RECORDS)


def test_a_sound_controller_passes_and_its_values_are_returned() -> None:
    assert check_controller(Sound, RECORDS) == [0.75 * m for m in (1.0, 1.0, 1.0, 0.5, 0.25, 0.25, 0.125, 0.0625)]
    assert check_controller(Sound, []) == [0.75]


# ---- anything with state -------------------------------------------------------------------------------------------------------------


class Momentum:
    """A tensor pulled by gradients that follow from the step's number; ``broken`` leaves something out of the state or its loading."""

    def __init__(self, broken: str = "", momentum: float = 0.9) -> None:
        self.broken = broken
        self.weight = torch.ones(3, dtype=torch.bfloat16 if broken == "" else torch.float32)
        self.pace = np.zeros(3)
        self.momentum = momentum
        self.history: dict[int, Any] = {}

    def step(self, number: int) -> None:
        gradient = torch.rand(3, generator=torch.Generator().manual_seed(number))
        self.pace = self.momentum * self.pace + gradient.numpy()
        self.weight -= 0.1 * torch.from_numpy(self.pace).to(self.weight.dtype)
        self.history[number] = None if number % 2 else (True, "x", 0.5)
        if self.broken == "diverges" and number == 3:
            self.momentum = math.nan

    def state_dict(self) -> dict[str, Any]:
        state = {"weight": self.weight, "pace": self.pace, "momentum": self.momentum, "history": self.history}
        extra = {"objects": {1, 2}, "closures": max, "keys": {(1, 2): 3}}
        if self.broken in extra:
            state["extra"] = extra[self.broken]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight = state["weight"].clone()
        self.pace = state["pace"] * 0 if self.broken == "forgets the pace" else state["pace"].copy()
        if self.broken == "rounds":
            self.pace = self.pace.astype(np.float32).astype(np.float64)
        self.momentum = state["momentum"]
        self.history = dict(state["history"])


def drive(part: Momentum, number: int) -> None:
    part.step(number)


def read(part: Momentum) -> object:
    return {"weight": part.weight, "more": [part.pace, part.momentum, len(part.history)]}


def test_a_sound_part_passes() -> None:
    check_resumable(Momentum, drive, read, steps=5)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            "forgets the pace",
            r"going on from a state .*; saved after 1 steps, .* driven on to 1: reading\['more'\]\[0\] is",
        ),
        ("rounds", r"going on from a state .* bit by bit; .*reading\['more'\]\[0\] is"),
        ("objects", r"a state holds tensors and plain, finite values; state\['extra'\] is \{1, 2\} of type set"),
        ("closures", r"a state holds tensors and plain, finite values; state\['extra'\] is <built-in function max>"),
        ("keys", r"keys of a state are texts or whole numbers; state\['extra'\] has \(1, 2\)"),
        ("diverges", r"a state holds tensors and plain, finite values; state\['momentum'\] is nan"),
    ],
)
def test_a_broken_part_is_found(broken: str, message: str) -> None:
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        check_resumable(lambda: Momentum(broken), drive, read, steps=5)


def test_parts_that_are_not_made_alike_are_found() -> None:
    paces = iter([0.9, 0.8])
    with pytest.raises(AssertionError, match="two parts made and driven alike agree; after step 0: reading"):
        check_resumable(lambda: Momentum("unlike", next(paces)), drive, read, steps=3)


def test_a_part_without_state_is_found() -> None:
    with pytest.raises(AssertionError, match=r"a part with state has state_dict and load_state_dict; .* has no state_dict"):
        check_resumable(Linear, lambda part, step: None, lambda part: 0, steps=1)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (0.0, -0.0),
        (1, 1.0),
        (1, True),
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64)),
        (torch.ones(2, 3), torch.ones(3, 2)),
        (torch.ones(2), np.ones(2, dtype=np.float32)),
        (np.ones((2, 3)), np.ones((3, 2))),
        ([1, 2], [1, 2, 3]),
        ({"a": 1}, {"b": 1}),
    ],
)
def test_only_equal_bits_are_equal(found: Any, expected: Any) -> None:
    class Two:
        answers: list[Any]

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def checked(first: Any, second: Any) -> None:
        answers = iter([first, second])
        check_resumable(Two, lambda part, step: None, lambda part: next(answers, second), steps=0)

    checked(expected, copy.deepcopy(expected))
    with pytest.raises(AssertionError, match="going on from a state equals never having stopped"):
        checked(expected, found)


def test_nan_equals_itself_bit_by_bit() -> None:
    class Nothing:
        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None: ...

    check_resumable(Nothing, lambda part, step: None, lambda part: [math.nan, torch.tensor([math.nan]), np.array(math.nan)], steps=1)
