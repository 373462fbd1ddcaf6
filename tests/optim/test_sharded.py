"""Sharded parameters (FSDP2): two processes that each hold half of every tensor take the steps that one process takes."""

from __future__ import annotations

import dataclasses
import json
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import nn
from torch.nn import functional

from outlay import inner_rules, projectors, residuals
from outlay.optim import METHODS, OptimizerSpec, Subspace, follow
from outlay.optim.sharded import gathered

WORLD, STEPS, CLIP = 2, 5, 0.5
#: what cannot be sharded, and says so
REFUSED = {"prodigy", "d_adaptation", "per_layer", "zeroth_order"}
#: what keeps moments in few bits: scales and random numbers are those of a process's rows, not of the tensor
ROUNDED = {"adamw_8bit", "adamw_bf16"}


class Model(nn.Module):
    """Tensors that do not divide by two: 7, 5 and 3 rows, and one row or one number, of which the second process has nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.inner = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.GELU(), nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 8))
        self.last = nn.Linear(8, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(functional.gelu(self.inner(self.embed(ids)).mean(1)))
        return out


def model() -> Model:
    draw, made = torch.Generator().manual_seed(1), Model().double()
    for parameter in made.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    return made


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(100 + step)
    return torch.randint(7, (8, 5), generator=draw), torch.randn(8, 1, generator=draw, dtype=torch.float64)


def drive(module: nn.Module, optimizer: torch.optim.Optimizer, rank: int | None, first: int, last: int) -> list[float]:
    """Take steps on the whole batch, or on a process's half of it; return the gradients' norms."""
    norms = []
    for step in range(first, last):
        ids, wanted = batch(step)
        rows = slice(None) if rank is None else slice(4 * rank, 4 * rank + 4)
        (module(ids[rows]) - wanted[rows]).square().mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        norms.append(float(gathered(norm)))
        optimizer.step()
        optimizer.zero_grad()
    return norms


def built(spec: OptimizerSpec, named: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    optimizer = spec.build(list(named), seed=3)
    for knob, value in (("lr", 0.05), ("weight_decay", 0.1)):
        if knob in spec.knobs and spec.knobs["lr"] != 1.0:
            follow(optimizer, knob, value)
    return optimizer


def small(cls: type, **more: Any) -> Any:
    """Return a part with a small rank, half the density and a short period, where it has them."""
    wanted = {"rank": 2, "density": 0.5, "period": 2, **more}
    return cls(**{field.name: wanted[field.name] for field in dataclasses.fields(cls) if field.name in wanted})


def specs() -> dict[str, OptimizerSpec]:
    """Return every method, and the subspace optimizer with every part that it takes."""
    cases: dict[str, OptimizerSpec] = {name: small(cls) for name, cls in METHODS.items()}
    parts = {"projector": projectors.METHODS, "residual": residuals.METHODS, "inner": inner_rules.METHODS, "full": inner_rules.METHODS}
    usual = (projectors.Svd, residuals.Drop, inner_rules.Adam)
    for field, methods in parts.items():
        for name, cls in methods.items():
            if field == "projector" or cls not in usual:
                chosen = {"projector": small(projectors.Svd), "moments": "reset", field: small(cls)}
                cases[f"{field}={name}"] = Subspace(period=2, **chosen)
    cases["rotating"] = Subspace(small(projectors.Svd), period=2, moments="rotate")
    return cases


def sharded(shape: tuple[int, ...] = (WORLD,)) -> Model:
    """Return the model in shards; with two numbers, so many replicas of so many shards."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    module, mesh = model(), init_device_mesh("cpu", shape, mesh_dim_names=("replicas", "shards")[-len(shape) :])
    for part in (module.inner, module):
        fully_shard(part, mesh=mesh)
    return module


def whole(module: nn.Module) -> list[torch.Tensor]:
    return [gathered(p.detach()).clone() for p in module.parameters()]


