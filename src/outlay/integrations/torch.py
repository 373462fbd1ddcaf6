"""Budgets in a torch loop: an LRScheduler that is clocked by what has been spent, and the knobs on an optimizer's groups."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from outlay.budget import Budget
from outlay.controllers.base import Brancher, Controller
from outlay.errors import InputError, nearest
from outlay.knob import Knob
from outlay.meter import Meter
from outlay.record import Record
from outlay.schedules.base import Schedule
from outlay.train.pace import LivePace, Reserve, ending_unit, flow_limits

#: what may drive a quantity: a knob or a number says its value, a bare schedule multiplies what stands there
Driven = Knob | Schedule | float

#: parts of a group field that holds several numbers
_PARTS: dict[str, tuple[str, int]] = {"beta1": ("betas", 0), "beta2": ("betas", 1)}


def read_budget(budget: Budget | str) -> Budget:
    """Return a budget, read from text where it is one.

    Raises:
        InputError: when it cannot be read or limits nothing that can be used up.
    """
    budget = Budget.parse(budget) if isinstance(budget, str) else budget
    if not budget.limits:
        raise InputError(
            f"the budget {str(budget)!r} limits nothing that is used up, so the run would never end; add a limit such as '30m'"
        )
    return budget


def make_knob(name: str, driven: Driven, stands: float) -> Knob:
    """Return the knob behind what was given; a bare schedule's peak is the value that ``stands``. Controllers are copied.

    Raises:
        InputError: when it is none of the accepted kinds, or a schedule would multiply 0.
    """
    if isinstance(driven, type):
        raise InputError(f"{name!r} is driven by an object, found the class {driven.__name__}; write {driven.__name__}(...)")
    parts = driven.controllers() if isinstance(driven, Knob) else [driven]
    for part in parts:
        if isinstance(part, Brancher):
            raise InputError(
                f"{name!r}: {type(part).__name__} looks ahead on branches, which only outlay's own loop can make; use outlay.run"
            )
    if isinstance(driven, Knob):
        return copy.deepcopy(driven)
    if isinstance(driven, int | float) and not isinstance(driven, bool):
        return Knob(float(driven))
    if not isinstance(driven, Schedule):
        raise InputError(f"{name!r} is driven by a Knob, a schedule, a controller or a number, found {driven!r}")
    if stands == 0:
        raise InputError(f"{name!r} stands at 0, which a schedule cannot change; give its peak: Knob(peak, schedule)")
    return Knob(stands, copy.deepcopy(driven))


class GroupKnobs:
    """Knobs on fields of an optimizer's parameter groups. Groups keep their proportions.

    A group's value is knob(p) * base / largest base, where ``base`` is what the group's field held at first and the largest is over the
    groups; so a bare schedule multiplies each group's own rate, and a group that is exempt from weight decay stays so. Where all bases are 0
    every group gets knob(p). The base is kept in the group as ``initial_<field>`` (torch's own ``initial_lr`` for the rate), so that it is
    saved and loaded with the optimizer.

    Args:
        optimizers: the optimizers whose groups are driven.
        knobs: field -> knob, schedule, controller or number; ``beta1`` and ``beta2`` are the parts of ``betas``.

    Raises:
        InputError: when no group has such a field, or what drives it is not accepted.
    """

    def __init__(self, optimizers: Sequence[Optimizer], knobs: Mapping[str, Driven]) -> None:
        self._optimizers = list(optimizers)
        self.knobs: dict[str, Knob] = {}
        accepted = sorted({field for group in self._groups() for field in _fields(group)})
        for name, driven in knobs.items():
            if name not in accepted:
                raise InputError(f"no group of the optimizer has a field {name!r}{nearest(name, accepted)}")
            self.knobs[name] = make_knob(name, driven, max(self._bases(name), key=abs))

    def _groups(self) -> Iterator[dict[str, Any]]:
        for optimizer in self._optimizers:
            yield from optimizer.param_groups

    def _bases(self, name: str) -> list[float]:
        """Return every group's base; a group that was added later has the base that it came with."""
        return [float(group.setdefault(f"initial_{name}", _read(group, name))) for group in self._groups() if name in _fields(group)]

    def write(self, progress: float) -> dict[str, float]:
        """Write every knob at ``progress`` in [0, 1] into the groups; return the values of the groups with the largest base."""
        values = {name: knob.value(progress) for name, knob in self.knobs.items()}
        self.put(values)
        return values

    def put(self, values: Mapping[str, float]) -> None:
        """Write values that ``write`` returned."""
        for name, value in values.items():
            bases = self._bases(name)
            largest = max(bases, key=abs)
            groups = (group for group in self._groups() if name in _fields(group))
            for group, base in zip(groups, bases, strict=True):
                _write(group, name, value * (base / largest) if largest else value)

    def controllers(self) -> list[Controller]:
        """Return the controllers inside the knobs, in a fixed order."""
        return [part for name in sorted(self.knobs) for part in self.knobs[name].controllers()]


def _fields(group: Mapping[str, Any]) -> set[str]:
    """Return the names of the numbers in a group that may be driven."""
    plain = {
        key for key, value in group.items()
        if not key.startswith("initial_") and (isinstance(value, float | torch.Tensor) or (isinstance(value, int) and not isinstance(value, bool)))
    }  # fmt: skip
    return plain | {part for part, (key, _) in _PARTS.items() if key in group}


def _read(group: Mapping[str, Any], name: str) -> float:
    key, index = _PARTS.get(name, (name, None))
    return float(group[key] if index is None or key not in group else group[key][index])


def _write(group: dict[str, Any], name: str, value: float) -> None:
    key, index = _PARTS.get(name, (name, None))
    if index is not None and key in group:
        parts = list(group[key])
        parts[index] = value
        group[key] = tuple(parts)
    elif isinstance(group[key], torch.Tensor):
        group[key].fill_(value)  # a captured graph reads this very tensor
    else:
        group[key] = value


class BudgetScheduler(LRScheduler):
    """A learning-rate scheduler of torch's shape whose clock is a budget.

    ``step()`` after every optimizer step, as with any scheduler. Steps are charged by themselves, once for every step that the optimizer
    takes; seconds by the clock; other units with ``charge``. Past the end of the budget everything holds its last value (the schedule at
    progress 1), and ``ended`` is True.

    Args:
        optimizer: the optimizer whose groups are driven.
        knobs: a schedule for the learning rate, or field of the groups -> knob, schedule, controller or number (see ``GroupKnobs``).
        budget: what may be spent, also as text (``"1000 steps"``, ``"60s"``); or a meter that somebody else charges, steps included.
        reserve: seconds to keep back of a limited time for what follows the last step, >= 0.
        clock: returns seconds; unused with a meter of your own.

    Raises:
        InputError: when the budget cannot be read or a field is not there.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        knobs: Schedule | Mapping[str, Driven],
        budget: Budget | str | Meter,
        *,
        reserve: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own, self._clock = not isinstance(budget, Meter), clock
        #: the books
        self.meter = budget if isinstance(budget, Meter) else Meter(read_budget(budget), clock)
        self._reserve = Reserve(seconds={"own": reserve})
        self._pace = LivePace(self.meter, self._spent(), 1.0, self._reserve)
        self._groups = GroupKnobs([optimizer], knobs if isinstance(knobs, Mapping) else {"lr": knobs})
        #: share of the budget that had been spent at the last ``step()``, in [0, 1]
        self.progress = 0.0
        #: name -> value since the last ``step()``
        self.values: dict[str, float] = {}
        if self._own:
            # not in step(): accelerate calls that once a process, and a step withheld by a gradient scaler is none
            inner = getattr(optimizer, "optimizer", optimizer)
            inner.register_step_post_hook(lambda *_: self.meter.charge("train", steps=1))
        super().__init__(optimizer)

    def _spent(self) -> dict[str, float]:
        return {unit: self.meter.spent(unit) for unit in flow_limits(self.meter.budget)}

    @property
    def ended(self) -> bool:
        """Whether the budget has no room for another step."""
        return self._pace.ended_by is not None

    @property
    def ended_by(self) -> str | None:
        """The unit whose limit ended the budget; None before."""
        unit = self._pace.ended_by
        return unit and ending_unit(self.meter.budget, unit)

    def charge(self, **amounts: float) -> None:
        """Charge what training used of counted units (``tokens=4096``, ``examples=32``) to the account ``train``."""
        self.meter.charge("train", **amounts)

    def observe(
        self,
        loss: float | None = None,
        gradient_norm: float | None = None,
        metrics: Mapping[str, float] | None = None,
        kind: Literal["step", "evaluation"] = "step",
    ) -> None:
        """Tell the controllers what the last step, or an evaluation, did and saw; call before ``step()``."""
        record = Record(kind, self.last_epoch + 1, "train", self.progress, loss, gradient_norm, dict(self.values), metrics=metrics or {})
        for part in self._groups.controllers():
            part.observe(record)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return every group's rate, which ``step`` has written."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def step(self, epoch: int | None = None) -> None:
        """Read the books and write every knob for the next optimizer step; the argument is torch's and does nothing."""
        self._pace.lap()
        go = self._pace.begin(save=False, stop=False)
        self.progress = 1.0 if go is None else go.progress
        self.values = self._groups.write(self.progress)
        super().step()

    def state_dict(self) -> dict[str, Any]:
        """Return books, pace and controllers as plain values; a meter of your own is yours to save."""
        return {
            "last_epoch": self.last_epoch,
            "meter": self.meter.state_dict() if self._own else None,
            "pace": self._pace.state_dict(),
            "ended_by": self._pace.ended_by,
            "progress": self.progress,
            "values": self.values,
            "controllers": [part.state_dict() for part in self._groups.controllers()],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state; the seconds between saving and loading are off the books."""
        if state_dict["meter"] is not None:
            self.meter = Meter(self.meter.budget, self._clock)
            self.meter.load_state_dict(state_dict["meter"])
        self._pace = LivePace(self.meter, {}, 1.0, self._reserve)
        self._pace.load_state_dict(state_dict["pace"])
        self._pace.ended_by = state_dict["ended_by"]
        for part, state in zip(self._groups.controllers(), state_dict["controllers"], strict=True):
            part.load_state_dict(state)
        self.last_epoch, self.progress = state_dict["last_epoch"], state_dict["progress"]
        self.values = dict(state_dict["values"])
        self._groups.put(self.values)
        self._last_lr = self.get_lr()
