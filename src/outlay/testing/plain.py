"""Contract checks: run them on your own schedule, controller or any part that keeps state.

Plain Python: no test runner is needed. Each check returns quietly or raises ``AssertionError`` with the rule that was broken, the input
that broke it and the values that were seen.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from outlay import catalog, rng
from outlay.controllers.base import Controller
from outlay.errors import Problem
from outlay.record import Record
from outlay.schedules.base import Schedule

if TYPE_CHECKING:
    import numpy as np

Part = TypeVar("Part")

#: where schedules are read: a dense grid of [0, 1] with the tightest neighbours of its ends
GRID: tuple[float, ...] = tuple(sorted({k / 1000 for k in range(1001)} | {5e-324, 1e-12, 1.0 - 1e-12, math.nextafter(1.0, 0.0)}))
#: where controllers are read after every record
PROBES: tuple[float, ...] = (0.0, 0.1, 0.5, 0.9, 1.0)


def _hold(condition: bool, rule: str, seen: str) -> None:
    # not an assert statement: the checks must also work under python -O
    if not condition:
        raise AssertionError(f"{rule}; {seen}")


# ---- helpers for tests -------------------------------------------------------------------------------------------------------------


class FakeClock:
    """A clock that moves only when told to, for ``Meter(budget, clock=...)``. Set ``now`` to let it jump, also backwards.

    Args:
        now: first reading in seconds.
        noise: each advance is multiplied by exp(noise z), z standard normal from the stream (seed, name, number of the advance); >= 0.
        seed: root of the stream.
        name: the stream's name.
    """

    def __init__(self, now: float = 0.0, noise: float = 0.0, seed: int = 0, name: str = "clock") -> None:
        self.now = now
        self.noise = noise
        self.seed = seed
        self.name = name
        self.advances = 0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move on by ``seconds`` >= 0, more or less where there is noise."""
        if seconds < 0:
            raise ValueError(f"a clock advances by seconds >= 0, found {seconds}; set now to let it jump back")
        if self.noise:
            seconds *= math.exp(self.noise * random.Random(rng.derive(self.seed, self.name, self.advances)).gauss(0.0, 1.0))
        self.advances += 1
        self.now += seconds


def record(
    step: int = 1,
    loss: float | None = 1.0,
    *,
    kind: Literal["step", "evaluation"] = "step",
    stage: str = "train",
    progress: float = 0.0,
    gradient_norm: float | None = None,
    knobs: Mapping[str, float] | None = None,
    charges: Mapping[str, float] | None = None,
    metrics: Mapping[str, float] | None = None,
    outcome: Literal["ok", "skipped"] = "ok",
    detail: Mapping[str, Any] | None = None,
) -> Record:
    """Make a record of which a test names only what matters to it; the arguments are the fields of ``Record``."""
    return Record(kind, step, stage, progress, loss, gradient_norm, knobs or {}, charges or {}, metrics or {}, outcome, detail or {})


def expected_loss(multipliers: Sequence[float], peaks: Sequence[float], noise: float = 1.0) -> np.ndarray:
    """Return the expected loss of gradient descent with noise on a diagonal quadratic: exact, without a seed.

    Curvatures lam_i = 1/i for i = 1..200 and second moments v_i = E[w_i^2], 1 at the start. With eta_t = peak * multipliers[t]:
    v_i <- (1 - eta_t lam_i)^2 v_i + eta_t^2 noise lam_i, and loss = 1/2 sum_i lam_i v_i.

    Args:
        multipliers: of the learning rate, one a step.
        peaks: learning rates that are tried side by side.
        noise: variance of the gradient noise relative to the curvature, >= 0.

    Returns:
        The losses before the first and after each step, of shape (steps + 1, peaks).
    """
    import numpy as np

    curvature = 1.0 / np.arange(1, 201)
    moment = np.ones((len(peaks), len(curvature)))
    losses = [0.5 * moment @ curvature]
    for multiplier in multipliers:
        rate = (np.asarray(peaks) * multiplier)[:, None]
        moment = (1.0 - rate * curvature) ** 2 * moment + rate**2 * noise * curvature
        losses.append(0.5 * moment @ curvature)
    return np.stack(losses)


def tuned_loss(schedule: Schedule, steps: int, noise: float = 1.0) -> float:
    """Return the last ``expected_loss`` of a schedule at the best of 45 peaks from 0.001 to 1.9; step t reads progress t / steps."""
    import numpy as np

    multipliers = [schedule.value(step / steps) for step in range(steps)]
    return float(expected_loss(multipliers, np.geomspace(1e-3, 1.9, 45).tolist(), noise)[-1].min())


# ---- schedules ---------------------------------------------------------------------------------------------------------------------


