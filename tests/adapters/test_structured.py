"""Structured layers: their matrices, the guide at both ends and in between, dropping it, and what guidance is worth."""

from __future__ import annotations

import io
import math
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from small_language import IDS, INNER, LLAMA, logits_of, loss_after, trained
from torch import nn

import outlay
from outlay.adapters import Structured
from outlay.adapters.base import Moment
from outlay.adapters.guided import Guided
from outlay.errors import InputError
from outlay.models import Mlp
from outlay.planning.flops import CountFlops
from outlay.record import Record
from outlay.reporting.terminal import Quiet
from outlay.testing import check_adapter
from outlay.train import load_recipe

KINDS = ("low_rank", "block_dense", "block_shuffle")
SHAPES = ((12, 8), (8, 12), (8, 8))


def layer(outputs: int = 12, inputs: int = 8, bias: bool = True, **fields: Any) -> Guided:
    """A layer in float64, its factors shaken as training would."""
    linear = nn.Linear(inputs, outputs, bias=bias, dtype=torch.float64)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in linear.parameters():
            p.normal_(generator=draw)
    module = Structured(**{"rank": 4, "blocks": 4, "targets": ("0",), **fields}).attach(nn.Sequential(linear), seed=0)
    made = module[0]  # type: ignore[index]
    assert isinstance(made, Guided)
    return made


def shaken(made: Guided) -> Guided:
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn(p.shape, generator=draw, dtype=torch.float64))
    return made


def explicit(made: Guided, structure: str) -> torch.Tensor:
    """S entry by entry, written from the factors."""
    u, v = made.u.detach(), made.v.detach()
    if structure == "low_rank":
        return u @ v
    blocks, rows, columns = v.shape
    first = torch.zeros(blocks * rows, blocks * columns, dtype=torch.float64)
    for j in range(blocks):
        first[j * rows : (j + 1) * rows, j * columns : (j + 1) * columns] = v[j]
    if structure == "block_dense":
        return u @ first
    shuffle = torch.zeros(blocks * rows, blocks * rows, dtype=torch.float64)
    for i in range(rows):
        for j in range(blocks):
            shuffle[j * rows + i, i * blocks + j] = 1
    _, out, inner = u.shape
    assert inner == rows
    second = torch.zeros(blocks * out, blocks * inner, dtype=torch.float64)
    back = torch.zeros(blocks * out, blocks * out, dtype=torch.float64)
    for j in range(blocks):
        second[j * out : (j + 1) * out, j * inner : (j + 1) * inner] = u[j]
        for i in range(out):
            back[i * blocks + j, j * out + i] = 1
    return back @ second @ shuffle @ first


