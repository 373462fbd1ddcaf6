"""Cost: what one example of a batch's shape takes in FLOPs and memory, measured by running it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from outlay.errors import InputError
from outlay.objectives.base import Objective
from outlay.packed import padded
from outlay.planning.flops import CountFlops
from outlay.planning.live import LiveBytes, Moment
from outlay.planning.restoring import undisturbed
from outlay.sources.base import IGNORED, Batch

#: a straight line in the number of examples: (bytes at none, bytes more for each)
Line = tuple[float, float]

#: examples of the two measured passes. Not one: a dimension of size 1 lets copies vanish that a real batch makes, and batch norm refuses it
MEASURED = (2, 3)

#: name of a precision -> type that autocast computes in, None for the weights' own
PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Cost:
    """What training on examples of one shape costs.

    Args:
        flops_per_example: of forward and backward, a multiplication and an addition counted as two.
        forward_flops_per_example: of the forward pass alone.
        activation_bytes_per_example: what the forward pass keeps for the backward pass, the batch itself included.
        activation_bytes_fixed: the same, whatever the number of examples (weights cast to a lower precision, for one).
        peak: memory beyond weights and optimizer at the worst moment of forward and backward, gradients included, when none is there at the
            start: max over the lines of ``fixed + per_example * examples``. Empty when it is not known.
        peak_again: the same for a further piece of a batch, when the gradients of the pieces before it are there.
    """

    flops_per_example: float
    forward_flops_per_example: float
    activation_bytes_per_example: float = 0.0
    activation_bytes_fixed: float = 0.0
    peak: tuple[Line, ...] = ()
    peak_again: tuple[Line, ...] = ()

    def peak_bytes(self, examples: int, again: bool = False) -> float:
        """Return the peak beyond weights and optimizer state for a forward and backward pass over so many examples (>= 1).

        Raises:
            InputError: when the cost comes from a formula, which knows nothing of memory.
        """
        lines = self.peak_again if again else self.peak
        if not lines:
            raise InputError("the memory of a model that was never run is not known; measure its cost on a device that holds it")
        return max(fixed + per_example * examples for fixed, per_example in lines)


def measure(module: nn.Module, objective: Objective, batch: Batch, precision: str = "fp32") -> Cost:
    """Run forward and backward on 2 and on 3 examples shaped like the batch's and return what one costs.

    Both passes run the heaviest example of the batch (most labelled positions), repeated, beside its most padded one, so that the memory
    is that of the worst batch of this shape. FLOPs are those of matrix products, convolutions, attention and recurrent layers; attention
    is counted in full, causal or not, and its backward pass with the scores computed again, and padding counts, even where a batch is
    computed without (see ``outlay.packed``): a shape has one cost. The module is left as it was: gradients,
    buffers, modes and random generators are put back. Measure before compiling: a compiled module hides its operations.

    Args:
        module: on the device that it is to be trained on; not wrapped for several processes.
        objective: called with its own defaults for the knobs.
        batch: columns of shape (examples, ...), at least one example.
        precision: ``fp32``, ``bf16`` or ``fp16``, as the run will use it.

    Raises:
        InputError: for an unknown precision, an empty batch, or when no parameter requires a gradient.
    """
    _check(module, batch, precision)
    first, second = (_pass(module, objective, batch, count, precision) for count in MEASURED)
    low, high = MEASURED
    slope = (second.kept - first.kept) / (high - low)
    gradients = float(sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad))
    return Cost(
        flops_per_example=second.flops / high,
        forward_flops_per_example=second.forward_flops / high,
        activation_bytes_per_example=slope,
        activation_bytes_fixed=first.kept - low * slope,
        peak=_lines([other + kept for other, kept, _ in first.moments], [other + kept for other, kept, _ in second.moments], 0.0),
        peak_again=_lines([other + new for other, _, new in first.moments], [other + new for other, _, new in second.moments], gradients),
    )


@dataclass(frozen=True)
class _Pass:
    flops: int
    forward_flops: int
    kept: int
    moments: list[Moment]


def _check(module: nn.Module, batch: Batch, precision: str) -> None:
    if precision not in PRECISIONS:
        raise InputError(f"there is no precision {precision!r}; accepted: {', '.join(PRECISIONS)}")
    if not batch or any(len(column) == 0 for column in batch.values()):
        shapes = {name: tuple(column.shape) for name, column in batch.items()}
        raise InputError(f"a cost is measured on at least one example, found columns of the shapes {shapes}")
    if not any(p.requires_grad for p in module.parameters()):
        raise InputError("no parameter of the model requires a gradient, so there is nothing to train; unfreeze some or add an adapter")


def _pass(module: nn.Module, objective: Objective, batch: Batch, count: int, precision: str) -> _Pass:
    parameters = list(module.parameters())
    rows = torch.tensor(_rows(batch, count))
    device, dtype = parameters[0].device, PRECISIONS[precision]
    with undisturbed(module), padded(), torch.enable_grad(), LiveBytes([*parameters, *module.buffers()]) as live, CountFlops() as flops:
        with _hooks(parameters, live):
            here = {name: column.index_select(0, rows.to(column.device)).to(device) for name, column in batch.items()}
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                loss, _ = objective(module, here, dict(objective.knobs))
            forward, kept = flops.total, live.bytes()
            loss.backward()
        moments = live.moments([p.grad for p in parameters])
    return _Pass(flops.total, forward, kept, moments)


@contextmanager
def _hooks(parameters: Sequence[nn.Parameter], live: LiveBytes) -> Iterator[None]:
    handles = [p.register_post_accumulate_grad_hook(live.accumulated) for p in parameters if p.requires_grad]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rows(batch: Batch, count: int) -> list[int]:
    """Return the heaviest example over and over, and once the most padded, since padding makes attention build a mask."""
    labels, mask = batch.get("labels"), batch.get("attention_mask")
    heavy = int((labels != IGNORED).flatten(1).sum(1).argmax()) if labels is not None and labels.dim() > 1 else 0
    light = int(mask.flatten(1).sum(1).argmin()) if mask is not None and mask.dim() > 1 else heavy
    return [heavy] * (count - 1) + [light]


def _lines(first: Sequence[int], second: Sequence[int], extra: float) -> tuple[Line, ...]:
    """Draw a line through every moment of the two passes and keep those that are ever the highest."""
    low, high = MEASURED
    if len(first) != len(second):
        # the passes took different ways; the two peaks alone are comparable
        first, second = [max(first)], [max(second)]
    slopes = [(b - a) / (high - low) for a, b in zip(first, second, strict=True)]
    return upper_envelope([(a - low * slope + extra, slope) for a, slope in zip(first, slopes, strict=True)])


def upper_envelope(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Return the lines that are the highest somewhere on [1, infinity), by rising slope; at least one line must be given."""
    here = max(lines, key=lambda line: (line[0] + line[1], line[1]))
    kept = [here]
    while steeper := [line for line in lines if line[1] > here[1]]:
        start = here
        here = min(steeper, key=lambda line: ((start[0] - line[0]) / (line[1] - start[1]), -line[1]))
        kept.append(here)
    return tuple(kept)


