"""What every host shares: the meter, knobs, pace and journal of a run whose loop belongs to somebody else's trainer."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as processes
from torch import nn
from torch.optim.optimizer import Optimizer

from outlay.budget import Budget
from outlay.catalog import describe
from outlay.errors import InputError
from outlay.integrations.torch import Driven, GroupKnobs, make_knob
from outlay.meter import SETUP, Meter
from outlay.record import Record
from outlay.sources.base import count_units
from outlay.train.assembly import count_parameters, versions
from outlay.train.journal import NAME, Journal, kept_since, lost_since, read_journal
from outlay.train.pace import Go, LivePace, Reserve, ending_unit, flow_limits
from outlay.train.result import SPENT, STOPPED, Result

STAGE = "train"
#: steps whose mean loss is the run's final loss, as in outlay's own loop
LAST = 20
#: seconds kept back for writing the result, and for a disk that is slower than when it was measured
CLOSING = 0.02


@dataclass(frozen=True)
class Dial:
    """A quantity of the host that is no field of its optimizer, such as the clipping norm.

    Args:
        stands: its value before the run.
        write: sets it.
    """

    stands: float
    write: Callable[[float], None]


@dataclass(frozen=True)
class Settings:
    """What a user asks for; the callbacks document it.

    Args:
        budget: what may be spent.
        knobs: name -> what drives it.
        out: the run directory; None for a numbered one beside the host's own files.
        name: of the run.
        reserve: seconds to keep back besides what is measured, >= 0.
        began: reading of the clock from which seconds count; None for the start of training.
        clock: returns seconds.
    """

    budget: Budget
    knobs: Mapping[str, Driven]
    out: Path | None = None
    name: str = "run"
    reserve: float = 0.0
    began: float | None = None
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if not math.isfinite(self.reserve) or self.reserve < 0:
            raise InputError(f"reserve must be a finite number of seconds >= 0, found {self.reserve!r}")


@dataclass
class Seen:
    """What one step, or one evaluation, has used so far.

    Args:
        units: unit -> amount, of this process.
        loss: sum of the losses of its pieces; None where the host tells none.
        gradient_norm: before clipping, where the host tells it.
    """

    units: dict[str, float] = field(default_factory=dict)
    loss: torch.Tensor | float | None = None
    gradient_norm: float | None = None

    def add(self, units: Mapping[str, float]) -> None:
        """Add what a piece used."""
        for unit, amount in units.items():
            self.units[unit] = self.units.get(unit, 0.0) + amount

    def add_loss(self, loss: torch.Tensor | float) -> None:
        """Add a piece's share of the step's mean loss; it is read at the step's end alone."""
        self.loss = loss if self.loss is None else self.loss + loss


