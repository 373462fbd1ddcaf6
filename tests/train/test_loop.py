"""The loop: budgets in every unit, knobs that follow them, evaluations on the way, and what happens when numbers break."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from small_runs import (
    DOCUMENTS,
    EXAM,
    SCHEDULE,
    At,
    Poisoned,
    audit,
    digits,
    language,
    lines,
    paced,
    plain_stage,
    result_of,
    weights,
    with_objective,
)
from torch import nn

import outlay
from outlay.context import Context
from outlay.controllers import Plateau
from outlay.knob import Knob
from outlay.objectives import Classification
from outlay.sources import Batch
from outlay.testing import FakeClock, record
from outlay.train import Recipe, Result, RunFailed, saving
from outlay.train.checkpoint import Snapshot, load_checkpoint
from outlay.train.pace import Reserve

TEXT_EXAM = {"held_out_loss": {"examples": 4, "batch_size": 4}}


# ---- budgets ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "make"),
    [
        ("steps", lambda: digits(budget="17 steps", evaluate={"exams": [EXAM]})),
        ("examples", lambda: digits(budget="1000 examples", evaluate={"exams": [EXAM], "every": 0.3})),
        ("tokens", lambda: language(budget="3k tokens", evaluate={"exams": [TEXT_EXAM], "every": 0.3})),
        ("flops", lambda: digits(budget="9.99e6 flops", evaluate={"exams": [EXAM], "every": 0.3})),
        ("usd", lambda: language(budget="$0.003 at $1/M tokens", evaluate={"exams": [TEXT_EXAM]})),
    ],
)
def test_counted_budgets_are_kept_within_a_step(unit: str, make: Any, tmp_path: Path) -> None:
    """Never over, evaluations included, and one more step would have been too many."""
    result = outlay.run(make(), tmp_path / "run")
    assert result.ended_by == unit and audit(tmp_path / "run") == []
    step = result.accounts["train"][unit] / result.steps
    limit, spent = result.budget[unit]["limit"], result.budget[unit]["spent"]
    assert limit - step < spent <= limit
    assert sum(line["charged"]["train"]["steps"] for line in lines(tmp_path / "run", "step")) == result.steps


@pytest.mark.parametrize(("limit", "noise", "seed"), [(20.0, 0.2, 0), (23.7, 0.2, 1), (6.0, 0.0, 2), (41.3, 0.2, 3)])
def test_seconds_are_kept_within_a_step(limit: float, noise: float, seed: int, tmp_path: Path) -> None:
    """On a clock that only work moves, by steps of uneven length: training and all five evaluations are inside the limit."""
    clock = FakeClock()
    recipe = digits(budget=f"{limit}s", seed=seed, evaluate={"exams": [EXAM], "every": 0.25})
    result = outlay.run(paced(recipe, clock, 0.0025, noise), tmp_path / "run", clock=clock)
    assert result.ended_by == "seconds" and audit(tmp_path / "run") == []
    assert clock.now <= limit and result.spent["seconds"] == pytest.approx(clock.now, rel=1e-12)
    longest, evaluation = 0.0025 * 32 * (1 + noise), 0.0025 * 64
    held_back = (Reserve().margin - 1) * evaluation
    assert limit - clock.now <= max(0.005 * limit, longest) + held_back
    assert len(lines(tmp_path / "run", "evaluation")) == 5
    # a step and an evaluation are booked where they belong
    assert result.accounts["eval"]["seconds"] == pytest.approx(5 * evaluation)
    measuring = result.accounts["plan"]["seconds"]
    assert measuring == pytest.approx(0.0025 * 5, rel=noise) and set(result.accounts) >= {"train", "eval", "plan"}
    assert result.accounts["train"]["seconds"] == pytest.approx(clock.now - 5 * evaluation - measuring)


@pytest.mark.parametrize("limit", [round(8 + 0.1 * tenth, 1) for tenth in range(0, 8)])
def test_a_save_on_the_way_does_not_carry_the_run_over_its_limit(limit: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save takes as long as six steps here; what was left for the step before it may be gone after it."""
    clock, real = FakeClock(), saving.save_checkpoint

    def slowly(folder: Path, step: int, snapshot: Snapshot) -> Path:
        clock.advance(0.5)
        return real(folder, step, snapshot)

    monkeypatch.setattr(saving, "save_checkpoint", slowly)
    recipe = digits(budget=f"{limit}s", checkpoints={"every_seconds": 1.0, "most": 1.0})
    result = outlay.run(paced(recipe, clock, 0.0025, 0.0), tmp_path / "run", clock=clock)
    assert clock.now <= limit and result.accounts["checkpoint"]["seconds"] == pytest.approx(
        0.5 * len(lines(tmp_path / "run", "checkpoint"))
    )