def check_schedule(schedule: Schedule) -> None:
    """Check the schedule seam: finite on [0, 1], pure, without state, and rebuilt equal from its description.

    Args:
        schedule: any object with ``value``; where it is a dataclass, its description in the catalog's plain values is checked as well.

    Raises:
        AssertionError: naming the rule, the schedule, the progress and the values.
    """
    name = repr(schedule)
    for attribute in ("state_dict", "load_state_dict", "observe"):
        rule = "a schedule keeps nothing and listens to nothing (what does is a controller)"
        _hold(not hasattr(schedule, attribute), rule, f"{name} has {attribute}")
    before = _described(schedule)
    first = {progress: _reading(schedule, progress) for progress in GRID}
    shuffled = random.Random(0).sample(GRID, len(GRID))
    for order, points in (("the same", GRID), ("falling", GRID[::-1]), ("any", shuffled)):
        for progress in points:
            for _ in range(2):
                again = _reading(schedule, progress)
                seen = f"{name} at progress {progress!r} gave {first[progress]!r} and, read again in {order} order, {again!r}"
                _hold(again == first[progress], "the same progress gives the same value", seen)
    after = _described(schedule)
    _hold(after == before, "reading a schedule changes nothing in it", f"{name} was {before} and became {after}")
    _check_rebuilt(schedule)


def _reading(schedule: Schedule, progress: float) -> float:
    value = schedule.value(progress)
    seen = f"{schedule!r} at progress {progress!r} gave {value!r}"
    _hold(isinstance(value, int | float) and not isinstance(value, bool), "a schedule's value is a number", seen)
    _hold(math.isfinite(value), "a schedule is finite on [0, 1]", seen)
    return value


def _described(part: Any) -> Any:
    return catalog.describe(part) if dataclasses.is_dataclass(part) else None


def _check_rebuilt(part: Any) -> None:
    """Its fields, written as a recipe writes them and through JSON, make an equal object."""
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        return
    plain = {field.name: catalog.describe(getattr(part, field.name)) for field in dataclasses.fields(part) if field.init}
    problems: list[Problem] = []
    rebuilt = catalog.build_dataclass(type(part), json.loads(json.dumps(plain)), type(part).__name__, problems)
    rule = "the object is the config: its described fields build an equal object"
    _hold(not problems, rule, f"{plain} was refused: {'; '.join(map(str, problems))}")
    _hold(rebuilt == part, rule, f"{part!r} became {rebuilt!r}")


# ---- controllers -------------------------------------------------------------------------------------------------------------------


def check_controller(make: Callable[[], Controller], records: Iterable[Record]) -> list[float]:
    """Check the controller seam: reading changes nothing, state survives JSON, going on from it equals never having stopped.

    Args:
        make: returns a fresh controller, alike each time.
        records: what it observes, in order; choose them so that it acts, or little is checked.

    Returns:
        The value at progress 1/2 before the first and after every record, so that a test can see that it acted.

    Raises:
        AssertionError: naming the rule, the state or number of records at which it was broken, and the values.
    """
    records = list(records)
    one, other = make(), make()
    _hold(isinstance(one, Controller), "a controller has value, observe, state_dict and load_state_dict", f"found {one!r}")
    _check_rebuilt(one)
    check_resumable(make, drive=lambda controller, step: controller.observe(records[step]), read=_probed, steps=len(records))
    _check_copied(make, records)
    values = []
    for count in range(len(records) + 1):
        last = records[count - 1] if count else record(0)
        for controller in (one, other) if count else ():
            controller.observe(last)
        # an evaluation that holds nothing a controller could have asked for
        bystander = record(last.step, None, kind="evaluation", stage=last.stage, progress=last.progress, metrics={"of no concern": 1.0})
        other.observe(bystander)
        alone, accompanied = _probed(one), _probed(other)
        seen = f"{one!r} after {count} records gave {alone}, and with {bystander} after each of them {accompanied}"
        _hold(alone == accompanied, "unrelated records change nothing", seen)
        values.append(alone[0][PROBES.index(0.5)])
    return values


def _probed(controller: Controller) -> tuple[list[float], str]:
    before = _json_state(controller)
    values = [_reading(controller, progress) for progress in PROBES]
    again = [_reading(controller, progress) for progress in reversed(PROBES)][::-1]
    rule, where = "reading a controller changes nothing", f"{controller!r} in the state {before}"
    _hold(values == again, rule, f"{where} gave {values} at {PROBES} and, read again, {again}")
    after = _json_state(controller)
    _hold(before == after, rule, f"{where} was read and came into the state {after}")
    return values, after