def formula_cost(parameters: int, trainable: int, tokens_per_example: float) -> Cost:
    """Return the rule of thumb for a dense model that cannot be run: 2 N FLOPs a token forward, 2 N for the gradients of what flows through
    it and 2 T for those of its trained weights; 6 N when all are trained (2001.08361, section 2.1). Attention scores are left out.

    Args:
        parameters: N, of all weights that take part in products, > 0.
        trainable: T, how many of them are trained, in [0, N].
        tokens_per_example: positions an example, 1 for a model that reads no text, > 0.

    Raises:
        InputError: when a number is out of its range.
    """
    if parameters <= 0 or tokens_per_example <= 0:
        raise InputError(f"parameters and tokens_per_example must be > 0, found {parameters} and {tokens_per_example}")
    if not 0 <= trainable <= parameters:
        raise InputError(f"trainable must lie in [0, {parameters}], found {trainable}")
    forward = 2.0 * parameters * tokens_per_example
    return Cost(2.0 * forward + 2.0 * trainable * tokens_per_example, forward)


def shape_key(batch: Batch) -> str:
    """Return the batch's columns and their shapes without the number of examples: ``input_ids 64, labels 64``."""
    return ", ".join(f"{name} {'x'.join(str(size) for size in batch[name].shape[1:]) or '1'}" for name in sorted(batch))


class Costs:
    """Costs by shape, each measured when the shape is first seen.

    Args:
        module: what is trained.
        objective: what it is trained on.
        precision: ``fp32``, ``bf16`` or ``fp16``.
    """

    def __init__(self, module: nn.Module, objective: Objective, precision: str = "fp32") -> None:
        self._module, self._objective, self._precision = module, objective, precision
        self._known: dict[str, Cost] = {}
        #: FLOPs that the last measurement took itself, for whoever keeps the books
        self.spent_on_last = 0.0

    def __len__(self) -> int:
        return len(self._known)

    def of(self, batch: Batch) -> Cost:
        """Return what an example of the batch's shape costs."""
        key = shape_key(batch)
        if key not in self._known:
            self._known[key] = measure(self._module, self._objective, batch, self._precision)
            self.spent_on_last = self._known[key].flops_per_example * sum(MEASURED)
        return self._known[key]

    def state_dict(self) -> dict[str, Any]:
        """Return what has been measured as plain values, so that a resumed run counts alike and measures nothing again."""
        return {key: _plain(cost) for key, cost in self._known.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was measured."""
        self._known = {key: _cost(plain) for key, plain in state.items()}


def _plain(cost: Cost) -> dict[str, Any]:
    plain = dataclasses.asdict(cost)
    return plain | {name: [list(line) for line in plain[name]] for name in ("peak", "peak_again")}


def _cost(plain: Mapping[str, Any]) -> Cost:
    lines = {name: tuple((float(fixed), float(each)) for fixed, each in plain[name]) for name in ("peak", "peak_again")}
    return Cost(**{**plain, **lines})
