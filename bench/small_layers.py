"""Layers to pre-train with on a small language at equal steps: what each of them loses against dense layers.

    python bench/small_layers.py [--seeds 3] [--steps 250]

A model of two blocks reads text in which two tokens say what may follow; the setting is that of the tests (tests/adapters/small_language.py). One
learning rate for all, so this says what starts slowly and what helps whom, not which is best: for that see bench/memory.py.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from outlay.adapters import LowRank, SLTrain, SparseSpectral, Structured
from outlay.adapters.base import Adapter

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "adapters"))
from small_language import INNER, LARGER, loss_after, trained

RANK, RATE = 4, 3e-3


@dataclass(frozen=True)
class Dense:
    """The model as it is."""

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return it."""
        return module

    def merge(self, module: nn.Module) -> nn.Module:
        """Return it."""
        return module


def entrants(steps: int) -> dict[str, Adapter]:
    """Return what is compared."""
    return {
        "dense": Dense(),
        "`structured`, guide over the first half": Structured(rank=RANK, guided=0.5, targets=INNER),
        "`sparse_spectral`, period 50, warmup 5": SparseSpectral(rank=RANK, period=50, warmup=5),
        "`structured`, the same with `cheap_guide`": Structured(rank=RANK, guided=0.5, cheap_guide=True, targets=INNER),
        "`structured`, no guide": Structured(rank=RANK, guided=0.0, targets=INNER),
        "`low_rank`, alpha 4, no restarts": LowRank(rank=RANK, alpha=4.0, period=10**6),
        f"`low_rank`, alpha 4, period {steps // 4}": LowRank(rank=RANK, alpha=4.0, period=steps // 4),
        "`sltrain`, alpha 4": SLTrain(rank=RANK, alpha=4.0),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=250)
    told = parser.parse_args()
    torch.set_num_threads(1)
    print("| layers | trained numbers | loss |\n|---|---|---|")
    for name, spec in entrants(told.steps).items():
        losses = [loss_after(spec, told.steps, RATE, seed) for seed in range(told.seeds)]
        count = trained(spec.attach(LARGER.build(0).module, 0))
        print(f"| {name} | {count:,} | {statistics.fmean(losses):.3f} ({min(losses):.3f} to {max(losses):.3f}) |", flush=True)


if __name__ == "__main__":
    main()
