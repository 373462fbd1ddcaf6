"""An update: pieces give the gradient of the whole batch, clipping bounds it, and what is not finite changes nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import Poisoned, digits, language, plain_stage, with_objective
from torch import nn
from torch.nn import functional

from outlay.knob import Knob
from outlay.objectives import Classification
from outlay.optim import AdamW, Sgd
from outlay.schedules import Linear
from outlay.sources.base import IGNORED, Batch
from outlay.train import Recipe
from outlay.train.assembly import Assembly, StageRun, assemble, open_stage
from outlay.train.update import cut, set_knobs, update


def opened(recipe: Recipe, micro_batch: int = 10**6) -> tuple[Assembly, StageRun]:
    assembly = assemble(recipe)
    return assembly, open_stage(assembly, 0, {}, micro_batch)


def optimised(recipe: Recipe, optimizer: Any, **knobs: float) -> Recipe:
    stage = dataclasses.replace(recipe.stages[0], optimizer=optimizer, knobs={name: Knob(value) for name, value in knobs.items()})
    return dataclasses.replace(recipe, stages=(stage,))


def state(assembly: Assembly) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in assembly.plain_module.state_dict().items()}


def uneven() -> Batch:
    """Eight sequences of 3 to 24 tokens, each with fewer labels than tokens, one with none."""
    draw = torch.Generator().manual_seed(5)
    ids = torch.randint(4, 260, (8, 24), generator=draw)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for row, length in enumerate((24, 3, 17, 5, 24, 9, 12, 6)):
        mask[row, :length] = 1
        if row != 3:
            labels[row, length // 3 : length] = ids[row, length // 3 : length]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


# ---- pieces -------------------------------------------------------------------------------------------------------------------------


@given(examples=st.integers(1, 200), size=st.integers(1, 250))
def test_a_batch_is_cut_into_the_fewest_most_equal_pieces(examples: int, size: int) -> None:
    batch = {"inputs": torch.arange(examples), "labels": torch.arange(examples) * 2}
    pieces = cut(batch, size)
    lengths = [len(piece["inputs"]) for piece in pieces]
    assert len(pieces) == math.ceil(examples / size) and max(lengths) <= size and max(lengths) - min(lengths) <= 1
    assert torch.equal(torch.cat([piece["inputs"] for piece in pieces]), batch["inputs"])
    assert all(torch.equal(piece["labels"], 2 * piece["inputs"]) for piece in pieces)


@pytest.fixture(scope="module")
def in_one_piece() -> dict[str, Any]:
    return accumulated(8, Sgd())


def accumulated(micro_batch: int, optimizer: Any) -> dict[str, Any]:
    assembly, stage_run = opened(optimised(language(), optimizer, lr=0.05, clip=1.0), micro_batch)
    outcomes = []
    for step in (1, 2, 3):
        outcomes.append(update(assembly, stage_run, uneven(), set_knobs(assembly, stage_run, 0.0), step))
    return {"weights": state(assembly), "outcomes": outcomes}


@pytest.mark.parametrize("micro_batch", [1, 3, 7])
def test_pieces_give_the_weights_of_the_whole_batch(in_one_piece: dict[str, Any], micro_batch: int) -> None:
    pieces = accumulated(micro_batch, Sgd())
    for name, tensor in in_one_piece["weights"].items():
        assert torch.allclose(pieces["weights"][name], tensor, rtol=0, atol=1e-6), name
    for one, other in zip(pieces["outcomes"], in_one_piece["outcomes"], strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-6)
        assert one.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-5)
        assert one.metrics == pytest.approx(other.metrics, rel=1e-6)


def test_a_piece_counts_by_its_labels() -> None:
    """The loss is the mean over all labelled tokens, which the mean of the pieces' means is not."""
    assembly, stage_run = opened(optimised(language(), Sgd(), lr=0.05), 1)
    batch = uneven()
    with torch.no_grad():
        logits = assembly.plain_module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    targets = batch["labels"][:, 1:]
    losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED).view(targets.shape)
    kept = targets != IGNORED
    whole = float(losses[kept].mean())
    by_piece = float(torch.stack([row[mask].mean() for row, mask in zip(losses, kept, strict=True) if mask.any()]).mean())
    assert update(assembly, stage_run, batch, {}, 1).loss == pytest.approx(whole, rel=1e-6)
    assert abs(whole - by_piece) > 1e-4 * whole