@pytest.mark.parametrize("structure", KINDS)
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_a_structure_is_multiplication_by_its_matrix(structure: str, outputs: int, inputs: int) -> None:
    made = shaken(layer(outputs, inputs, structure=structure))
    x = torch.randn(2, 3, inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    matrix = explicit(made, structure)
    assert torch.allclose(made.path(x), x @ matrix.T, rtol=1e-10)
    assert torch.allclose(made.path(x[0, 0]), matrix @ x[0, 0], rtol=1e-10)
    assert torch.allclose(made.product(), matrix, rtol=1e-10)


def test_block_shuffle_mixes_every_input_into_every_output() -> None:
    matrix = explicit(shaken(layer(16, 16, structure="block_shuffle")), "block_shuffle")
    assert bool((matrix != 0).all())
    assert torch.linalg.matrix_rank(matrix) > 4


@pytest.mark.parametrize("structure", KINDS)
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_at_one_the_output_is_the_guides_at_zero_the_structures_and_between_the_mixture(structure: str, outputs: int, inputs: int) -> None:
    made = layer(outputs, inputs, structure=structure)
    x = torch.randn(5, inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert made.guide is not None
    assert all(p.is_contiguous() for p in made.parameters())  # or fused optimizers would mistake their moments after a restart
    assert torch.allclose(made.guide, explicit(made, structure), rtol=1e-12)  # both agree at the start, whatever a is
    start = made(x)
    made.lead(0.5)
    assert torch.allclose(made(x), start)
    shaken(made)
    assert made.bias is not None
    guide, structured = x @ made.guide.T + made.bias, x @ explicit(made, structure).T + made.bias
    assert not torch.allclose(guide, structured)
    for a in (0.5, 0.25):
        made.lead(a)
        assert torch.allclose(made(x), a * guide + (1 - a) * structured)
        assert torch.allclose(made.effective(), a * made.guide + (1 - a) * explicit(made, structure))
    made.share.fill_(1.0)
    assert torch.allclose(made(x), guide)
    made.share.fill_(0.0)
    assert torch.allclose(made(x), structured)
    made.lead(0.0)
    assert made.guide.dropped
    assert torch.allclose(made(x), structured)
    assert torch.allclose(made.plain()(x), structured)


def test_low_rank_starts_at_the_best_approximation_of_the_layer_with_balanced_factors() -> None:
    linear = nn.Linear(8, 12, dtype=torch.float64)
    made = Structured(rank=3, targets=("0",)).attach(nn.Sequential(linear), 0)[0]  # type: ignore[index]
    singular = torch.linalg.svdvals(linear.weight)
    assert torch.allclose((made.product() - linear.weight).square().sum(), singular[3:].square().sum())
    assert torch.allclose(made.u.T @ made.u, torch.diag(singular[:3]))
    assert torch.allclose(made.v @ made.v.T, torch.diag(singular[:3]))
    whole = Structured(rank=99, targets=("0",)).attach(nn.Sequential(linear), 0)[0]  # type: ignore[index]
    assert torch.allclose(whole.product(), linear.weight)


@pytest.mark.parametrize("structure", ["block_dense", "block_shuffle"])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_drawn_blocks_are_orthonormal(structure: str, outputs: int, inputs: int) -> None:
    made = layer(outputs, inputs, structure=structure, rank=8)
    for block in (*made.v, *(made.u if made.u.dim() == 3 else [made.u])):
        rows, columns = block.shape
        gram = block @ block.T if rows <= columns else block.T @ block
        assert torch.allclose(gram, torch.eye(len(gram), dtype=torch.float64), atol=1e-5)  # drawn in single precision


def test_the_guide_fades_as_half_a_cosine() -> None:
    spec = Structured(guided=0.4)
    expected = {0.0: 1.0, 0.1: 0.5 + math.sqrt(0.125), 0.2: 0.5, 0.3: 0.5 - math.sqrt(0.125), 0.4: 0.0, 0.7: 0.0, 1.0: 0.0}
    assert {at: pytest.approx(spec.share(at), abs=1e-12) for at in expected} == expected
    assert Structured(guided=0.0).share(0.0) == 0.0
    assert Structured(guided=1.0).share(0.5) == pytest.approx(0.5)


@pytest.mark.parametrize("structure", KINDS)
def test_flops_and_trained_parameters_by_the_formula(structure: str) -> None:
    inputs, outputs, rank, blocks = 16, 24, 8, 4
    inner = min(inputs, outputs) // blocks
    formula = {
        "low_rank": rank * (inputs + outputs),
        "block_dense": rank * (inputs // blocks + outputs),
        "block_shuffle": inner * (inputs + outputs),
    }[structure]
    made = layer(outputs, inputs, bias=False, structure=structure, rank=rank, guided=0.0)
    assert trained(made) == formula
    assert made.guide is None
    led = layer(outputs, inputs, bias=False, structure=structure, rank=rank)
    assert trained(led) == formula + inputs * outputs
    x = torch.randn(10, inputs, dtype=torch.float64)
    with CountFlops() as flops:
        made(x)
    assert flops.total == 10 * 2 * formula
    with CountFlops() as flops:
        led(x)
    assert flops.total == 10 * 2 * (formula + inputs * outputs)
    led.lead(0.0)
    with CountFlops() as flops:
        led(x)
    assert flops.total == 10 * 2 * formula


def drive(spec: Structured, module: nn.Module, steps: range, total: int, optimizer: torch.optim.Optimizer) -> None:
    draw = torch.Generator().manual_seed(3)
    x, y = torch.randn(20, 8, generator=draw, dtype=torch.float64), torch.randn(20, 12, generator=draw, dtype=torch.float64)
    for step in steps:
        moment = Moment(step, (step - 1) / total, 5)
        spec.before(module, moment)
        optimizer.zero_grad()
        (module(x) - y).square().mean().backward()
        optimizer.step()
        spec.after(module, optimizer, moment)


def model(spec: Structured) -> tuple[nn.Module, Guided]:
    linear = nn.Linear(8, 12, dtype=torch.float64)
    with torch.no_grad():
        for p in linear.parameters():
            p.normal_(generator=torch.Generator().manual_seed(0))
    module = spec.attach(nn.Sequential(linear), seed=0)
    made = module[0]  # type: ignore[index]
    assert isinstance(made, Guided)
    return module, made


SPEC = Structured(rank=3, targets=("0",))


def test_the_first_update_is_the_guides_alone_and_a_dropped_guide_costs_nothing() -> None:
    module, made = model(SPEC)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.0)
    assert made.guide is not None
    u, guide = made.u.detach().clone(), made.guide.detach().clone()
    drive(SPEC, module, range(1, 2), 10, optimizer)
    assert torch.equal(made.u, u)
    assert not torch.equal(made.guide, guide)
    drive(SPEC, module, range(2, 6), 10, optimizer)
    assert not made.guide.dropped
    assert made.guide in optimizer.state
    assert not torch.equal(made.u, u)
    held = made.guide
    drive(SPEC, module, range(6, 7), 10, optimizer)
    assert made.guide is held
    assert held.dropped
    assert held.untyped_storage().nbytes() == 8
    assert held.grad is None
    assert held not in optimizer.state
    assert held.shape == (12, 8)
    drive(SPEC, module, range(7, 10), 10, optimizer)
    assert held.grad is None


def test_the_guide_does_not_come_back_in_a_later_stage() -> None:
    module, made = model(SPEC)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    drive(SPEC, module, range(1, 7), 10, optimizer)
    SPEC.before(module, Moment(7, 0.0))
    assert float(made.share) == 0.0
    module, made = model(SPEC)
    SPEC.before(module, Moment(1, 0.25))
    SPEC.before(module, Moment(2, 0.0))
    assert float(made.share) == pytest.approx(0.5)


@pytest.mark.parametrize("saved_at", [3, 8])
@pytest.mark.parametrize("loaded_at", [0, 4, 9])
def test_checkpoints_from_before_and_after_the_drop_fit_models_from_before_and_after(saved_at: int, loaded_at: int) -> None:
    """As a fresh model that goes on, and as one that is put back to where it was or to where another came to."""
    module, _ = model(SPEC)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    drive(SPEC, module, range(1, saved_at + 1), 10, optimizer)
    file = io.BytesIO()
    torch.save({"module": module.state_dict(), "optimizer": optimizer.state_dict()}, file)
    kept = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    drive(SPEC, module, range(saved_at + 1, 13), 10, optimizer)
    other, made = model(SPEC)
    theirs = torch.optim.AdamW(other.parameters(), lr=0.01)
    drive(SPEC, other, range(1, loaded_at + 1), 10, theirs)
    names = {name: p.shape for name, p in other.named_parameters() if p.requires_grad}
    assert names == {name: p.shape for name, p in module.named_parameters() if p.requires_grad}
    other.load_state_dict(kept["module"])
    theirs.load_state_dict(kept["optimizer"])
    drive(SPEC, other, range(saved_at + 1, 13), 10, theirs)
    assert made.guide is not None
    assert made.guide.dropped
    assert all(torch.equal(p, other.state_dict()[name]) for name, p in module.state_dict().items())


def test_a_checkpoint_of_the_loop_can_be_put_back_by_copying() -> None:
    module, made = model(SPEC)
    guide = made.guide
    assert guide is not None
    saved = guide.detach().cpu().clone()
    SPEC.before(module, Moment(1, 0.5))
    dropped = guide.detach().cpu().clone()
    assert guide.dropped
    assert dropped.is_contiguous()
    assert not dropped.any()
    with torch.no_grad():
        guide.copy_(saved)
    assert not guide.dropped
    assert torch.equal(guide, saved)
    module.to(torch.float32)
    assert module[0].guide is guide  # type: ignore[index]
    guide.drop()
    assert guide.dropped


def test_a_cheap_guide_is_looked_at_with_probability_a_and_otherwise_not_trained() -> None:
    spec = Structured(rank=3, guided=1.0, cheap_guide=True, targets=("0",))
    module, made = model(spec)
    looked = []
    x = torch.randn(4, 8, dtype=torch.float64)
    for step in range(1, 1001):
        spec.before(module, Moment(step, 0.5, seed=7))
        looked.append(made.looks)
    assert abs(sum(looked) / 1000 - 0.5) < 5 * math.sqrt(0.25 / 1000)
    again, other = model(spec)
    for step in (1000, 3, 17):
        spec.before(again, Moment(step, 0.5, seed=7))
        assert other.looks == looked[step - 1]
    shaken(made)
    made.looks = False
    made.train()
    made(x).sum().backward()
    assert made.guide is not None
    assert made.bias is not None
    assert made.guide.grad is None
    assert torch.allclose(made(x), made.path(x) + made.bias)
    made.eval()
    assert torch.allclose(made(x), 0.5 * (x @ made.guide.T) + 0.5 * made.path(x) + made.bias)


def test_feed_forward_layers_of_all_blocks_or_of_all_but_the_first() -> None:
    def names(**fields: Any) -> list[str]:
        module = Structured(rank=2, **fields).attach(LLAMA.build(0).module, seed=0)
        return sorted(name for name, part in module.named_modules() if isinstance(part, Guided))

    inner = ("down_proj", "gate_proj", "up_proj")
    assert names() == [f"model.layers.{block}.mlp.{name}" for block in (0, 1) for name in inner]
    assert names(first_block=False) == [f"model.layers.1.mlp.{name}" for name in inner]


def test_all_else_stays_dense_and_trained() -> None:
    module = Structured(rank=2).attach(LLAMA.build(0).module, seed=0)
    assert all(p.requires_grad for p in module.parameters())
    total, dense = trained(module), trained(LLAMA.build(0).module)
    assert total == dense + 2 * 3 * 2 * (16 + 24)  # guides weigh what the layers weighed


@pytest.mark.parametrize("structure", KINDS)
def test_contract(structure: Any) -> None:
    spec = Structured(structure=structure, rank=4, blocks=4, cheap_guide=structure == "block_dense")
    check_adapter(spec, lambda: LLAMA.build(0).module, IDS, logits_of, starts_there=False)
    inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    spec = Structured(structure=structure, rank=2, blocks=2, targets=("1",))
    check_adapter(spec, lambda: Mlp(4, 3, hidden=(8,)).build(0).module, inputs, lambda module, x: module(x), starts_there=False)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_at_equal_steps_a_guide_leaves_a_clearly_lower_loss(seed: int) -> None:
    """From the same start and at the same rate, all inner layers of rank 4."""
    plain, guided = (loss_after(Structured(rank=4, guided=share, targets=INNER), 150, 3e-3, seed) for share in (0.0, 0.5))
    assert guided < plain - 0.05


class _StopAt(Quiet):
    """Stops a run in good order after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self, record: Record, spent: Mapping[str, float], share: float, seconds_left: float | None) -> None:
        if record.step == self.steps:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("steps", [5, 14])
def test_a_run_stopped_before_or_after_the_drop_goes_on_to_the_same_model(steps: int, tmp_path: Path) -> None:
    recipe = {
        "budget": "20 steps",
        "model": {"mlp": {"inputs": 64, "classes": 10, "hidden": [32]}},
        "adapter": {"structured": {"structure": "block_shuffle", "blocks": 2, "targets": ["1", "4"], "cheap_guide": True}},
        "stages": [{"source": {"images": {"name": "digits"}}, "objective": "classification"}],
        "checkpoints": {"every_steps": 1},
        "threads": 1,
    }
    outlay.run(load_recipe(recipe), tmp_path / "whole")
    assert outlay.run(load_recipe(recipe), tmp_path / "stopped", display=_StopAt(steps)).steps == steps
    assert outlay.resume(tmp_path / "stopped").steps == 20
    ends = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("whole", "stopped")]
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "rank and blocks must be >= 1, found 0 and 4"),
        ({"blocks": 0}, "rank and blocks must be >= 1, found 192 and 0"),
        ({"guided": 1.5}, r"guided must lie in \[0, 1\], found 1.5"),
        ({"structure": "butterfly"}, "structure must be one of low_rank, block_dense, block_shuffle, found butterfly"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Structured(**fields)


def test_what_does_not_fit_the_model_is_an_input_error() -> None:
    with pytest.raises(InputError, match="5 blocks must divide a layer's widths, found 16 inputs and 24 outputs"):
        Structured("block_shuffle", blocks=5, targets=("up_proj",)).attach(LLAMA.build(0).module, seed=0)
    with pytest.raises(InputError, match="found 6 rank"):
        Structured("block_dense", rank=6).attach(LLAMA.build(0).module, seed=0)
    with pytest.raises(InputError, match="no linear layer named gate_proj"):
        Structured().attach(Mlp(4, 3).build(0).module, seed=0)