def _json_state(controller: Controller) -> str:
    state = controller.state_dict()
    rule, where = "a controller's state is plain values that survive JSON", f"{controller!r} has the state {state!r}"
    try:
        text = json.dumps(state, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{rule}; {where}: {error}") from error
    _hold(json.loads(text) == state, rule, f"{where}, which came back as {text}")
    return text


def _check_copied(make: Callable[[], Controller], records: list[Record]) -> None:
    """A state that was handed over stays as it was, whatever the controllers on either side observe."""
    giver, taker = make(), make()
    for seen in records[: len(records) // 2]:
        giver.observe(seen)
    state = giver.state_dict()
    before = repr(state)
    taker.load_state_dict(state)
    for controller, rule in ((giver, "a state handed out is a copy"), (taker, "a state taken up is copied, not kept")):
        for seen in records[len(records) // 2 :]:
            controller.observe(seen)
        _hold(repr(state) == before, rule, f"the state {before} of {giver!r} became {state!r} in the caller's hands")


# ---- anything with state -----------------------------------------------------------------------------------------------------------


def check_resumable(make: Callable[[], Part], drive: Callable[[Part, int], object], read: Callable[[Part], object], steps: int) -> None:
    """Check that going on from a saved state equals never having stopped, bit by bit, from and at every step.

    The state may hold tensors or arrays, which go through safetensors, and plain values (None, booleans, numbers, texts, lists, mappings
    keyed by texts or whole numbers), which go through JSON. It is taken up by a fresh part and by one that was driven to the end, as when
    a run rolls back. Each step is driven about 2 * steps times, so keep them few.

    Args:
        make: returns a fresh part, alike each time.
        drive: ``drive(part, step)`` does step number 0, 1, ...; what it needs besides the part must follow from ``step`` alone.
        read: returns what must agree: plain values, tensors, arrays, or lists and mappings of them.
        steps: how many steps are driven.

    Raises:
        AssertionError: naming the rule, the step after which it was stopped, and the first value that differs.
    """
    whole, twin = make(), make()
    states, readings = [_saved(_state_of(whole), "state")], [_frozen(read(whole))]
    for step in range(steps):
        drive(whole, step)
        drive(twin, step)
        states.append(_saved(_state_of(whole), "state"))
        readings.append(_frozen(read(whole)))
        found = _difference(_frozen(read(twin)), readings[-1], "reading")
        _hold(found is None, "two parts made and driven alike agree", f"after step {step}: {found}")
    for split in range(steps + 1):
        for resumed, which in ((make(), "a fresh part"), (twin, "a part that had gone on")):
            resumed.load_state_dict(_saved(states[split], "state"))  # type: ignore[attr-defined]
            for step in range(split, steps + 1):
                if step > split:
                    drive(resumed, step - 1)
                found = _difference(_frozen(read(resumed)), readings[step], "reading")
                where = f"saved after {split} steps, taken up by {which} and driven on to {step}: {found}"
                _hold(found is None, "going on from a state equals never having stopped, bit by bit", where)


def _state_of(part: Any) -> Any:
    for attribute in ("state_dict", "load_state_dict"):
        _hold(hasattr(part, attribute), "a part with state has state_dict and load_state_dict", f"{part!r} has no {attribute}")
    return part.state_dict()


def _saved(value: Any, path: str) -> Any:
    """The value as it comes back from disk; a copy that shares nothing with it."""
    if isinstance(value, Mapping):
        for key in value:
            _hold(
                isinstance(key, str | int) and not isinstance(key, bool),
                "keys of a state are texts or whole numbers",
                f"{path} has {key!r}",
            )
        return {key: _saved(inner, f"{path}[{key!r}]") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_saved(inner, f"{path}[{i}]") for i, inner in enumerate(value)]
    if _is_tensor(value):
        import safetensors.torch

        return safetensors.torch.load(safetensors.torch.save({"_": value.detach().contiguous()}))["_"]
    if _is_array(value):
        import safetensors.numpy

        return safetensors.numpy.load(safetensors.numpy.save({"_": value.copy(order="C")}))["_"]
    plain = value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))
    _hold(plain, "a state holds tensors and plain, finite values", f"{path} is {value!r} of type {type(value).__name__}")
    return json.loads(json.dumps(value))


def _frozen(value: Any) -> Any:
    """The value as it is now: a live tensor would change under the comparison."""
    if isinstance(value, Mapping):
        return {key: _frozen(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_frozen(inner) for inner in value]
    if _is_tensor(value):
        return value.detach().clone()
    return value.copy() if _is_array(value) else value


def _difference(found: Any, expected: Any, path: str) -> str | None:
    """Where two values differ in any bit, or None."""
    if isinstance(expected, dict) and isinstance(found, dict) and found.keys() == expected.keys():
        differences = [_difference(found[key], expected[key], f"{path}[{key!r}]") for key in expected]
        return next((difference for difference in differences if difference), None)
    if isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        differences = [_difference(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(found, expected, strict=True))]
        return next((difference for difference in differences if difference), None)
    same = type(found) is type(expected) and _bits(found) == _bits(expected)
    return None if same else f"{path} is {found!r}, not {expected!r}"


def _bits(value: Any) -> Any:
    if _is_tensor(value):
        return str(value.dtype), tuple(value.shape), bytes(value.cpu().contiguous().reshape(-1).view(sys.modules["torch"].uint8).numpy())
    if _is_array(value):
        return str(value.dtype), value.shape, value.tobytes()
    return value.hex() if isinstance(value, float) else value


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # who holds a tensor has imported torch; nobody else pays for it
    return torch is not None and isinstance(value, torch.Tensor)


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)