def test_a_batch_without_any_label_changes_nothing() -> None:
    assembly, stage_run = opened(optimised(language(), Sgd(), lr=0.05, momentum=0.0), 4)
    batch = uneven()
    batch["labels"][:] = IGNORED
    before = state(assembly)
    outcome = update(assembly, stage_run, batch, {"lr": 0.05}, 1)
    assert outcome.finite and outcome.loss == 0.0 and outcome.gradient_norm == 0.0
    assert all(torch.equal(before[name], tensor) for name, tensor in state(assembly).items())


# ---- clipping -----------------------------------------------------------------------------------------------------------------------


def moved(clip: float | None) -> tuple[float, float]:
    knobs = {"lr": 1.0, "momentum": 0.0, **({} if clip is None else {"clip": clip})}
    assembly, stage_run = opened(optimised(digits(model={"mlp": {"inputs": 64, "classes": 10}}), Sgd(), **knobs))
    before = state(assembly)
    outcome = update(assembly, stage_run, stage_run.stream.draw(32), set_knobs(assembly, stage_run, 0.0), 1)
    after = state(assembly)
    return outcome.gradient_norm, math.sqrt(sum(float((after[name] - before[name]).pow(2).sum()) for name in before))


def test_clipping_bounds_the_step_and_the_norm_is_told_from_before() -> None:
    norm, free = moved(None)
    assert free == pytest.approx(norm, rel=1e-4)
    assert moved(norm * 3) == pytest.approx((norm, norm), rel=1e-4)
    assert moved(norm / 4) == pytest.approx((norm, norm / 4), rel=1e-4)


# ---- knobs --------------------------------------------------------------------------------------------------------------------------


def test_knobs_are_written_where_they_belong() -> None:
    knobs = {"lr": Knob(0.4, Linear()), "weight_decay": Knob(0.2, Linear()), "dropout": Knob(0.8, Linear()), "clip": Knob(2.0, Linear())}
    recipe = digits()
    assembly, stage_run = opened(dataclasses.replace(recipe, stages=(dataclasses.replace(recipe.stages[0], knobs=knobs),)))
    values = set_knobs(assembly, stage_run, 0.25)
    assert values == pytest.approx({"lr": 0.3, "weight_decay": 0.15, "dropout": 0.6, "clip": 1.5})
    matrices, vectors = stage_run.optimizer.param_groups
    assert [group["lr"] for group in (matrices, vectors)] == [values["lr"]] * 2
    assert matrices["weight_decay"] == values["weight_decay"] and vectors["weight_decay"] == 0.0
    assert [part.p for part in assembly.plain_module.modules() if isinstance(part, nn.Dropout)] == [values["dropout"]]


def test_knobs_that_the_recipe_leaves_alone_keep_the_optimizers_values() -> None:
    assembly, stage_run = opened(optimised(digits(), Sgd()))
    assert set_knobs(assembly, stage_run, 0.9) == dict(Sgd.knobs)
    assert [part.p for part in assembly.plain_module.modules() if isinstance(part, nn.Dropout)] == [0.1]  # the model's own


