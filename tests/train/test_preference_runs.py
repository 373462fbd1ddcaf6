"""Runs that learn from preferences: stages in a row, cut and uncut, online pairs, and a reward model that is read as a reward."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from small_runs import audit, lines, result_of

import outlay
from outlay.context import Context
from outlay.errors import InputError
from outlay.models.tokenizers import open_tokenizer
from outlay.prompts.base import Question
from outlay.rewards.base import Answer, Verdict, passed, unjudged
from outlay.rewards.learned import Learned
from outlay.train import load_recipe

TINY: dict[str, Any] = {"transformer": {"hidden": 32, "layers": 1, "heads": 2, "context": 32}}
#: answers end in one of two letters; the first is better
ROWS = [{"prompt": f"{i},{j}=", "chosen": f"{i}a", "rejected": f"{i}b"} for i in range(10) for j in range(10)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path / "pairs.jsonl"


def stage(data: Path, objective: Any, kind: str = "preferences", **changes: Any) -> dict[str, Any]:
    source = {"path": str(data)} | ({"answer": "rejected"} if kind == "table" else {})
    knobs = {"lr": {"peak": 0.01, "schedule": "rex"}} | changes.pop("knobs", {})
    return {"source": {kind: source}, "objective": objective, "optimizer": "adamw", "batch_size": 16, "knobs": knobs, **changes}


def spend(folder: Path, *stages: dict[str, Any], budget: str = "40 steps", **changes: Any) -> list[dict[str, Any]]:
    recipe = {"name": "preferences", "budget": budget, "model": TINY, "stages": list(stages), "threads": 1, **changes}
    outlay.run(load_recipe(recipe), folder)
    assert audit(folder) == []
    return lines(folder, "step")


def test_preferences_turn_what_demonstrations_taught(data: Path, tmp_path: Path) -> None:
    steps = spend(
        tmp_path / "run",
        stage(data, "dft", "table", name="first", share=0.5),
        stage(data, "dpo", name="second", share=0.5),
        budget="80 steps",
    )
    second = [line["metrics"] for line in steps if line["stage"] == "second"]
    assert (second[0]["margin"], second[0]["better"], second[0]["worse"]) == (
        pytest.approx(0.0, abs=1e-5),
    ) * 3  # the reference is this stage's start
    assert second[-1]["pair_accuracy"] == 1.0 and second[-1]["margin"] > 1.0
    assert result_of(tmp_path / "run")["accounts"]["prepare"]["flops"] > 0


@pytest.mark.parametrize("objective", ["dpo", "kto", {"dno": {"scale": 3.0}}, "slic"])
def test_a_batch_cut_into_pieces_trains_the_same(objective: Any, data: Path, tmp_path: Path) -> None:
    spent = [spend(tmp_path / f"{size}", stage(data, objective), budget="6 steps", micro_batch=size) for size in (16, 5)]
    for one, other in zip(*spent, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    one, other = (load_file(tmp_path / f"{size}" / "model" / "model.safetensors") for size in (16, 5))
    assert all(torch.allclose(one[name], other[name], atol=1e-3) for name in one)


def test_a_reward_model_is_trained_and_read_as_a_reward(data: Path, tmp_path: Path) -> None:
    steps = spend(tmp_path / "run", stage(data, "reward_model"), model={"reward_model": {"backbone": TINY}})
    assert steps[-1]["metrics"]["pair_accuracy"] > 0.9
    judge = Learned(str(tmp_path / "run" / "model")).open(Context(seed=0, tokenizer=open_tokenizer("characters")))
    answers = [Answer(Question(row["prompt"]), row[side], 3, True, 8, 0) for row in ROWS for side in ("chosen", "rejected")]
    values = [verdict.value for verdict in judge.judge(answers)]
    right = sum(better > worse for better, worse in zip(values[::2], values[1::2], strict=True))
    assert right > 90
    again = spend(
        tmp_path / "more", stage(data, "reward_model"), model={"reward_model": {"path": str(tmp_path / "run" / "model")}}, budget="2 steps"
    )
    assert again[0]["loss"] == pytest.approx(steps[-1]["loss"], abs=0.2)


@dataclass(frozen=True)
class Letters:
    """An answer is worth the share of its characters that are letters; empty ones cannot be judged."""

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def open(self, context: Context) -> Any:
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        return [passed(sum(map(str.isalpha, one.text)) / len(one.text)) if one.text else unjudged("empty") for one in answers]


@pytest.mark.parametrize("pairs", ["max_min", "max_random"])
def test_pairs_are_found_among_answers_made_as_training_goes(pairs: str, tmp_path: Path) -> None:
    source = {"prompts": {"reasoning": {"tasks": {"reverse": [1]}}}, "rewards": {"letters": Letters()}, "samples": 4, "new_tokens": 6}
    online = {"source": {"rollouts": source}, "objective": {"dpo": {"pairs": pairs}}, "batch_size": 16, "knobs": {"lr": 0.01, "beta": 0.3}}
    spend(tmp_path / "run", online, budget="40 steps")
    worth = [line["seen"]["reward"] for line in lines(tmp_path / "run", "rollout")]
    assert sum(worth[-5:]) / 5 > sum(worth[:5]) / 5 + 0.15


def test_half_a_pair_is_refused_before_anything_is_spent(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="7 answers an update cannot be shared out in groups of 2; make batch_size a multiple of 2"):
        spend(tmp_path / "run", stage(data, "dpo", batch_size=7))
