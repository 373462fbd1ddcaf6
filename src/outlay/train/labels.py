"""Labels: demonstrations are paid for once, when the first stage that reads them begins."""

from __future__ import annotations

from outlay.errors import InputError
from outlay.meter import Meter
from outlay.train.assembly import Assembly


def labels_of(assembly: Assembly, index: int) -> int:
    """Return how many labelled examples a stage reads that no stage before it has read."""
    sources = [stage.source for stage in assembly.recipe.stages]
    if sources[index] in sources[:index]:
        return 0
    return int(getattr(assembly.streams[index], "labels", 0))


def check_labels(assembly: Assembly) -> None:
    """Refuse sources that hold more labelled examples than the budget buys.

    Raises:
        InputError: saying how many there are.
    """
    limit = assembly.recipe.budget.limits.get("labels")
    each = [labels_of(assembly, index) for index in range(len(assembly.recipe.stages))]
    if limit is not None and sum(each) > limit:
        named = ", ".join(f"{stage.name} {count}" for stage, count in zip(assembly.recipe.stages, each, strict=True) if count)
        raise InputError(
            f"the stages read {sum(each)} labelled examples ({named}) and the budget has {limit:g} labels; lower examples, or raise it"
        )


def buy_labels(assembly: Assembly, meter: Meter, index: int) -> None:
    """Charge what a stage's demonstrations cost."""
    count = labels_of(assembly, index)
    if count:
        meter.charge("data", labels=float(count))