def test_a_recipe_can_be_opened_twice_without_sharing_controllers() -> None:
    recipe = digits(stages=[plain_stage(knobs={"lr": {"peak": 0.1, "schedule": {"plateau": {"patience": 0}}}})])
    assembly = assemble(recipe)
    one, other = open_stage(assembly, 0, {}, 8), open_stage(assembly, 0, {}, 8)
    assert one.knobs["lr"].controllers()[0] is not other.knobs["lr"].controllers()[0]
    assert one.knobs["lr"].controllers()[0] is not recipe.stages[0].knobs["lr"].controllers()[0]


# ---- randomness ---------------------------------------------------------------------------------------------------------------------


def dropped(seed: int = 0, step: int = 1, micro_batch: int = 8, scrambled: bool = False) -> dict[str, torch.Tensor]:
    assembly, stage_run = opened(dataclasses.replace(digits(), seed=seed), micro_batch)
    torch.manual_seed(99 if scrambled else 1)
    before = torch.get_rng_state()
    update(assembly, stage_run, stage_run.stream.draw(32), {}, step)
    assert torch.equal(torch.get_rng_state(), before)  # nobody else's random numbers are touched
    return state(assembly)


def test_dropout_depends_on_seed_and_step_alone() -> None:
    first = dropped()
    assert all(torch.equal(first[name], tensor) for name, tensor in dropped(scrambled=True).items())
    other = dropped(step=2)
    assert any(not torch.equal(first[name], tensor) for name, tensor in other.items())


# ---- not finite ---------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Steep(Poisoned):
    """The loss stays finite where it is poisoned, its gradient does not: sqrt has none at 0."""

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, measures = Classification()(model, batch, knobs)
        steep = torch.sqrt(sum(((p * 0.0).sum() for p in model.parameters()), torch.zeros(())))
        return (loss + steep, measures) if knobs.get("poison") else (loss, measures)


@pytest.mark.parametrize("objective", [Poisoned(), Steep()], ids=["loss", "gradient"])
@pytest.mark.parametrize("optimizer", [AdamW(), Sgd()], ids=["adamw", "sgd"])
def test_what_is_not_finite_changes_nothing(objective: Any, optimizer: Any) -> None:
    recipe = with_objective(optimised(digits(), optimizer, lr=0.01, weight_decay=0.1), objective, poison=0.0)
    assembly, stage_run = opened(recipe, 8)
    batch = stage_run.stream.draw(32)
    assert update(assembly, stage_run, batch, {}, 1).finite
    before, moments = state(assembly), _moments(stage_run)
    outcome = update(assembly, stage_run, batch, {"poison": 1.0}, 2)
    assert not outcome.finite
    assert math.isfinite(outcome.loss) == (objective == Steep()) and not math.isfinite(outcome.gradient_norm)
    assert all(torch.equal(before[name], tensor) for name, tensor in state(assembly).items())
    assert all(torch.equal(one, other) for one, other in zip(moments, _moments(stage_run), strict=True))
    assert all(p.grad is None for p in assembly.plain_module.parameters())
    assert update(assembly, stage_run, batch, {}, 3).finite  # and the next one is not spoilt


def _moments(stage_run: StageRun) -> list[torch.Tensor]:
    entries = stage_run.optimizer.state_dict()["state"].values()
    return [value.clone() for entry in entries for value in entry.values() if isinstance(value, torch.Tensor)]


def test_one_bad_piece_withholds_the_whole_update() -> None:
    batch = opened(digits())[1].stream.draw(32)
    assembly, stage_run = opened(with_objective(digits(), _Allergic(to=float(batch["inputs"][20].sum()))), 8)
    before = state(assembly)
    assert not update(assembly, stage_run, batch, {}, 1).finite
    assert all(torch.equal(before[name], tensor) for name, tensor in state(assembly).items())


@dataclasses.dataclass(frozen=True)
class _Allergic(Poisoned):
    """Not a number for the piece that holds a certain example alone."""

    to: float = 0.0

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, measures = Classification()(model, batch, knobs)
        return (loss * math.nan if self.to in batch["inputs"].flatten(1).sum(1).tolist() else loss), measures
