"""Step time of every optimizer against torch's fused AdamW, and against the peer that implements the same method, side by side in one process.

    python bench/optimizer_speed.py [--steps 200] [--hidden 192]

A Llama of about 3M parameters on this machine's processor. The optimizers take turns of ten steps on gradients of a real batch, for ``--steps`` steps
each, so that a refresh every 200 steps is paid once; ``whole`` is (forward and backward + the optimizer's mean step) / (the same with AdamW),
``alone`` the ratio of the optimizers' mean steps, ``peer`` ours / pytorch_optimizer's. Means, since a refresh is rare and must count; where a machine is
busy, the ratio of medians of turns stands beside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytorch_optimizer
import torch
from torch import nn

from outlay.formats import Bf16
from outlay.models import Transformer
from outlay.optim import (
    Adafactor,
    AdamW,
    AdamW8bit,
    AdamWBf16,
    Apollo,
    ApolloMini,
    DctAdamW,
    Fira,
    Frugal,
    GaLore,
    Lamb,
    Lion,
    NaturalGaLore,
    OptimizerSpec,
    Sgd,
    SignSgd,
)
from outlay.projectors import Columns, Gaussian, Orthonormal, RandomisedSvd

LENGTH, BATCH, TURN = 128, 16, 10
#: needs a decomposition at a refresh
DECOMPOSED = ("galore", "natural_galore", "fira")


@dataclass
class Entrant:
    """An optimizer on a model of its own, and how long its turns took."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    turns: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Seconds a step, over all turns."""
        return statistics.fmean(self.turns) / TURN


def network(hidden: int) -> nn.Module:
    """Return the model."""
    return Transformer(hidden=hidden, layers=6, heads=4, context=LENGTH, tokenizer="bytes").build(0).module


def gradients(module: nn.Module) -> tuple[list[torch.Tensor], float]:
    """Return a real gradient of every parameter, and the median seconds of a forward and backward pass."""
    ids = torch.randint(5, 250, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    times = []
    for _ in range(7):
        module.zero_grad(set_to_none=True)
        before = time.perf_counter()
        module(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
        times.append(time.perf_counter() - before)
    return [p.grad for p in module.parameters() if p.grad is not None], statistics.median(times)


def specs(rank: int) -> dict[str, OptimizerSpec]:
    """Return what is timed; subspaces are chosen anew every 200 steps, as in the papers, where the method does not say otherwise."""
    return {
        "adamw": AdamW(), "adamw, foreach": AdamW(fused=False), "adamw_8bit": AdamW8bit(), "adamw_bf16": AdamWBf16(), "adafactor": Adafactor(),
        "lion": Lion(), "lamb": Lamb(), "sgd": Sgd(), "signsgd": SignSgd(), "galore": GaLore(rank),
        "galore, randomised": GaLore(projector=RandomisedSvd(rank)), "galore, orthonormal": GaLore(projector=Orthonormal(rank)),
        "natural_galore": NaturalGaLore(rank), "fira": Fira(rank), "apollo": Apollo(rank),
        "apollo, stored": Apollo(projector=Gaussian(rank, stored=True)), "apollo_mini": ApolloMini(), "frugal": Frugal(),
        "frugal, columns": Frugal(projector=Columns(0.25)), "dct_adamw": DctAdamW(rank), "dct_adamw, every 200": DctAdamW(rank, period=200),
        "galore, orthonormal, bf16 states": GaLore(projector=Orthonormal(rank), states=Bf16()),
    }  # fmt: skip


def peers(rank: int) -> dict[str, Callable[[nn.Module], torch.optim.Optimizer]]:
    """Return pytorch_optimizer's where it implements the same."""

    def grouped(module: nn.Module, **fields: object) -> list[dict[str, object]]:
        matrices = [p for name, p in module.named_parameters() if p.dim() == 2 and "embed" not in name]
        others = [p for name, p in module.named_parameters() if p.dim() != 2 or "embed" in name]
        return [
            {"params": matrices, "rank": rank, "update_proj_gap": 200, "scale": 1.0, "projection_type": "std", **fields},
            {"params": others},
        ]

    return {
        "galore": lambda module: pytorch_optimizer.GaLore(grouped(module), lr=1e-4),
        "fira": lambda module: pytorch_optimizer.Fira(grouped(module), lr=1e-4),
        "apollo": lambda module: pytorch_optimizer.APOLLO(grouped(module, projection_type="random", scale_type="channel"), lr=1e-4),
        "apollo_mini": lambda module: pytorch_optimizer.APOLLO(
            grouped(module, rank=1, projection_type="random", scale_type="tensor"), lr=1e-4
        ),
        "lamb": lambda module: pytorch_optimizer.Lamb(module.parameters(), lr=1e-4),
        "adafactor": lambda module: pytorch_optimizer.AdaFactor(module.parameters(), lr=1e-4, relative_step=False, scale_parameter=False),
        "lion": lambda module: pytorch_optimizer.Lion(module.parameters(), lr=1e-4),
    }


def race(entrants: dict[str, Entrant], seen: list[torch.Tensor], steps: int) -> None:
    """Let all take turns until everyone has taken so many steps; a first step of each is not timed, but the refresh it brings is, in a turn of its own."""
    for entrant in entrants.values():
        for parameter, gradient in zip(entrant.module.parameters(), seen, strict=True):
            parameter.grad = gradient.clone()
    for turn in range(steps // TURN):
        order = list(entrants.values())
        for entrant in order if turn % 2 == 0 else reversed(order):
            before = time.perf_counter()
            for _ in range(TURN):
                entrant.optimizer.step()
            entrant.turns.append(time.perf_counter() - before)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--hidden", type=int, default=192)
    told = parser.parse_args()
    rank = told.hidden // 4
    module = network(told.hidden)
    seen, passes = gradients(module)
    entrants: dict[str, Entrant] = {}
    for name, spec in specs(rank).items():
        mine = network(told.hidden)
        optimizer = spec.build(list(mine.named_parameters()))
        for group in optimizer.param_groups:
            group["lr"] = 1e-6
        entrants[name] = Entrant(mine, optimizer)
    for name, build in peers(rank).items():
        mine = network(told.hidden)
        entrants[f"peer's {name}"] = Entrant(mine, build(mine))
    race(entrants, seen, told.steps)
    base = entrants["adamw"]
    count = sum(p.numel() for p in module.parameters())
    print(f"{count:,} parameters, {torch.get_num_threads()} threads; a forward and backward pass of {BATCH} x {LENGTH} takes {passes * 1e3:.0f} ms, "
          f"AdamW's step {base.mean * 1e3:.2f} ms; {told.steps} steps each\n")  # fmt: skip
    print("| optimizer | whole | alone | alone, medians | peer | |\n|---|---|---|---|---|---|")
    for name in specs(rank):
        one = entrants[name]
        whole = (passes + one.mean) / (passes + base.mean)
        medians = statistics.median(one.turns) / statistics.median(base.turns)
        other = entrants.get(f"peer's {name}")
        beside = f"{one.mean / other.mean:.2f}" if other is not None else ""
        met = "" if name in DECOMPOSED or name == "adamw" else "met" if whole <= 1.15 else "MISSED"
        print(f"| {name} | {whole:.3f} | {one.mean / base.mean:.2f} | {medians:.2f} | {beside} | {met} |")


if __name__ == "__main__":
    main()
