"""Shapes of batches: nothing drawn is lost, what is charged stays right, and what cannot be shaped is refused before anything is spent."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import audit, digits, language, lines, plain_stage, weights

import outlay
from outlay.errors import InputError
from outlay.knob import Knob
from outlay.schedules import Constant, Linear, Sequence
from outlay.sources.base import IGNORED, count_units
from outlay.train.assembly import assemble
from outlay.train.shaping import check_shapes, cut_rows, resample, rows_a_piece, shape_batch


def rows(lengths: list[int], width: int) -> dict[str, torch.Tensor]:
    """Rows of tokens 1, 2, 3 ..., padded with 0 to ``width``; the first token of each is not labelled."""
    mask = torch.tensor([[int(i < length) for i in range(width)] for length in lengths])
    ids = (torch.arange(len(lengths) * width).reshape(len(lengths), width) + 1) * mask
    labels = torch.where(mask.bool(), ids, IGNORED)
    labels[:, 0] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def test_a_length_that_divides_the_row_is_a_reshape() -> None:
    batch = rows([8, 8], 8)
    cut = cut_rows(batch, 4)
    assert {name: column.tolist() for name, column in cut.items()} == {
        name: column.reshape(4, 4).tolist() for name, column in batch.items()
    }
    assert cut["input_ids"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]


def test_a_length_that_does_not_divide_the_row_fills_the_last_piece() -> None:
    # 10 tokens in pieces of at most 4: three pieces of 4, of which the last holds 2
    cut = cut_rows(rows([10], 10), 4)
    assert cut["input_ids"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 0, 0]]
    assert cut["attention_mask"].tolist() == [[1] * 4, [1] * 4, [1, 1, 0, 0]]
    assert cut["labels"].tolist() == [[IGNORED, 2, 3, 4], [5, 6, 7, 8], [9, 10, IGNORED, IGNORED]]
    # 9 in pieces of at most 4 are three of 3: as equal as can be, and nothing to fill
    assert cut_rows(rows([9], 9), 4)["input_ids"].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_pieces_of_padding_alone_are_left_out_and_other_columns_follow_their_row() -> None:
    batch = {**rows([8, 3], 8), "weight": torch.tensor([0.5, 2.0])}
    cut = cut_rows(batch, 4)
    assert cut["input_ids"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 0]]
    assert cut["weight"].tolist() == [0.5, 0.5, 2.0]


def test_rows_that_are_short_enough_stay_as_they_are() -> None:
    batch = rows([8, 5], 8)
    assert cut_rows(batch, 8) is batch and cut_rows(batch, 100) is batch and shape_batch(batch, {"lr": 1.0}) is batch


def test_without_a_mask_one_is_made_only_where_a_piece_is_filled_up() -> None:
    ids = torch.arange(1, 11).reshape(1, 10)
    assert set(cut_rows({"input_ids": ids}, 5)) == {"input_ids"}
    cut = cut_rows({"input_ids": ids}, 4)
    assert cut["attention_mask"].tolist() == [[1] * 4, [1] * 4, [1, 1, 0, 0]] and count_units(cut)["tokens"] == 10


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(2, 13))
def test_no_token_is_lost_or_doubled(lengths: list[int], length: int) -> None:
    batch = rows(lengths, 12)
    cut = cut_rows(batch, length)
    kept = cut["attention_mask"].bool()
    assert cut["input_ids"][kept].tolist() == batch["input_ids"][batch["attention_mask"].bool()].tolist()
    assert cut["labels"][kept].tolist() == batch["labels"][batch["attention_mask"].bool()].tolist()
    assert bool((cut["labels"][~kept] == IGNORED).all())
    assert cut["input_ids"].shape[1] <= length and bool(kept.any(dim=1).all())
    assert count_units(cut)["tokens"] == count_units(batch)["tokens"]
    pieces = -(-12 // length)
    assert cut["input_ids"].numel() <= len(lengths) * (12 + pieces - 1)


def test_values_are_rounded_and_a_row_never_falls_under_two_tokens() -> None:
    batch = rows([8], 8)
    assert shape_batch(batch, {"length": 3.6})["input_ids"].shape == (2, 4)
    assert shape_batch(batch, {"length": 0.2})["input_ids"].shape == (4, 2)


def test_area_means_by_hand() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert resample({"inputs": image}, 2)["inputs"].flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert resample({"inputs": image}, 1)["inputs"].item() == 7.5
    up = resample({"inputs": torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])}, 4)["inputs"]
    assert up[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


def test_the_width_follows_the_height() -> None:
    batch = {"inputs": torch.ones(3, 2, 8, 12), "labels": torch.tensor([0, 1, 2])}
    shaped = resample(batch, 4)
    assert shaped["inputs"].shape == (3, 2, 4, 6) and shaped["labels"] is batch["labels"]
    assert resample(batch, 8) is batch


def test_a_piece_holds_as_many_tokens_as_before() -> None:
    batch = rows([8, 8], 8)
    assert rows_a_piece(3, batch, cut_rows(batch, 2)) == 12
    assert rows_a_piece(3, batch, batch) == 3
    assert rows_a_piece(5, {"inputs": torch.zeros(2, 1, 8, 8)}, {"inputs": torch.zeros(2, 1, 4, 4)}) == 5


def text(**knobs: Any) -> Any:
    """The small language model on rows of 32 tokens, 8 an update, with more knobs."""
    recipe = language()
    stage = recipe.stages[0]
    return recipe, dataclasses.replace(stage, knobs={**stage.knobs, **knobs})


def run_text(tmp_path: Path, budget: str, name: str = "run", **knobs: Any) -> Any:
    recipe, stage = text(**knobs)
    return outlay.run(dataclasses.replace(recipe, budget=budget, stages=(stage,)), tmp_path / name)


def test_a_run_trains_on_the_pieces_and_counts_what_it_drew(tmp_path: Path) -> None:
    result = run_text(tmp_path, "6 steps", length=Sequence((Constant(8), Constant(32))))
    assert audit(tmp_path / "run") == []
    steps = lines(tmp_path / "run", "step")
    assert [line["knobs"]["length"] for line in steps] == [8, 8, 8, 32, 32, 32]
    charges = [line["charged"]["train"] for line in steps]
    assert all(charge["examples"] == 8 and charge["tokens"] == 256 for charge in charges)
    # attention over shorter rows is cheaper, and everything else is the same
    assert charges[0]["flops"] == charges[1]["flops"] < charges[3]["flops"] == charges[5]["flops"]
    assert result.spent["examples"] == 48
    # the first loss is that of the fresh model on the pieces of the first batch
    recipe, stage = text()
    assembly = assemble(recipe)
    batch = cut_rows(assembly.first_batch(0), 8)
    assert batch["input_ids"].shape == (32, 8)
    loss, _ = stage.objective(assembly.plain_module, batch, {})
    assert steps[0]["loss"] == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize("budget", ["500 tokens", "4k tokens", "50 examples", "1e8 flops"])
def test_budgets_hold_whatever_the_shape(budget: str, tmp_path: Path) -> None:
    result = run_text(tmp_path, budget, length=Linear(5.0, 32.0))
    unit = result.ended_by
    assert unit in budget and audit(tmp_path / "run") == []
    limit, spent = result.budget[unit]["limit"], result.budget[unit]["spent"]
    most = max((line["charged"]["train"][unit] for line in lines(tmp_path / "run", "step")), default=limit)
    assert limit - 2 * most < spent <= limit


def test_the_piece_size_changes_nothing_but_rounding(tmp_path: Path) -> None:
    recipe, stage = text(length=8)
    runs = [
        outlay.run(dataclasses.replace(recipe, budget="3 steps", stages=(stage,), micro_batch=size), tmp_path / str(size))
        for size in (8, 3)
    ]
    losses = [[line["loss"] for line in lines(Path(run.folder), "step")] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    again = run_text(tmp_path, "3 steps", "again", length=8)
    assert weights(Path(again.folder)) == weights(tmp_path / "8")


CNN = {"cnn": {"widths": [4, 8]}}


def images(**knobs: Any) -> Any:
    return digits(
        model=CNN,
        budget="4 steps",
        stages=[plain_stage(source={"images": {"name": "digits", "channels": True}}, knobs={"lr": 0.01, **knobs})],
    )


def test_a_run_trains_on_images_of_another_size(tmp_path: Path) -> None:
    steps = {"sequence": {"pieces": [{"constant": {"level": 4}}, {"constant": {"level": 8}}]}}
    outlay.run(images(resolution={"schedule": steps}), tmp_path / "run")
    seen = lines(tmp_path / "run", "step")
    assert [line["knobs"]["resolution"] for line in seen] == [4, 4, 8, 8] and audit(tmp_path / "run") == []
    flops = [line["charged"]["train"]["flops"] for line in seen]
    # four times the pixels: convolutions cost four times as much, the last layer (2 * 8 * 10 an example, forward and twice backward) the same
    last = 3 * 2 * 8 * 10 * 32
    assert flops[2] - last == pytest.approx(4 * (flops[0] - last), rel=1e-12)
    assert {line["charged"]["train"]["examples"] for line in seen} == {32}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (lambda: images(length=4), r"the knob length cuts rows of tokens, and this source yields inputs, labels"),
        (
            lambda: digits(stages=[plain_stage(knobs={"resolution": 4})]),
            r"needs images of shape \(channels, height, width\), and this source yields inputs of shape \(8, 8\); set channels: true",
        ),
        (lambda: images(resolution={"peak": 8, "schedule": "linear"}), r"knobs.resolution: must be >= 1 throughout, and falls to 0"),
        (
            lambda: images(resolution={"peak": 8, "schedule": {"linear": {"end": 0.25}}}),
            r"knobs.resolution: falls to 2, and the model cannot take that: .* Output size is too small",
        ),
    ],
)
def test_what_cannot_be_shaped_is_refused_before_anything_is_spent(recipe: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        outlay.run(recipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_text_has_no_pixels_and_rows_need_two_tokens() -> None:
    with pytest.raises(InputError, match="this source yields no inputs"):
        check_shapes({"resolution": Knob(4.0)}, rows([4], 4), len)
    with pytest.raises(InputError, match=r"knobs.length: must be >= 2 throughout, and falls to 1"):
        check_shapes({"length": Knob(1.0)}, rows([4], 4), len)