class HostRun:
    """A run that a host spends: it asks before every step, tells after it, and closes the run.

    Args:
        settings: what was asked for.
        host: the trainer's name.
        beside: folder in which a numbered run directory is made when none was asked for.
        model: what is trained.
        optimizers: whose groups the knobs drive.
        dials: further quantities that may be driven; ``dropout`` (of every ``nn.Dropout``) is always among them.
        saved: a state returned by ``state_dict``, to go on from; with another budget the run goes on in a new directory, and its schedules
            are stretched over the new budget.
        seed: for the record.

    Raises:
        InputError: when a knob or directory is wrong, or nothing is left of the budget; no step has been taken then.
    """

    def __init__(self, settings: Settings, host: str, beside: Path, model: nn.Module, optimizers: Sequence[Optimizer],
                 dials: Mapping[str, Dial], saved: Mapping[str, Any] | None = None, seed: int = 0) -> None:  # fmt: skip
        self.settings, self._model, self._seed = settings, model, seed
        self.meter = Meter(settings.budget, settings.clock, settings.began)
        self._phase = ExitStack()
        self._entered = 0.0
        self.account = ""
        self.enter(SETUP)
        every = {"dropout": _dropout_dial(model), **dials}
        self._dials = {name: every[name] for name in settings.knobs if name in every}
        self._dial_knobs = {name: make_knob(name, settings.knobs[name], dial.stands) for name, dial in self._dials.items()}
        self._groups = GroupKnobs(optimizers, {name: driven for name, driven in settings.knobs.items() if name not in every})
        self.reserve = Reserve(seconds={"own": settings.reserve, "closing": CLOSING})
        self.step = int(saved["step"]) if saved else 0
        self.values: dict[str, float] = {}
        self.metrics: dict[str, float] = {}
        self.metrics_start: dict[str, float] = {}
        self.pending, self.evaluation = Seen(), Seen()
        self.evaluated_at = self.saved_at = -1
        self._largest: dict[str, float] = {"steps": 1.0}
        self._losses: list[float] = []
        self._go: Go | None = None
        self.ended_by: str | None = None
        self.closed = False
        self._parameters, self._trainable = count_parameters(model)
        self._flops = 2.0 * (self._parameters - _embedded(model))
        self.pace = LivePace(self.meter, {}, 1.0, self.reserve, _agree)
        self._open(host, beside, saved)
        if not self.ask():
            self.journal.close()
            spent = f"{self.meter.spent(self.ended_by or 'steps'):.6g} {self.ended_by}"
            raise InputError(f"nothing is left of the budget {settings.budget} to train with ({spent} spent or kept back); raise it")

    # ---- opening ------------------------------------------------------------------------------------------------------------------------

    def _open(self, host: str, beside: Path, saved: Mapping[str, Any] | None) -> None:
        """Make the run directory, or go on in that of a saved run, with what has been spent and lost on the books."""
        first, meter = _rank() == 0, self.meter
        lines: list[dict[str, Any]] = []
        same = saved is not None and saved["budget"] == str(self.settings.budget)
        if first and saved is not None and (Path(saved["folder"]) / NAME).is_file():
            lines = read_journal(Path(saved["folder"]))
        goes_on = same and bool(lines)
        since, of = (saved["lines"], saved["step"]) if saved else (0, -1)
        place = str(saved["folder"]) if goes_on and saved else str(_fresh(self.settings.out, beside)) if first else ""
        told = _tell([place, kept_since(lines, since, of), lost_since(lines, since, of)])
        self.folder, kept, lost = Path(told[0]), told[1], told[2]
        if first:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(self.folder, meter, first)
        if saved is not None:
            self._take_up(saved, kept, lost, same)
        if goes_on and saved is not None:
            self.journal.write("resume", from_step=saved["step"], from_line=since, lost=lost)
        else:
            self._write_head(host, saved)
        if saved is None:
            self.pace = LivePace(meter, {unit: meter.spent(unit) for unit in flow_limits(meter.budget)}, 1.0, self.reserve, _agree)
        limits = {unit: [self.pace.state_dict()["starts"].get(unit, 0.0), end] for unit, end in self.pace.ends().items()}
        self.journal.write("stage", stage=STAGE, index=0, share=1.0, limits=limits)

    def _take_up(self, saved: Mapping[str, Any], kept: Mapping[str, Any], lost: Mapping[str, float], same: bool) -> None:
        for state in (saved["meter"], {"accounts": kept, "lost": {}}):
            if same:
                self.meter.load_state_dict(state)
            else:  # a journal of its own begins with all that was spent before
                for account, book in state["accounts"].items():
                    mine = self.meter.accounts.setdefault(account, {})
                    for unit, amount in book.items():
                        mine[unit] = mine.get(unit, 0.0) + amount
        self.meter.write_off(lost)
        self.pace.load_state_dict(saved["pace"] if same else {**saved["pace"], "progress": 0.0})
        self.reserve.seconds |= saved["reserve"]["seconds"]
        self.reserve.counted |= saved["reserve"]["counted"]
        self._largest |= saved["largest"]
        self._losses, self.metrics, self.metrics_start = list(saved["losses"]), dict(saved["metrics"]), dict(saved["metrics_start"])
        for part, state in zip(self._controllers(), saved["controllers"], strict=True):
            part.load_state_dict(state)

    def _write_head(self, host: str, saved: Mapping[str, Any] | None) -> None:
        budget, knobs = self.settings.budget, self.settings.knobs
        price = {"usd": budget.price.usd, "per": budget.price.per} if budget.price else None
        self.journal.write(
            "run", format=1, name=self.settings.name, recipe={"host": host, "budget": str(budget), "knobs": describe(knobs)},
            budget=str(budget), limits=dict(budget.limits), ceilings=dict(budget.ceilings), price=price, seed=self._seed, versions=versions(),
            device=str(next(self._model.parameters()).device), threads=torch.get_num_threads(), processes=_world(),
            parameters=self._parameters, trainable=self._trainable,
        )  # fmt: skip
        if saved is not None:
            self.journal.write("decision", what=f"went on from step {saved['step']} of {saved['folder']}",
                               why=f"the budget was {saved['budget']}; what was spent of it is on these books")  # fmt: skip

    # ---- where seconds go ---------------------------------------------------------------------------------------------------------------

    def enter(self, account: str) -> float:
        """Let seconds go to ``account`` from now on; return how many went to the one before since it was entered."""
        now = self.meter.spent("seconds")
        took = now - self._entered
        if account != self.account:
            self._phase.close()
            self._phase.enter_context(self.meter.spend(account))
            self.account, self._entered = account, now
        return took

    # ---- steps --------------------------------------------------------------------------------------------------------------------------

    def ask(self) -> bool:
        """Return whether there is another step, if it takes no more than the largest one so far; its knobs stand at what is spent by now."""
        if self.ended_by is None:
            self._go = self.pace.begin(save=False, stop=False)
            if self._go is None or not self.pace.fits(self._largest):
                self._end()
        return self.ended_by is None

    def fits(self, units: Mapping[str, float]) -> bool:
        """Return whether the coming step, of which these units of this process are known, stays within the budget."""
        if self.ask():
            together = _add_up(units)
            if not self.pace.fits({**self._largest, **together}):
                self._end()
        return self.ended_by is None

    def _end(self) -> None:
        self.ended_by = ending_unit(self.settings.budget, self.pace.ended_by or "steps")
        self._go = None
        self.write_knobs()

    @property
    def progress(self) -> float:
        """Share of the budget that had been spent when the coming step was asked for; 1 after the end."""
        return self._go.progress if self._go else 1.0

    def write_knobs(self) -> dict[str, float]:
        """Write every knob at ``progress`` and return the values."""
        values = self._groups.write(self.progress)
        for name, knob in self._dial_knobs.items():
            values[name] = knob.value(self.progress)
            self._dials[name].write(values[name])
        self.values = values
        return values

    def units(self, batch: Any, training: bool = True) -> dict[str, float]:
        """Return what a batch is worth in counted units; empty where it does not tell.

        FLOPs are 6 N a position (2 N in an evaluation), N parameters without those of embeddings; a batch without text has a position an
        example.
        """
        columns = _columns(batch)
        if not columns:
            return {}
        units = count_units(columns)
        positions = float(columns["input_ids"].numel()) if "input_ids" in columns else units["examples"]
        return {**units, "flops": (3 if training else 1) * self._flops * positions}

    def finish_step(self, step: int) -> None:
        """Tell that a step is done; what it used has been added to ``pending``."""
        seen, self.pending = self.pending, Seen()
        cost = {"steps": 1.0, **_add_up(seen.units)}
        self.meter.charge("train", **cost)
        with self.meter.spend("record"):
            self.step = step
            self._largest = {unit: max(amount, self._largest.get(unit, 0.0)) for unit, amount in {**self._largest, **cost}.items()}
            loss = float(seen.loss) if seen.loss is not None else None
            if loss is not None and math.isfinite(loss):
                self._losses = [*self._losses[1 - LAST :], loss]
            self._observe(Record("step", step, STAGE, self.progress, loss, seen.gradient_norm, dict(self.values), cost))
            self.journal.write("step", step=step, stage=STAGE, progress=self.progress, loss=loss, gradient_norm=seen.gradient_norm,
                               knobs=self.values, outcome="ok", metrics={})  # fmt: skip
            self.pace.lap()

    # ---- evaluations and saves ------------------------------------------------------------------------------------------------------------

    def limited_by(self, *units: str) -> bool:
        """Return whether any of these units is limited, money counted as what it is priced by."""
        return any(unit in flow_limits(self.settings.budget) for unit in units)

    def evaluated(self, metrics: Mapping[str, Any]) -> None:
        """Tell that the model was evaluated; the seconds since ``eval`` was entered, and what was added to ``evaluation``, are what it took."""
        seconds = self.enter("record")
        seen, self.evaluation = self.evaluation, Seen()
        used = _add_up(seen.units)
        self.meter.charge("eval", **used)
        kept = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float | torch.Tensor)}
        again = self.evaluated_at == self.step  # a further data set of the same evaluation
        part = f"evaluation {next(iter(kept), '')}"
        self.reserve.measured(part, seconds)
        for unit, amount in used.items():
            self.reserve.counted[unit] = (self.reserve.counted.get(unit, 0.0) if again else 0.0) + amount
        self.metrics = {**self.metrics, **kept} if again else kept
        when: Literal["start", "during", "end"] = "end" if self.ended_by else "during" if self.step else "start"
        if when == "start":
            self.metrics_start = dict(self.metrics)
        self.evaluated_at = self.step
        self._observe(Record("evaluation", self.step, STAGE, self.progress, metrics=kept))
        self.journal.write("evaluation", step=self.step, stage=STAGE, progress=self.progress, when=when, metrics=kept)

    def saved(self, path: Path | None) -> None:
        """Tell that the host wrote a checkpoint, since ``checkpoint`` was entered."""
        seconds = self.enter("record")
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path and path.is_dir() else 0
        size = path.stat().st_size if path and path.is_file() else size
        self.reserve.measured("checkpoint", seconds)
        self.saved_at = self.step
        self.journal.write("checkpoint", step=self.step, path=str(path or ""), bytes=size, seconds=seconds)

    def _controllers(self) -> list[Any]:
        return [*self._groups.controllers(), *(c for name in sorted(self._dial_knobs) for c in self._dial_knobs[name].controllers())]

    def _observe(self, record: Record) -> None:
        for part in self._controllers():
            part.observe(record)

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on, as plain values that JSON holds: the books as the journal's lines so far tell them."""
        self.journal.sync()
        return {
            "budget": str(self.settings.budget),
            "folder": str(self.folder),
            "step": self.step,
            "lines": self.journal.lines,
            "meter": self.meter.settled(),
            "pace": self.pace.state_dict(),
            "reserve": {"seconds": self.reserve.seconds, "counted": self.reserve.counted},
            "largest": self._largest,
            "losses": self._losses,
            "metrics": self.metrics,
            "metrics_start": self.metrics_start,
            "controllers": [part.state_dict() for part in self._controllers()],
        }

    # ---- closing --------------------------------------------------------------------------------------------------------------------------

    def warn(self, message: str) -> None:
        """Say something that did not go as asked, on the journal and to the user."""
        self.journal.warn(message)
        warnings.warn(message, stacklevel=3)

    def finish(self, otherwise: Literal["data", "signal", "failure"], code: int = STOPPED, message: str = "") -> Result:
        """Close the run and return its result; ``otherwise`` says what ended it when it was not the budget."""
        ended_by, code = (self.ended_by, SPENT) if self.ended_by else (otherwise, code)
        self.enter("report")
        self.journal.write("end", ended_by=ended_by, message=message)
        result = self._result(ended_by, code)
        if _rank() == 0:
            result.write()
        self._phase.close()
        self.meter.close()
        self.journal.write("closed")
        result = self._result(ended_by, code)
        if _rank() == 0:
            result.write()
        self.journal.close()
        self.closed = True
        return result

    def _result(self, ended_by: str, code: int) -> Result:
        meter, losses = self.meter, self._losses
        spent = meter.totals()
        budget = {unit: {"limit": limit, "spent": spent[unit]} for unit, limit in self.settings.budget.limits.items()}
        loss = math.fsum(losses) / len(losses) if losses else None
        stage = {"name": STAGE, "steps": self.step, "share": 1.0, "spent": spent, "final_loss": loss}
        return Result(
            self.settings.name, ended_by, code, budget, spent, meter.books(), dict(meter.lost), self.metrics, self.metrics_start, [stage],
            self._seed, versions(), self._parameters, self.step, None, None, list(self.journal.warnings), str(self.folder),
        )  # fmt: skip


