"""Memory: what a run holds at its worst moment, and the largest pieces of a batch that fit under a ceiling."""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from outlay.errors import InputError
from outlay.optim.base import OptimizerSpec, Spares
from outlay.planning.cost import Cost
from outlay.planning.text import size

#: share of a ceiling that is left free, for the allocator's rounding and gaps and for what kernels take inside themselves
HEAD_ROOM = 0.1


@dataclass(frozen=True)
class Memory:
    """Bytes a run holds at its worst moment. The parts sum to ``total``.

    Args:
        weights: parameters and buffers, frozen ones included.
        gradients: of the trained parameters.
        optimizer: its state.
        activations: what forward and backward need on top. Gradients come while activations go and use the same room, so that this is less
            than the activations alone when a batch is one piece.
        total: the sum. Python, its libraries and an accelerator's own context come on top, and so do the gaps of an allocator: see
            ``return_freed_memory`` for a CPU.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    total: int


def memory(module: nn.Module, optimizer_spec: OptimizerSpec, cost: Cost, micro_batch: int, again: bool = False) -> Memory:
    """Return what training holds at its worst moment, when gradients are dropped after every optimizer step.

    Args:
        module: what is trained; only its parameters with ``requires_grad`` have gradients and optimizer state.
        optimizer_spec: says what its state weighs.
        cost: measured, in the precision of the run.
        micro_batch: examples a forward pass, >= 1.
        again: whether a batch takes several such passes, the gradients of the earlier ones being held.

    Raises:
        InputError: when the cost comes from a formula.
    """
    least, all_gradients = floor(module, optimizer_spec), _gradient_bytes(module)
    # where gradients go as they come, a pass holds those that are just being computed, as it does in a further piece of a batch
    spares = isinstance(optimizer_spec, Spares)
    others = cost.peak_bytes(micro_batch, again=True) - all_gradients if spares else cost.peak_bytes(micro_batch, again)
    beyond = max(least.gradients, round(others))
    return Memory(least.weights, least.gradients, least.optimizer, beyond - least.gradients, least.weights + least.optimizer + beyond)


def floor(module: nn.Module, optimizer_spec: OptimizerSpec) -> Memory:
    """Return what training holds whatever the batch: weights and buffers, gradients and optimizer state, without activations."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    by_width = {width: {name: tuple(p.shape) for name, p in trained.items() if p.element_size() == width} for width in _widths(trained)}
    state = sum(optimizer_spec.state_bytes(shapes, width) for width, shapes in by_width.items())
    gradients = _gradient_bytes(module)
    if isinstance(optimizer_spec, Spares):
        gradients = max((optimizer_spec.gradient_bytes(shapes, width) for width, shapes in by_width.items()), default=0)
    weights = _distinct_bytes([*module.parameters(), *module.buffers()])
    return Memory(weights, gradients, state, 0, weights + gradients + state)


def _widths(parameters: Mapping[str, nn.Parameter]) -> set[int]:
    return {p.element_size() for p in parameters.values()}


def _gradient_bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)