def farthest(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    return max(float((p - q).abs().max()) for p, q in zip(one, other, strict=True))


class Pieces(torch.optim.Optimizer):
    """One optimizer for each process's rows of every tensor, all in one process."""

    def __init__(self, spec: OptimizerSpec, module: nn.Module) -> None:
        named = list(module.named_parameters())
        super().__init__([p for _, p in named], {})
        self.rows: list[list[tuple[nn.Parameter, nn.Parameter, int]]] = [[] for _ in range(WORLD)]
        for _, whole in named:
            for rank, piece in enumerate(whole.data.chunk(WORLD)):
                self.rows[rank].append((nn.Parameter(piece), whole, rank))
        names = {whole: name for name, whole in named}
        self.parts = [built(spec, [(names[whole], piece) for piece, whole, _ in held]) for held in self.rows]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for held, optimizer in zip(self.rows, self.parts, strict=True):
            for piece, whole, rank in held:
                assert whole.grad is not None
                piece.grad = whole.grad.chunk(WORLD)[rank]
            optimizer.step()


def outcome(name: str, spec: OptimizerSpec, rank: int, folder: Path) -> dict[str, Any]:
    """Return how far the sharded run is from the one in one process and, for methods under their own names, whether a saved state goes on as if
    nothing had been."""
    module = sharded()
    optimizer = built(spec, module.named_parameters())
    norms = drive(module, optimizer, rank, 0, STEPS - 2)
    told: dict[str, Any] = {}
    if name in METHODS:
        torch.save(optimizer.state_dict(), folder / f"{rank}.pt")
        twin = sharded()
        twin.load_state_dict({key: tensor.clone() for key, tensor in module.state_dict().items()})
        resumed = built(spec, twin.named_parameters())
        resumed.load_state_dict(torch.load(folder / f"{rank}.pt", weights_only=True))
        drive(twin, resumed, rank, STEPS - 2, STEPS)
    drive(module, optimizer, rank, STEPS - 2, STEPS)
    end = whole(module)
    if name in METHODS:
        told["resumed_off"] = farthest(end, whole(twin))
    alone = model()
    one = Pieces(spec, alone) if name in ROUNDED else built(spec, alone.named_parameters())
    true_norms = drive(alone, one, None, 0, STEPS)
    told["moved"] = min(float((p - q).abs().max()) for p, q in zip(end, whole(model()), strict=True))
    return told | {"off": farthest(whole(alone), end), "norms": [norms, true_norms[: STEPS - 2]]}


def replicas(rank: int) -> dict[str, Any]:
    """Two whole replicas of one shard each."""
    module, alone = sharded((WORLD, 1)), model()
    drive(module, built(small(METHODS["galore"]), module.named_parameters()), rank, 0, STEPS)
    drive(alone, built(small(METHODS["galore"]), alone.named_parameters()), None, 0, STEPS)
    return {"off": farthest(whole(alone), whole(module))}


def rounding(shape: tuple[int, ...]) -> dict[str, Any]:
    """Every weight 1, every step a quarter of the distance to the next smaller number: a quarter of all weights go there."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh, places = init_device_mesh("cpu", shape), [Replicate(), Shard(0)][-len(shape) :]
    w = nn.Parameter(distribute_tensor(torch.ones(2, 4000, dtype=torch.bfloat16), mesh, places))
    optimizer = Subspace(small(projectors.Svd), rounding="stochastic", names=("w",)).build([("w", w)])
    w.grad = torch.ones_like(w)
    follow(optimizer, "lr", 2.0**-10)  # Adam's first step is lr in every entry
    optimizer.step()
    steps = (gathered(w.detach()).float() != 1).float()
    return {"shares": steps.mean(1).tolist(), "same": float((steps[0] == steps[1]).float().mean())}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    answers: dict[str, Any] = {}
    for name, spec in specs().items():
        try:
            answers[name] = outcome(name, spec, rank, Path(folder))
        except Exception as error:  # told by the test of this method
            answers[name] = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        torch.distributed.barrier()
    answers |= {
        "a mesh of replicas": replicas(rank),
        "shards are rounded": rounding((WORLD,)),
        "replicas are rounded": rounding((WORLD, 1)),
    }
    Path(folder, f"answers-{rank}.json").write_text(json.dumps(answers))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each process says of every method; the processes are started once."""
    folder = tmp_path_factory.mktemp("sharded")
    torch.multiprocessing.spawn(work, args=(str(folder),), nprocs=WORLD)
    return [json.loads((folder / f"answers-{rank}.json").read_text()) for rank in range(WORLD)]


@pytest.mark.parametrize("name", sorted(specs().keys() - REFUSED))
def test_two_processes_take_the_steps_of_one(name: str, answers: list[dict[str, Any]]) -> None:
    """Within rounding, clipping included; and a process that loads its part of the state goes on bit by bit."""
    for rank, told in enumerate(answers):
        answer = told[name]
        assert "error" not in answer, f"process {rank}: {answer.get('trace')}"
        assert answer["moved"] > 1e-4 and answer["off"] < 1e-6, answer
        assert answer["resumed_off"] == 0.0 if name in METHODS else "resumed_off" not in answer
        assert min(answer["norms"][0]) > CLIP and answer["norms"][0] == pytest.approx(answer["norms"][1])


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_methods_that_need_whole_tensors_refuse(name: str, answers: list[dict[str, Any]]) -> None:
    for told in answers:
        assert "does not work on sharded parameters (FSDP2), and embed.weight is one: " in told[name]["error"]


def test_replicas_of_shards(answers: list[dict[str, Any]]) -> None:
    assert all(told["a mesh of replicas"]["off"] < 1e-6 for told in answers)


def test_shards_round_at_random_each_by_itself_and_replicas_alike(answers: list[dict[str, Any]]) -> None:
    """Were the draws the same, so would be the shards; and replicas that draw differently are no replicas."""
    for told in answers:
        assert told["shards are rounded"]["shares"] == pytest.approx([0.25, 0.25], abs=0.03)
        assert told["shards are rounded"]["same"] == pytest.approx(0.25**2 + 0.75**2, abs=0.03)
    assert answers[0]["replicas are rounded"] == answers[1]["replicas are rounded"]