def test_money_by_the_hour_is_kept(tmp_path: Path) -> None:
    clock = FakeClock()
    result = outlay.run(paced(digits(budget="$0.01 at $9/h"), clock, 0.0025), tmp_path / "run", clock=clock)
    assert result.ended_by == "usd" and audit(tmp_path / "run") == []
    assert 0.01 - 9 / 3600 * 0.0025 * 32 * 1.3 <= result.spent["usd"] <= 0.01
    assert result.spent["usd"] == pytest.approx(9 / 3600 * clock.now)


def test_the_first_limit_ends_the_run(tmp_path: Path) -> None:
    result = outlay.run(digits(budget="1h or 9 steps or 10k examples"), tmp_path / "run")
    assert result.ended_by == "steps" and result.steps == 9
    assert set(result.budget) == {"seconds", "steps", "examples"} and result.budget["examples"]["spent"] == 9 * 32


def test_an_evaluation_that_does_not_fit_is_left_out(tmp_path: Path) -> None:
    """640 examples: 64 before, 64 kept for the end, 16 steps of 32; of the evaluations at every eighth only those are made that leave the last."""
    result = outlay.run(digits(budget="700 examples", evaluate={"exams": [EXAM], "every": 0.125}), tmp_path / "run")
    made = lines(tmp_path / "run", "evaluation")
    left_out = [line for line in lines(tmp_path / "run", "decision") if "left out" in line["what"]]
    assert audit(tmp_path / "run") == [] and made[-1]["when"] == "end" and left_out
    assert result.spent["examples"] == 32 * result.steps + 64 * len(made) <= 700
    # with the first evaluation alone unaffordable, training goes on all the same
    tight = outlay.run(digits(budget="120 examples", evaluate={"exams": [EXAM]}), tmp_path / "tight")
    assert tight.metrics_start == {} and tight.metrics and tight.steps == 1 and tight.spent["examples"] == 96
    assert any("before training was left out" in warning for warning in tight.warnings)


