"""Assembly: a recipe made real, i.e. model, exams, stages and books, and the snapshot of all that changes."""

from __future__ import annotations

import copy
import math
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from outlay import __version__
from outlay.context import Context
from outlay.controllers.base import Brancher, Controller
from outlay.errors import InputError
from outlay.evaluations.base import Sitting
from outlay.knob import Knob
from outlay.meter import Meter
from outlay.models.base import Loaded
from outlay.objectives.base import Objective, Prepares, Thins
from outlay.optim.base import Spares
from outlay.planning.cost import Cost, Costs
from outlay.planning.memory import floor
from outlay.planning.proposing import proposal
from outlay.planning.text import size
from outlay.sources.base import ActingStream, Batch, Stream, Watches
from outlay.train.companions import Frozen, attach, belongs, bound, turn_to
from outlay.train.measuring import Measuring
from outlay.train.pace import Tail
from outlay.train.recipe import Recipe, Stage
from outlay.train.underway import Underway


@dataclass
class Assembly:
    """Everything that a run works with, built from its recipe.

    Args:
        recipe: what was asked for.
        loaded: model, tokenizer and the writer of final weights, adapter included.
        accelerator: devices, mixed precision and processes.
        module: the model as accelerate prepared it.
        context: seed, tokenizer, device, rank.
        sittings: the exams, opened.
        streams: what every stage reads, opened.
        costs: what every stage's examples cost, by shape.
        precision: the precision that was chosen.
        objectives: every stage's, bound to what they compare with.
        frozen: the model as it was when each stage began, for objectives that ask.
    """

    recipe: Recipe
    loaded: Loaded
    accelerator: Accelerator
    module: nn.Module
    context: Context
    sittings: list[Sitting]
    streams: list[Stream]
    costs: list[Costs]
    precision: str
    objectives: list[Objective]
    frozen: list[Frozen]

    @cached_property
    def plain_module(self) -> nn.Module:
        """The model without accelerate's wrapping."""
        module: nn.Module = self.accelerator.unwrap_model(self.module, keep_torch_compile=False)
        return module

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return the trainable parameters, by name, shared ones once."""
        return [(name, p) for name, p in self.plain_module.named_parameters() if p.requires_grad]

    def agree(self, values: list[float]) -> list[float]:
        """Return the first process's values on every process."""
        if self.accelerator.num_processes == 1:
            return values
        from accelerate.utils import broadcast

        together = torch.tensor(values, dtype=torch.float64, device=self._wire())
        return [float(value) for value in broadcast(together)]

    def add_up(self, amounts: Mapping[str, float]) -> dict[str, float]:
        """Return every amount summed over the processes."""
        if self.accelerator.num_processes == 1:
            return dict(amounts)
        together = torch.tensor(list(amounts.values()), dtype=torch.float64, device=self._wire())
        summed = self.accelerator.reduce(together, reduction="sum")
        return {unit: float(value) for unit, value in zip(amounts, summed, strict=True)}

    def exchange(self, sent: bytes) -> list[bytes]:
        """Return every process's bytes, by rank; all send as many."""
        if self.accelerator.num_processes == 1:
            return [sent]
        from accelerate.utils import gather

        mine = torch.tensor(list(sent), dtype=torch.uint8, device=self._wire())
        return [bytes(row.tolist()) for row in gather(mine).view(self.accelerator.num_processes, len(sent))]

    def first_batch(self, index: int) -> Batch:
        """Return this process's part of a stage's first batch, prepared; the cursor stays. For a stream that acts it is made up."""
        stream, count, objective = self.streams[index], self.recipe.stages[index].examples(0.0), self.objectives[index]
        batch = stream.outline(count) if isinstance(stream, ActingStream) else stream.draw(count)
        if isinstance(objective, Prepares):
            turn_to(self.plain_module, index)
            here = {name: column.to(self.context.device) for name, column in batch.items()}
            with torch.no_grad():
                made = objective.prepare(self.plain_module, here, dict(objective.knobs))
            batch = {name: column.cpu() for name, column in made.items()}
        return objective.thin(batch) if isinstance(objective, Thins) else batch

    def largest_batch(self, index: int) -> int:
        """Return how many examples this process's part of a stage's largest batch holds."""
        stage = self.recipe.stages[index]
        return -(-max(stage.examples(percent / 100) for percent in range(101)) // self.context.world)

    def cost_of(self, index: int, batch: Batch, meter: Meter) -> Cost:
        """Return what an example of the batch costs in a stage; a shape not seen before is measured, and charged to ``plan``."""
        turn_to(self.plain_module, index)
        costs = self.costs[index]
        known = len(costs)
        with meter.spend("plan"):
            cost = costs.of(batch)
        # one process may see a new shape where the others do not, and all must come to add up
        measured = self.add_up({"flops": costs.spent_on_last if len(costs) > known else 0.0})["flops"]
        if measured:
            meter.charge("plan", flops=measured)
        return cost

    def _wire(self) -> torch.device:
        return self.accelerator.device


@dataclass
class StageRun:
    """A stage being spent: its stream, optimizer and knobs, and what of them changes."""

    stage: Stage
    index: int
    stream: Stream
    objective: Objective
    optimizer: torch.optim.Optimizer
    knobs: dict[str, Knob]
    micro_batch: int
    starts: dict[str, float]
    next_evaluation: float | None = None
    #: step after which the model was evaluated last; one evaluation a step is enough, however much of the budget it took
    evaluated: int = -1
    bad_in_a_row: int = 0
    rolled_back: int = 0
    first_step: int = 0
    losses: list[float] = field(default_factory=list)
    measuring: Measuring = field(default_factory=Measuring)
    branch: Underway | None = None
    #: FLOPs of training on an example of the largest shape; known once the stage has been prepared
    flops_per_example: float = 0.0
    #: what was seen of each answer that was generated last, for records
    detail: dict[str, torch.Tensor] = field(default_factory=dict)
    tail: Tail = field(default_factory=Tail)
    #: examples of an update -> the most that it can take
    largest: dict[int, dict[str, float]] = field(default_factory=dict)

    # the knobs are the stage's for good, and finding what is in them takes as long as a small step
    @cached_property
    def controllers(self) -> list[Controller]:
        """Every controller in the stage's knobs, by knob."""
        return [part for name in sorted(self.knobs) for part in self.knobs[name].controllers()]

    @cached_property
    def branchers(self) -> dict[str, Brancher]:
        """The controllers that may ask for branches, by knob."""
        return {name: knob.schedule for name, knob in sorted(self.knobs.items()) if isinstance(knob.schedule, Brancher)}


def assemble(recipe: Recipe, threads: int | None = None) -> Assembly:
    """Build the model, check what can be checked, and open everything.

    Raises:
        InputError: when the model is over the ``params`` ceiling or an exam cannot be opened.
        MissingExtra: when an optional package is needed.
    """
    if threads or recipe.threads:
        torch.set_num_threads(threads or recipe.threads or 1)
    loaded = Loaded(recipe.model) if isinstance(recipe.model, nn.Module) else recipe.model.build(recipe.seed)
    if recipe.adapter is not None:
        loaded.module = recipe.adapter.attach(loaded.module, recipe.seed)
    for index, stage in enumerate(recipe.stages):
        attach(loaded.module, stage.objective, index, recipe.seed)
    check_ceilings(recipe, loaded.module)
    # torchrun tells the rank before any device is taken, so that wrong data is found first
    reading = Context(recipe.seed, loaded.tokenizer, "cpu", int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    streams = [stage.source.open(reading) for stage in recipe.stages]
    for stream in streams:
        if not isinstance(stream, ActingStream):
            stream.draw(reading.world * getattr(stream, "rows_together", 1))
    precision = _choose_precision(recipe)
    AcceleratorState._reset_state()  # a run before this one in the same process may have had another precision
    accelerator = Accelerator(mixed_precision={"fp32": "no"}.get(precision, precision), gradient_accumulation_steps=1)
    context = replace(reading, device=accelerator.device)
    sittings = [exam.open(context, recipe.stages[-1].source) for exam in recipe.evaluate.exams]
    module = accelerator.prepare_model(loaded.module)
    plain = accelerator.unwrap_model(module)
    frozen = [Frozen(plain) for _ in recipe.stages]
    objectives = [bound(stage.objective, copied) for stage, copied in zip(recipe.stages, frozen, strict=True)]
    costs = [Costs(plain, objective, precision) for objective in objectives]
    return Assembly(recipe, loaded, accelerator, module, context, sittings, streams, costs, precision, objectives, frozen)


def check_ceilings(recipe: Recipe, module: nn.Module) -> None:
    """Refuse a model with more parameters than the budget's ceiling, one with none to train, or one that cannot fit whatever the batch.

    Raises:
        InputError: naming the ceiling and what is over it.
    """
    count, trainable = count_parameters(module)
    ceilings = recipe.budget.ceilings
    if "params" in ceilings and count > ceilings["params"]:
        raise InputError(
            f"the model has {count:,} parameters and the budget's ceiling is {int(ceilings['params']):,}; choose a smaller model or raise it"
        )
    if trainable == 0:
        raise InputError("no parameter of the model requires a gradient, so there is nothing to train; unfreeze some or add an adapter")
    ceiling = ceilings.get("memory", math.inf)
    for stage in recipe.stages:
        least = floor(module, stage.optimizer)
        if least.total > ceiling:
            parts = f"weights {size(least.weights)}, gradients {size(least.gradients)}, optimizer state {size(least.optimizer)}"
            fitting = proposal(module, None, ceiling)
            advice = f"{fitting}; or choose" if fitting else "choose"
            raise InputError(
                f"even one example cannot fit: {parts} take {size(least.total)} and the memory ceiling is {size(ceiling)}; "
                f"{advice} a smaller model, an adapter (adapter: lora) or an optimizer that keeps less (optimizer: sgd)"
            )


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Return how many parameters a module has, and how many of them are trained."""
    parameters = list(module.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def _choose_precision(recipe: Recipe) -> str:
    if recipe.precision != "auto":
        return recipe.precision
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"


def open_stage(assembly: Assembly, index: int, starts: dict[str, float], micro_batch: int) -> StageRun:
    """Build a stage's optimizer; knobs are copied, so that a recipe can be run twice."""
    stage = assembly.recipe.stages[index]
    turn_to(assembly.plain_module, index)
    trained = [(name, p) for name, p in assembly.parameters() if belongs(name, index)]
    optimizer = assembly.accelerator.prepare_optimizer(stage.optimizer.build(trained, assembly.recipe.seed))
    knobs = {**{name: Knob(value) for name, value in stage.optimizer.knobs.items()}, **copy.deepcopy(stage.knobs)}
    every = assembly.recipe.evaluate.every if assembly.sittings else None
    due = 0.0 if every is not None and index > 0 else every  # where one stage ends, the next one's first evaluation tells what it left
    return StageRun(
        stage, index, assembly.streams[index], assembly.objectives[index], optimizer, knobs, micro_batch, starts, due,
        measuring=Measuring(stage.measured()),
    )  # fmt: skip


def observe(stage_run: StageRun, record: Any) -> None:
    """Let every controller of the stage read a record, and the stream where it watches; the controller that asked for a branch is told of it when
    it has ended."""
    asked = stage_run.knobs[stage_run.branch.knob].schedule if stage_run.branch is not None else None
    for part in stage_run.controllers:
        if part is not asked:
            part.observe(record)
    if isinstance(stage_run.stream, Watches):
        stage_run.stream.observe(record)


def training_flops(stage: Stage, cost: Cost) -> float:
    """Return the FLOPs of training on an example of a stage: of a forward and backward pass, or of the forward passes that its optimizer takes."""
    passes = stage.optimizer.forward_passes if isinstance(stage.optimizer, Spares) else 0
    return passes * cost.forward_flops_per_example if passes else cost.flops_per_example


# ---- evaluation -----------------------------------------------------------------------------------------------------------------------


def forward_flops_per_position(cost: Cost, batch: Batch) -> float:
    """Return the FLOPs of a forward pass per position of a batch's width (per example where there is no text)."""
    width = batch["input_ids"].shape[1] if "input_ids" in batch else 1
    return cost.forward_flops_per_example / width


def positions(batch: Batch) -> float:
    """Return how many positions a forward pass over the batch computes, padding included."""
    return float(batch["input_ids"].numel()) if "input_ids" in batch else float(len(next(iter(batch.values()))))


def evaluate(
    assembly: Assembly, meter: Meter, flops_per_position: float, charge_tokens: Callable[[Batch], dict[str, float]]
) -> dict[str, float]:
    """Run every exam on the model and charge what it uses to the account ``eval``; the model is left in training mode."""
    module = assembly.plain_module
    metrics: dict[str, float] = {}

    def charge(batch: Batch, new_tokens: float) -> None:
        amounts = charge_tokens(batch) | {"flops": flops_per_position * positions(batch)}
        meter.charge("eval", **amounts, **({"new_tokens": new_tokens} if new_tokens else {}))

    module.eval()
    try:
        with torch.no_grad():
            for sitting in assembly.sittings:
                metrics |= sitting.run(module, charge)
    finally:
        module.train()
    return metrics


def evaluation_bound(assembly: Assembly, flops_per_position: float) -> dict[str, float]:
    """Return the most that one evaluation can charge, by unit."""
    total: dict[str, float] = {}
    for sitting in assembly.sittings:
        for unit, amount in sitting.bound().items():
            name, value = ("flops", amount * flops_per_position) if unit == "positions" else (unit, amount)
            total[name] = total.get(name, 0.0) + value
    return total


@cache
def versions() -> dict[str, str]:
    """Return the versions of what the numbers of a run depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "outlay": __version__}
    for package in ("torch", "transformers", "accelerate", "peft", "datasets", "reasoning-gym", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
