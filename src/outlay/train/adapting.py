"""Adapting: what a recipe's adapter does while the run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from outlay.adapters.base import Follows, Moment, Penalises, Primes
from outlay.errors import InputError
from outlay.meter import Meter
from outlay.models.base import seeded
from outlay.planning.text import amount
from outlay.sources.base import ActingStream, Batch, count_units
from outlay.train.assembly import Assembly, StageRun, forward_flops_per_position, positions

if TYPE_CHECKING:
    from outlay.train.preparing import Prepared

#: who pays for what an adapter looks at
ACCOUNT = "adapter"


def check_priming(assembly: Assembly, meter: Meter, known: Prepared) -> None:
    """Refuse an adapter that looks at examples before the first update where there are none, or where the budget cannot bear it.

    Raises:
        InputError: naming the adapter.
    """
    adapter, stream = assembly.recipe.adapter, assembly.streams[0]
    if not isinstance(adapter, Primes) or not adapter.prime_examples:
        return
    who = f"{type(adapter).__name__} looks at {adapter.prime_examples} examples before the first update"
    if isinstance(stream, ActingStream):
        raise InputError(f"{who}, and answers that are yet to be generated are none; take a source of examples")
    taken = _priming_cost(assembly, known, stream.draw(adapter.prime_examples * assembly.context.world))
    short = [unit for unit, value in taken.items() if value >= meter.left(unit)]
    if short:
        parts = ", ".join(f"{amount(unit, taken[unit])} of {amount(unit, max(0.0, meter.left(unit)))} left" for unit in short)
        raise InputError(f"{who}, which takes {parts}; ask for fewer or raise the budget")


def _priming_cost(assembly: Assembly, known: Prepared, batch: Batch) -> dict[str, float]:
    """Return what looking at a batch takes: through frozen weights the backward pass goes as far as when all are trained, 2 N + 4 N."""
    units, flops = count_units(batch), 3.0 * forward_flops_per_position(known.cost, known.batch) * positions(batch)
    return assembly.add_up({**units, "flops": flops})


def prime(assembly: Assembly, meter: Meter, known: Prepared) -> None:
    """Let the adapter look at the first training examples; what that takes is charged to ``adapter``, and the data cursor stays."""
    adapter = assembly.recipe.adapter
    if not isinstance(adapter, Primes) or not adapter.prime_examples:
        return
    objective, module, device = assembly.objectives[0], assembly.plain_module, assembly.context.device
    world = assembly.context.world
    batch = assembly.streams[0].draw(adapter.prime_examples * world)

    def loss(number: int) -> torch.Tensor:
        row = {name: column[number : number + 1].to(device) for name, column in batch.items()}
        value: torch.Tensor = objective(module, row, dict(objective.knobs))[0]
        return value

    with meter.spend(ACCOUNT), seeded(assembly.recipe.seed, "adapter/prime"):
        adapter.prime(module, loss, assembly.recipe.seed)
        if world > 1:
            from accelerate.utils import broadcast

            for tensor in [*module.parameters(), *module.buffers()]:
                broadcast(tensor.data)
    meter.charge(ACCOUNT, **_priming_cost(assembly, known, batch))


def before_update(assembly: Assembly, moment: Moment) -> None:
    """Let the adapter set what depends on where the run stands."""
    adapter = assembly.recipe.adapter
    if isinstance(adapter, Follows):
        adapter.before(assembly.plain_module, moment)


def after_update(assembly: Assembly, stage_run: StageRun, moment: Moment) -> None:
    """Let the adapter act on weights and gradients of an update that was made."""
    adapter = assembly.recipe.adapter
    if isinstance(adapter, Follows):
        with torch.no_grad():
            adapter.after(assembly.plain_module, getattr(stage_run.optimizer, "optimizer", stage_run.optimizer), moment)


def penalty(assembly: Assembly) -> torch.Tensor | None:
    """Return the adapter's own term of the loss, ()."""
    adapter = assembly.recipe.adapter
    return adapter.penalty(assembly.plain_module) if isinstance(adapter, Penalises) else None
