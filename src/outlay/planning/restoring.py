"""Restoring: run a module for a measurement and leave no trace of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Inside the block the module is in training mode without gradients; after it, gradients, buffers, modes and every global random
    generator (torch's, of each device the module is on; numpy's; Python's) are what they were, also when the block fails."""
    gradients = [(p, p.grad) for p in module.parameters()]
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(part, name, b, b.detach().clone()) for part in module.modules() for name, b in part.named_buffers(recurse=False)]
    devices = sorted({p.device.index or 0 for p in module.parameters() if p.device.type == "cuda"})
    python, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        try:
            module.train()
            for parameter, _ in gradients:
                parameter.grad = None
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpys)
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for part, training in modes:
                part.training = training
            with torch.no_grad():
                for part, name, buffer, before in buffers:
                    setattr(part, name, buffer)
                    # only what changed: an expanded buffer cannot be written to
                    if not torch.equal(buffer, before):
                        buffer.copy_(before)
