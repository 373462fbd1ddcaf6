"""Recipe: a model, a budget and a list of stages. YAML and Python are the same thing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from outlay.adapters.base import Adapter, Follows
from outlay.budget import BOUGHT, Budget
from outlay.controllers.base import Brancher
from outlay.errors import InputError, Problem, nearest
from outlay.evaluations.base import Exam
from outlay.knob import Knob
from outlay.models.base import ModelSpec
from outlay.objectives.base import Objective
from outlay.objectives.next_token import NextToken
from outlay.optim.adamw import AdamW
from outlay.optim.base import OptimizerSpec, Spares
from outlay.sources.base import Source
from outlay.train.measuring import MEASURES

#: knobs that the loop itself reads: norm to which gradients are clipped, examples an update, dropout probability of every dropout layer,
#: tokens a row is cut to, pixels a side that images are brought to
LOOP_KNOBS = ("clip", "batch_size", "dropout", "length", "resolution")
#: knobs that make no sense below 0
NEVER_NEGATIVE = ("lr", "weight_decay", "momentum", "batch_size", "clip", "dropout", "length", "resolution", "temperature", "token_limit")
#: units that every training step spends whatever its source is
ALWAYS_SPENT = ("steps", "seconds", "flops", "usd", "examples")


@dataclass(frozen=True)
class Stage:
    """One way of learning, for a share of the budget.

    Args:
        source: what is read.
        name: how the report calls it; unique within the recipe.
        share: part of the budget relative to the other stages', > 0; what a stage leaves rolls over to those after it.
        objective: what a batch teaches.
        optimizer: what turns gradients into updates.
        batch_size: examples an update, over all processes, > 0; the knob ``batch_size`` may change it during the run.
        knobs: quantities that follow the budget, by name: the optimizer's (``lr``, ``weight_decay`` ...), the objective's
            (``label_smoothing`` ...), the source's (``temperature``, ``token_limit`` of rollouts), and the loop's ``clip``, ``batch_size``,
            ``dropout``, ``length`` (tokens that rows of text are cut to) and ``resolution`` (pixels that images' height is brought to). A plain
            number is a constant.
        measure: what else each step measures, into its record's metrics: ``gradient_l1`` (L1 norm of the whole gradient before clipping),
            ``descent_alignment`` (the gradient against the direction of the update before). Controllers ask for what they need themselves.
    """

    source: Source
    name: str = "train"
    share: float = 1.0
    objective: Objective = field(default_factory=NextToken)
    optimizer: OptimizerSpec = field(default_factory=AdamW)
    batch_size: int = 32
    knobs: dict[str, Knob] = field(default_factory=dict)
    measure: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "knobs", {name: as_knob(value) for name, value in self.knobs.items()})
        object.__setattr__(self, "measure", tuple(self.measure))
        problems = []
        if not (self.share > 0 and math.isfinite(self.share)):
            problems.append(Problem("share", f"must be a finite number > 0, found {self.share}"))
        if self.batch_size <= 0:
            problems.append(Problem("batch_size", f"must be > 0, found {self.batch_size}"))
        accepted = self.accepted_knobs()
        for name in self.knobs:
            if name not in accepted:
                problems.append(Problem(f"knobs.{name}", f"no part of this stage reads the knob {name!r}{nearest(name, accepted)}"))
        for name, knob in self.knobs.items():
            if any(isinstance(part, Brancher) and part is not knob.schedule for part in knob.controllers()):
                why = "on a branch the knob follows the branch alone"
                problems.append(
                    Problem(f"knobs.{name}", f"a controller that branches must be the knob's schedule itself, since {why}; unwrap it")
                )
            if name in NEVER_NEGATIVE and knob.peak < 0:
                problems.append(Problem(f"knobs.{name}", f"its peak must be >= 0, found {knob.peak:g}"))
            spent = [*ALWAYS_SPENT, *self.source.units]
            for unit in [part.counts for part in knob.controllers() if hasattr(part, "counts")]:
                if unit not in spent:
                    problems.append(
                        Problem(f"knobs.{name}", f"counts {unit}, of which this stage's source spends none; it spends {', '.join(spent)}")
                    )
        if isinstance(self.optimizer, Spares):
            who = f"{type(self.optimizer).__name__} never holds the whole gradient"
            problems += [Problem("knobs.clip", f"{who}, so its norm cannot be clipped; leave it out")] if "clip" in self.knobs else []
            problems += [Problem(where, f"{who}, so {asked} cannot be measured") for where, asked in self._asked()]
        for where, asked in self._asked():
            if asked not in MEASURES:
                problems.append(Problem(where, f"asks to measure {asked!r}, which no step can; accepted: {', '.join(MEASURES)}"))
        if problems:
            raise InputError(problems)

    def measured(self) -> frozenset[str]:
        """Return the names of all that the steps measure because the stage or a controller asks for it."""
        return frozenset(asked for _, asked in self._asked())

    def _asked(self) -> list[tuple[str, str]]:
        """Return who asks, as a path, and for what."""
        asked = [("measure", name) for name in self.measure]
        for name, knob in self.knobs.items():
            asked += [(f"knobs.{name}", need) for part in knob.controllers() for need in getattr(part, "needs", ())]
        return asked

    def examples(self, progress: float) -> int:
        """Return how many examples an update takes at ``progress`` in [0, 1], before any controller has acted."""
        knob = self.knobs.get("batch_size")
        return max(1, round(knob.value(progress))) if knob else self.batch_size

    def accepted_knobs(self) -> list[str]:
        """Return the names of all knobs that this stage's parts read."""
        return [*self.optimizer.knobs, *self.objective.knobs, *getattr(self.source, "knobs", ()), *LOOP_KNOBS]


def as_knob(value: Any) -> Knob:
    """Return a knob as it is, a number as a constant knob, a schedule as a knob of peak 1."""
    if isinstance(value, Knob):
        return value
    if isinstance(value, int | float):
        return Knob(float(value))
    return Knob(1.0, value)


@dataclass(frozen=True)
class Evaluate:
    """What is measured on held-out data, and when. Every evaluation is charged; the last one is reserved in advance.

    Args:
        exams: the measurements.
        every: also evaluate each time this share of a stage's budget has been spent, in (0, 1], and when a stage follows another; None for only
            before and after.
        start: whether to evaluate before training.
    """

    exams: tuple[Exam, ...] = ()
    every: float | None = None
    start: bool = True

    def __post_init__(self) -> None:
        if self.every is not None and not 0 < self.every <= 1:
            raise ValueError(f"every must lie in (0, 1], found {self.every}")


@dataclass(frozen=True)
class Checkpoints:
    """When the run is saved. A save also happens at the start, between stages and at the end.

    Args:
        every_steps: save after this many steps, > 0; None to go by time.
        every_seconds: without ``every_steps``: save when this long ago and when saving costs less than ``most`` of the time between, > 0.
        most: largest share of the time that saving may take, in (0, 1].
        keep: how many of the latest are kept, >= 1.
    """

    every_steps: int | None = None
    every_seconds: float = 30.0
    most: float = 0.02
    keep: int = 2

    def __post_init__(self) -> None:
        if self.every_steps is not None and self.every_steps <= 0:
            raise ValueError(f"every_steps must be > 0, found {self.every_steps}")
        if self.every_seconds <= 0 or not 0 < self.most <= 1 or self.keep < 1:
            raise ValueError(f"every_seconds must be > 0, most in (0, 1], keep >= 1; found {self.every_seconds}, {self.most}, {self.keep}")


@dataclass(frozen=True)
class Health:
    """What happens when a loss or gradient is not finite: the update is withheld in any case, and what the step used stays spent.

    Args:
        nonfinite: ``skip`` the batch and go on, ``roll_back`` to the last checkpoint's weights past the batch, or ``stop`` the run.
        patience: this many in a row escalate: skip -> roll back -> stop, >= 1.
    """

    nonfinite: Literal["skip", "roll_back", "stop"] = "skip"
    patience: int = 3

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(f"patience must be >= 1, found {self.patience}")


def shape_problems(whole: str, name: str, part: str, parts: Sequence[str], seed: int) -> list[Problem]:
    """Return what is wrong with the names of something that is run in a directory of its name, and with its seed.

    Args:
        whole: what it is, ``recipe``.
        name: how it is called.
        part: what it is made of, ``stage``.
        parts: their names.
        seed: root of its random streams.
    """
    problems = []
    if not name or any(sign in name for sign in "/\\\0") or name.startswith("."):
        problems.append(Problem("name", f"names a directory, so it must not be empty, start with '.' or hold '/', found {name!r}"))
    if not parts:
        problems.append(Problem(f"{part}s", f"a {whole} needs at least one {part}, found none"))
    for twice in sorted({one for one in parts if parts.count(one) > 1}):
        problems.append(Problem(f"{part}s", f"the {part} name {twice!r} is used {parts.count(twice)} times; names must differ"))
    if seed < 0:
        problems.append(Problem("seed", f"must be >= 0, found {seed}"))
    return problems


@dataclass(frozen=True)
class Recipe:
    """A model, a budget and the stages that spend it.

    Args:
        budget: what may be spent, as a ``Budget`` or as text such as ``30m`` or ``500M tokens, 24GiB``.
        model: a model from the catalog, or any ``torch.nn.Module`` (then the recipe lives in Python only).
        stages: one or more, spent in order.
        name: how the run is called; names its directory.
        seed: root of all random streams, >= 0.
        evaluate: what is measured, and when.
        adapter: few trainable parameters on the frozen model; None trains all of it.
        precision: ``auto`` takes bf16 on accelerators that have it and fp32 elsewhere.
        micro_batch: examples a forward pass; None chooses the largest that fits the memory ceiling (or the device).
        checkpoints: when the run is saved.
        health: what happens on a loss that is not finite.
        compile: compile the model with torch; its time goes to the account ``compile``.
        threads: CPU threads; None leaves torch's choice. Kept on resume, since sums depend on it.
        probe_steps: measured steps before the plan, charged to ``probe``; the weights are put back after. 0 plans from a formula.
    """

    budget: Budget
    model: ModelSpec
    stages: tuple[Stage, ...]
    name: str = "run"
    seed: int = 0
    evaluate: Evaluate = field(default_factory=Evaluate)
    adapter: Adapter | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    micro_batch: int | None = None
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    health: Health = field(default_factory=Health)
    compile: bool = False
    threads: int | None = None
    probe_steps: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.budget, str):
            object.__setattr__(self, "budget", Budget.parse(self.budget))
        object.__setattr__(self, "stages", tuple(self.stages))
        problems = [*self._shape_problems(), *self._budget_problems()]
        if problems:
            raise InputError(problems)

    def _shape_problems(self) -> list[Problem]:
        problems = shape_problems("recipe", self.name, "stage", [stage.name for stage in self.stages], self.seed)
        for key in ("micro_batch", "threads"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                problems.append(Problem(key, f"must be > 0, found {value}"))
        if self.probe_steps < 0:
            problems.append(Problem("probe_steps", f"must be >= 0, found {self.probe_steps}"))
        if isinstance(self.adapter, Follows) and any(isinstance(stage.optimizer, Spares) for stage in self.stages):
            why = f"{type(self.adapter).__name__} acts on gradients after each update, and an optimizer of a stage keeps none until then"
            problems.append(Problem("adapter", f"{why}; take another of the two"))
        return problems

    def _budget_problems(self) -> list[Problem]:
        if not set(self.budget.limits) - BOUGHT:
            return [Problem("budget", "limits nothing that is used up, so the run would never end; add a time or a count, such as '30m'")]
        problems = []
        for unit in self.budget.limits:
            spenders = [stage.name for stage in self.stages if unit in ALWAYS_SPENT or unit in stage.source.units]
            if not spenders and self.stages:
                problems.append(
                    Problem("budget", f"limits {unit}, but no stage spends any; its sources spend {', '.join(self._spent_units())}")
                )
        price = self.budget.price
        if price and price.per == "tokens" and "tokens" not in self._spent_units():
            problems.append(Problem("budget", "is priced by the token, but no stage spends tokens; price it by the hour"))
        return problems

    def _spent_units(self) -> list[str]:
        return [*ALWAYS_SPENT, *sorted({unit for stage in self.stages for unit in stage.source.units} - set(ALWAYS_SPENT))]