def _distinct_bytes(tensors: Iterable[torch.Tensor]) -> int:
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def choose_micro_batch(
    module: nn.Module, optimizer_spec: OptimizerSpec, cost: Cost, batch_size: int, ceiling_bytes: float
) -> tuple[int, str]:
    """Cut a batch into the fewest pieces that fit under the ceiling with a tenth of it left free, and say why.

    Pieces of one size are preferred as long as they are at most twice as many as the fewest; otherwise the last one is smaller.

    Args:
        batch_size: examples an optimizer step on this device, >= 1.
        ceiling_bytes: memory that may be held, see ``available_memory``.

    Returns:
        examples a piece, and the reason as text.

    Raises:
        InputError: when not even one example at a time fits, naming what takes the most and what to change.
    """
    room = ceiling_bytes * (1 - HEAD_ROOM)
    whole = memory(module, optimizer_spec, cost, batch_size)
    if whole.total <= room:
        return batch_size, f"the batch of {batch_size} in one piece needs {size(whole.total)} of {size(ceiling_bytes)}"
    fitting = [piece for piece in range(1, batch_size) if memory(module, optimizer_spec, cost, piece, again=True).total <= room]
    if not fitting:
        one = memory(module, optimizer_spec, cost, 1, again=batch_size > 1)
        raise InputError(_does_not_fit(module, one, cost, ceiling_bytes, batch_size))
    fewest = -(-batch_size // max(fitting))
    equal = next(count for count in range(fewest, batch_size + 1) if batch_size % count == 0)
    pieces = equal if equal <= 2 * fewest else fewest
    piece = -(-batch_size // pieces)
    needed = memory(module, optimizer_spec, cost, piece, again=True).total
    why = f"{pieces} pieces of the batch of {batch_size} need {size(needed)} of {size(ceiling_bytes)}"
    return piece, f"{why}; one piece would need {size(whole.total)}"


def _does_not_fit(module: nn.Module, one: Memory, cost: Cost, ceiling: float, batch: int) -> str:
    from outlay.planning.proposing import proposal  # knows the optimizers, and rests on this file

    taken_by = {"weights": one.weights, "gradients": one.gradients, "optimizer state": one.optimizer, "activations": one.activations}
    largest = [(name, taken) for name, taken in Counter(taken_by).most_common(3) if taken > 0]
    named = ", ".join(f"{name} {size(taken)}" for name, taken in largest)
    fitting = proposal(module, cost, ceiling, batch)
    advice = f"{fitting}; or {_advice(module, one, ceiling)}" if fitting else _advice(module, one, ceiling)
    return (
        f"even one example at a time needs {size(one.total)}, and the ceiling is {size(ceiling)} of which {HEAD_ROOM:.0%} is kept free; "
        f"the most is taken by {named}. A ceiling of {size(one.total / (1 - HEAD_ROOM))} would do; or {advice}"
    )


def _advice(module: nn.Module, one: Memory, ceiling: float) -> str:
    """Return two settings to change, those that free the most first."""
    count = sum(p.numel() for p in module.parameters())
    per_parameter = (one.weights + one.gradients + one.optimizer) / max(1, count)
    fitting = max(0.0, ceiling * (1 - HEAD_ROOM) - one.activations) / max(per_parameter, 1e-9)
    most = f" of at most {int(fitting):,} parameters instead of {count:,}" if fitting >= 1 else ""
    options = [
        (one.optimizer, "take an optimizer that keeps less (optimizer: sgd keeps one number a weight, adamw two)"),
        (one.gradients + one.optimizer, "train few weights with an adapter (adapter: lora)"),
        (one.weights + one.gradients + one.activations // 2, f"choose a smaller model{most} (model)"),
        (one.activations, "shorten the examples (the source's longest, the model's context)"),
    ]
    best = sorted(options, key=lambda option: -option[0])[:2]
    return " or ".join(text for _, text in best)


def available_memory(device: torch.device | str) -> int:
    """Return the bytes that can still be taken on a device: free memory, on a CPU within the limit of its container.

    What this process holds already (the model's weights, once loaded) is not among them.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return min(_machine_memory(Path("/proc/meminfo")), _container_memory(Path("/sys/fs/cgroup")))


def return_freed_memory() -> bool:
    """Make the C library hand every freed tensor above 128 KiB back to the system at once; return whether it took the setting (glibc).

    A process on a CPU otherwise keeps what it has freed in a heap full of gaps: in the runs we measured it grew to 1.3 to 2.0 times what
    tensors held, and with this setting it followed ``memory`` within 2 %. Steps then took 1.2 to 1.7 times as long, since every new tensor
    is cleared by the system; so this is for a run whose memory ceiling leaves no room for a loose heap. It holds until the process ends.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    threshold_option = -3  # M_MMAP_THRESHOLD of malloc.h; a value set by hand is no longer raised by the library
    return bool(set_option(threshold_option, 128 * 1024) == 1)


def _machine_memory(meminfo: Path) -> int:
    """Return what the kernel calls available; all of the machine's memory where it does not say (macOS)."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _container_memory(root: Path) -> int:
    """Return limit minus use of the control group this process sees, version 2 or 1; a huge number when there is no limit."""
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            return max(0, int((root / limit).read_text()) - int((root / used).read_text()))
        except (OSError, ValueError):
            continue
    return 2**63 - 1