def _fresh(out: Path | None, beside: Path) -> Path:
    """Return the directory of a new run.

    Raises:
        InputError: when the one asked for holds something.
    """
    if out is None:
        return next(path for number in range(1, 1_000_000) if not (path := beside / f"outlay-{number}").exists())
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty; choose another directory, or resume the run from the trainer's checkpoint")
    return out


def _columns(batch: Any) -> dict[str, torch.Tensor]:
    """Return the tensors with a row an example that a batch holds, by name; a sequence's first tensor stands for its examples."""
    if isinstance(batch, torch.Tensor):
        return {"0": batch} if batch.dim() else {}
    if isinstance(batch, list | tuple):
        return next((found for part in batch if (found := _columns(part))), {})
    if isinstance(batch, Mapping):
        return {name: value for name, value in batch.items() if isinstance(value, torch.Tensor) and value.dim()}
    return {}


def _embedded(model: nn.Module) -> int:
    """Return how many parameters are those of embeddings."""
    return sum(part.weight.numel() for part in model.modules() if isinstance(part, nn.Embedding))


def _dropout_dial(model: nn.Module) -> Dial:
    parts = [part for part in model.modules() if isinstance(part, nn.Dropout)]

    def write(value: float) -> None:
        for part in parts:
            part.p = value

    return Dial(parts[0].p if parts else 0.0, write)


# ---- processes ----------------------------------------------------------------------------------------------------------------------------


def _together() -> bool:
    return processes.is_available() and processes.is_initialized() and processes.get_world_size() > 1


def _rank() -> int:
    return processes.get_rank() if _together() else 0


def _world() -> int:
    return processes.get_world_size() if _together() else 1


def _tell(values: list[Any]) -> list[Any]:
    """Return the first process's values on every process."""
    if _together():
        processes.broadcast_object_list(values, src=0)
    return values


def _agree(values: list[float]) -> list[float]:
    return _tell(list(values))


def _add_up(amounts: Mapping[str, float]) -> dict[str, float]:
    """Return every amount summed over the processes."""
    if not _together():
        return dict(amounts)
    every: list[Any] = [None] * _world()
    processes.all_gather_object(every, dict(amounts))
    return {unit: math.fsum(one.get(unit, 0.0) for one in every) for unit in _names(every)}


def _names(every: Sequence[Mapping[str, float]]) -> Iterator[str]:
    yield from dict.fromkeys(unit for one in every for unit in one)
