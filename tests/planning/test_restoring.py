"""A measurement leaves no trace."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from outlay.planning.restoring import undisturbed


class Moody(nn.Module):
    """Changes everything it can while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("missing", None)
        self.register_buffer("expanded", torch.ones(1, 1).expand(4, 4), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.replaced = self.replaced + 1
        random.random()
        np.random.rand()
        return self.norm(self.linear(inputs) * torch.rand(1)).sum() + self.expanded.sum()


def photograph(module: Moody) -> dict[str, object]:
    return {
        "weights": {name: value.clone() for name, value in module.state_dict().items()},
        "objects": [id(buffer) for buffer in module.buffers()],
        "modes": [part.training for part in module.modules()],
        "gradients": [None if p.grad is None else (id(p.grad), p.grad.clone().tolist()) for p in module.parameters()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
    }


def same(one: dict[str, object], other: dict[str, object]) -> None:
    weights, others = one.pop("weights"), other.pop("weights")
    assert isinstance(weights, dict) and isinstance(others, dict)
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert one == other


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back(fails: bool) -> None:
    module = Moody()
    module.eval()
    module.norm.train()
    module.linear.weight.grad = torch.full((3, 3), 7.0)
    before = photograph(module)

    def disturb() -> None:
        with undisturbed(module):
            assert module.training and module.linear.training
            assert all(p.grad is None for p in module.parameters())
            module(torch.randn(5, 3)).backward()
            assert module.norm.running_mean is not None and module.norm.running_mean.abs().sum() > 0
            if fails:
                raise KeyError("in the middle")

    if fails:
        with pytest.raises(KeyError):
            disturb()
    else:
        disturb()
    same(before, photograph(module))