def test_a_budget_that_the_last_evaluation_would_use_up_is_refused(tmp_path: Path) -> None:
    with pytest.raises(outlay.InputError, match="the evaluation at the end may take 64 examples of a budget of 64 examples"):
        outlay.run(digits(budget="64 examples", evaluate={"exams": [EXAM]}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- knobs --------------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Watching:
    """Classification that notes what it was told and what it saw of the model."""

    knobs: ClassVar[dict[str, float]] = {"label_smoothing": 0.0}

    seen: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def weight(self, batch: Batch) -> float:
        return float(len(batch["labels"]))

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        dropout = next(part.p for part in model.modules() if isinstance(part, nn.Dropout))
        seen = {"smoothing": knobs["label_smoothing"], "examples": float(len(batch["labels"])), "dropout": dropout}
        self.seen.append({**seen, "sum": float(batch["inputs"].double().sum())})
        return Classification()(model, batch, knobs)


def test_every_knob_follows_the_budget(tmp_path: Path) -> None:
    """Batch size, dropout, weight decay and label smoothing as schedules: journaled as they were, and used as journaled."""
    line = {"linear": {"start": 0.25, "end": 1.0}}
    knobs = {
        "lr": {"peak": 0.01, "schedule": SCHEDULE},
        "weight_decay": {"peak": 0.4, "schedule": line},
        "batch_size": {"peak": 40.0, "schedule": line},
        "dropout": {"peak": 0.5, "schedule": line},
        "label_smoothing": {"peak": 0.2, "schedule": line},
    }
    watching = Watching()
    recipe = with_objective(digits(budget="10 steps", stages=[plain_stage(knobs=knobs)], micro_batch=64), watching)
    result = outlay.run(recipe, tmp_path / "run")
    steps, seen = lines(tmp_path / "run", "step"), watching.seen[2:]  # the first two calls measure what a step costs
    assert len(steps) == len(seen) == 10
    for number, (step, saw) in enumerate(zip(steps, seen, strict=True)):
        share = 0.25 + 0.75 * number / 10
        assert step["progress"] == number / 10
        expected = {"weight_decay": 0.4 * share, "batch_size": 40 * share, "dropout": 0.5 * share, "label_smoothing": 0.2 * share}
        expected["lr"] = recipe.stages[0].knobs["lr"].value(number / 10)
        assert step["knobs"] == pytest.approx(expected)
        examples = round(40 * share)
        assert step["charged"]["train"]["examples"] == saw["examples"] == examples
        assert (saw["smoothing"], saw["dropout"]) == (step["knobs"]["label_smoothing"], step["knobs"]["dropout"])
    assert result.accounts["train"]["examples"] == sum(saw["examples"] for saw in seen)
    # the optimizer followed too: its groups are saved as the last step left them
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    matrices, vectors = load_checkpoint(newest).plain["groups"]
    assert matrices["lr"] == vectors["lr"] == steps[-1]["knobs"]["lr"]
    assert matrices["weight_decay"] == steps[-1]["knobs"]["weight_decay"] and vectors["weight_decay"] == 0.0


def test_batches_come_one_after_the_other(tmp_path: Path) -> None:
    """What is trained on is the stream from its beginning, each example once an epoch, whatever else is drawn on the way."""
    watching = Watching()
    recipe = with_objective(digits(budget="8 steps", evaluate={"every": 0.25}), watching)
    outlay.run(recipe, tmp_path / "run")
    stream = recipe.stages[0].source.open(Context(recipe.seed))
    for saw in watching.seen[2:]:
        assert saw["sum"] == float(stream.draw(32)["inputs"].double().sum())
        stream.advance(32)
    assert len({saw["sum"] for saw in watching.seen[2:]}) == 8


def test_a_controller_acts_on_what_the_run_shows(tmp_path: Path) -> None:
    plateau = {"patience": 1, "threshold": 0.1, "factor": 0.5}
    stage = plain_stage(knobs={"lr": {"peak": 0.01, "schedule": {"plateau": plateau}}})
    outlay.run(digits(budget="30 steps", stages=[stage]), tmp_path / "run")
    twin, rates = Plateau(patience=1, threshold=0.1, factor=0.5), set()
    for line in lines(tmp_path / "run", "step"):
        assert line["knobs"]["lr"] == 0.01 * twin.value(0.0)
        rates.add(line["knobs"]["lr"])
        twin.observe(record(line["step"], line["loss"]))
    assert len(rates) >= 3


def test_a_controller_may_watch_evaluations(tmp_path: Path) -> None:
    plateau = {"metric": "held_out/loss", "patience": 0, "threshold": 0.9, "factor": 0.5}
    stage = plain_stage(knobs={"lr": {"peak": 0.01, "schedule": {"plateau": plateau}}})
    outlay.run(digits(budget="20 steps", stages=[stage], evaluate={"exams": [EXAM], "every": 0.2}), tmp_path / "run")
    rates = [line["knobs"]["lr"] for line in lines(tmp_path / "run", "step")]
    # evaluations at progress 0.2, 0.4 ...; the first one is the best so far, none after it is better by nine tenths
    assert rates == [0.01] * 8 + [0.005] * 4 + [0.0025] * 4 + [0.00125] * 4


# ---- evaluations --------------------------------------------------------------------------------------------------------------------


def test_evaluations_come_when_the_recipe_says(finished_folder: Path) -> None:
    made = lines(finished_folder, "evaluation")
    assert [(line["when"], line["step"]) for line in made] == [("start", 0), ("during", 15), ("during", 30), ("during", 45), ("end", 60)]
    assert [line["progress"] for line in made] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert all(line["charged"]["eval"]["examples"] == 64 for line in made)


def test_without_a_start_or_exams_nothing_is_evaluated(tmp_path: Path) -> None:
    late = outlay.run(digits(budget="4 steps", evaluate={"exams": [EXAM], "start": False}), tmp_path / "late")
    assert late.metrics_start == {} and [line["when"] for line in lines(tmp_path / "late", "evaluation")] == ["end"]
    never = outlay.run(digits(budget="4 steps", evaluate={"every": 0.5}), tmp_path / "never")
    assert never.metrics == {} and lines(tmp_path / "never", "evaluation") == [] and "eval" not in never.accounts


# ---- pieces and memory --------------------------------------------------------------------------------------------------------------


def test_a_memory_ceiling_cuts_the_batch_and_changes_nothing_else(tmp_path: Path) -> None:
    recipe = language(budget="5 steps")
    whole = outlay.plan(recipe).memory
    assert whole is not None
    free = outlay.run(recipe, tmp_path / "free")
    held = outlay.run(language(budget=f"5 steps, {whole.total} bytes"), tmp_path / "held")
    (choice,) = [line for line in lines(tmp_path / "held", "decision") if "micro-batch" in line["what"]]
    assert "micro-batch 8" in lines(tmp_path / "free", "decision")[0]["what"] and "micro-batch 8" not in choice["what"]
    assert "pieces of the batch of 8" in choice["why"]
    assert held.plan is not None and held.plan["micro_batch"] < 8 and held.plan["memory"]["total"] <= 0.9 * whole.total
    for name in ("tokens", "flops", "examples"):
        assert held.accounts["train"][name] == free.accounts["train"][name]
    losses = [[line["loss"] for line in lines(tmp_path / run, "step")] for run in ("free", "held")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_recipes_micro_batch_is_taken(tmp_path: Path) -> None:
    outlay.run(digits(budget="2 steps", micro_batch=5), tmp_path / "run")
    assert lines(tmp_path / "run", "decision")[0]["what"] == "stage train: micro-batch 5"
    assert lines(tmp_path / "run", "run")[0]["micro_batches"] == [5]


# ---- stages -------------------------------------------------------------------------------------------------------------------------


def two_texts(**changes: Any) -> Recipe:
    def stage(name: str, texts: list[str], **more: Any) -> dict[str, Any]:
        source = {"text": {"texts": texts, "length": 32, "held_out_share": 0.0}}
        return {"name": name, "source": source, "batch_size": 4, "knobs": {"lr": {"peak": 0.003, "schedule": "linear"}}, **more}

    stages = [stage("fruit", list(DOCUMENTS[:12]), share=3), stage("trees", list(DOCUMENTS[12:]), batch_size=2)]
    return language(**{"budget": "2500 tokens", "stages": stages, **changes})


def test_two_stages_share_the_budget(tmp_path: Path) -> None:
    """128 tokens a step in the first, 64 in the second: three quarters are 1875, of which 14 steps use 1792; the other 708 buy 11."""
    result = outlay.run(two_texts(), tmp_path / "run")
    assert audit(tmp_path / "run") == [] and result.ended_by == "tokens"
    assert [(stage["name"], stage["steps"], stage["spent"]["tokens"]) for stage in result.stages] == [
        ("fruit", 14, 1792.0),
        ("trees", 11, 704.0),
    ]
    begun = lines(tmp_path / "run", "stage")
    assert [line["limits"]["tokens"] for line in begun] == [[0.0, 1875.0], [1792.0, 2500.0]]
    for name, count, start, end in (("fruit", 14, 0, 1875), ("trees", 11, 1792, 2500)):
        mine = [line for line in lines(tmp_path / "run", "step") if line["stage"] == name]
        each = 128 if name == "fruit" else 64
        assert [line["progress"] for line in mine] == pytest.approx([each * k / (end - start) for k in range(count)])
        assert [line["knobs"]["lr"] for line in mine] == pytest.approx([0.003 * (1 - line["progress"]) for line in mine])
    assert len(begun) == 2 and [line["step"] for line in lines(tmp_path / "run", "checkpoint")] == [0, 14, 25]


# ---- seeds --------------------------------------------------------------------------------------------------------------------------


def test_a_seed_decides_everything(finished_folder: Path, tmp_path: Path) -> None:
    recipe = digits(evaluate={"exams": [EXAM], "every": 0.25}, checkpoints={"every_steps": 10})
    outlay.run(recipe, tmp_path / "same")
    assert weights(tmp_path / "same") == weights(finished_folder)
    # how often it is saved and evaluated changes nothing
    outlay.run(digits(), tmp_path / "plain")
    assert weights(tmp_path / "plain") == weights(finished_folder)
    outlay.run(dataclasses.replace(recipe, seed=1), tmp_path / "other")
    assert weights(tmp_path / "other") != weights(finished_folder)


# ---- numbers that break -------------------------------------------------------------------------------------------------------------


def poisoned(*steps: int, of: int = 40, **changes: Any) -> Recipe:
    """A recipe whose loss is not a number at these steps."""
    recipe = digits(**{"budget": f"{of} steps", "checkpoints": {"every_steps": 10}, **changes})
    return with_objective(recipe, Poisoned(), poison=Knob(1.0, At(tuple((step - 1) / of for step in steps))))


def outcomes(folder: Path) -> list[int]:
    return [line["step"] for line in lines(folder, "step") if line["outcome"] == "skipped"]


def rolled_back(folder: Path) -> list[str]:
    return [
        line["what"].removeprefix("rolled back to the weights of step ")
        for line in lines(folder, "decision")
        if "rolled back" in line["what"]
    ]


def test_a_bad_step_is_skipped_and_stays_spent(tmp_path: Path) -> None:
    result = outlay.run(poisoned(3, 7, 12, 13, 30), tmp_path / "run")
    assert outcomes(tmp_path / "run") == [3, 7, 12, 13, 30] and rolled_back(tmp_path / "run") == []
    assert result.steps == 40 and result.accounts["train"]["examples"] == 40 * 32
    assert [line["what"] for line in lines(tmp_path / "run", "decision")[1:]] == [f"step {n} skipped" for n in (3, 7, 12, 13, 30)]
    assert all(math.isnan(line["loss"]) == (line["step"] in (3, 7, 12, 13, 30)) for line in lines(tmp_path / "run", "step"))
    assert result.stages[0]["final_loss"] == pytest.approx(
        sum(line["loss"] for line in lines(tmp_path / "run", "step") if line["outcome"] == "ok" and line["step"] > 19) / 20
    )


def test_patience_counts_bad_steps_in_a_row(tmp_path: Path) -> None:
    """Three in a row go back to the last checkpoint; three with a good one between do not."""
    outlay.run(poisoned(14, 15, 16, 23, 24, 26, 27), tmp_path / "run")
    assert outcomes(tmp_path / "run") == [14, 15, 16, 23, 24, 26, 27]
    assert rolled_back(tmp_path / "run") == ["10"]


def test_rolling_back_puts_back_weights_and_optimizer_but_not_the_data(tmp_path: Path) -> None:
    """After going back from step 14, steps 15 on are those of a run that never took steps 11 to 13."""
    outlay.run(poisoned(14, health={"nonfinite": "roll_back"}), tmp_path / "run")
    assert rolled_back(tmp_path / "run") == ["10"] and result_of(tmp_path / "run")["steps"] == 40
    outlay.run(poisoned(11, 12, 13, 14, health={"patience": 9}), tmp_path / "never")
    assert weights(tmp_path / "run") == weights(tmp_path / "never")


def test_roll_backs_in_a_row_are_an_end(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"not finite at step 16; lower the learning rate.*run directory"):
        outlay.run(poisoned(14, 15, 16, health={"nonfinite": "roll_back"}), tmp_path / "run")
    assert rolled_back(tmp_path / "run") == ["10", "10"]
    # with good steps between, they are not
    outlay.run(poisoned(5, 14, 15, 17, 18, health={"nonfinite": "roll_back"}), tmp_path / "well")
    assert len(rolled_back(tmp_path / "well")) == 5


def test_skipping_escalates_to_going_back_and_then_to_the_end(tmp_path: Path) -> None:
    with pytest.raises(RunFailed):
        outlay.run(poisoned(*range(5, 30), health={"patience": 2}), tmp_path / "run")
    assert outcomes(tmp_path / "run") == [5, 6, 7, 8, 9, 10] and rolled_back(tmp_path / "run") == ["0", "0"]


def test_a_run_that_must_stop_leaves_result_checkpoint_and_report(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="not finite at step 23"):
        outlay.run(poisoned(23, health={"nonfinite": "stop"}), tmp_path / "run")
    told = result_of(tmp_path / "run")
    assert (told["exit_code"], told["ended_by"], told["steps"]) == (4, "failure", 23)
    assert (tmp_path / "run" / "report.html").is_file() and not (tmp_path / "run" / "model").exists()
    assert [path.name for path in sorted((tmp_path / "run" / "checkpoints").iterdir())] == ["step-00000010", "step-00000020"]
    assert lines(tmp_path / "run", "end")[0]["message"].startswith("the loss or gradient was not finite at step 23")
    assert audit(tmp_path / "run") == []
    # and it can be gone on with, once the cause is out of the way
    healed: Result = outlay.resume(tmp_path / "run", recipe=poisoned())
    assert healed.exit_code == 0 and healed.steps == 40 and healed.lost["steps"] == 3
