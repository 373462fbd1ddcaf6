"""Teachers in TRL's trainers: what is chosen is generated for, and what came of it is learnt."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hosted import identical, language_model, record, weights
from test_trl import COMMON, tokenizer

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.context import Context
from outlay.errors import InputError
from outlay.estimators import Beta, NearestNeighbour
from outlay.integrations.transformers import BudgetCallback
from outlay.integrations.trl import ROW, TeacherCallback, TeacherSampler
from outlay.teachers import Asking, EasyToHard, Floor, Gain, Pcl, Sec, SkillIt, Uniform
from outlay.teachers.base import Stateless, even

PROMPTS = ["ab", "cd", "ef", "gh", "ij", "kl"]
#: three arms of 2, 1 and 3 rows
KINDS = ["x", "y", "x", "z", "z", "z"]
ROWS = {"x": [0, 2], "y": [1], "z": [3, 4, 5]}


@dataclass(frozen=True)
class Scripted:
    """Chooses arms in a fixed endless order and remembers what it is asked and told."""

    script: tuple[int, ...]
    askings: list[Asking] = field(default_factory=list)
    updates: list[tuple[list[int], list[Outcome]]] = field(default_factory=list)

    def open(self, arms: Sequence[Arm], context: Context) -> ScriptedLessons:
        return ScriptedLessons(self, len(arms))


@dataclass
class ScriptedLessons(Stateless):
    spec: Scripted
    arms: int

    def shares(self, asking: Asking) -> FloatArray:
        return even(self.arms)

    def choose(self, asking: Asking) -> IntArray:
        start = sum(one.count for one in self.spec.askings)
        self.spec.askings.append(asking)
        return np.array([self.spec.script[i % len(self.spec.script)] for i in range(start, start + asking.count)], np.int64)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        self.spec.updates.append((chosen.tolist(), list(outcomes)))


class Run:
    """A trainer of the tiny Llama, and what its reward function saw."""

    def __init__(self, folder: Path, algorithm: str = "GRPO", rewards: Any = None, **arguments: Any) -> None:
        import trl
        from datasets import Dataset

        torch.manual_seed(0)
        self.batches: list[list[int]] = []
        self.scores: list[list[float | None]] = []
        self.worth = rewards or (lambda row, i: float(i % 2))
        columns = {"prompt": PROMPTS, "kind": KINDS, "level": [2, 1, 4, 5, 5, 5]}
        data = arguments.pop("train_dataset", None) or Dataset.from_dict(columns)
        functions, evaluated = arguments.pop("functions", [self.reward]), arguments.pop("eval_dataset", None)
        defaults: dict[str, Any] = {"num_generations": 4, "max_completion_length": 3, "max_steps": 4, "per_device_train_batch_size": 8}
        if algorithm == "RLOO":
            defaults["beta"] = 0.0  # no reference model, which would be loaded by name
        settings = getattr(trl, f"{algorithm}Config")(str(folder), **{**COMMON, **defaults, **arguments})
        self.trainer: Any = getattr(trl, f"{algorithm}Trainer")(
            model=language_model(),
            reward_funcs=functions,
            args=settings,
            train_dataset=data,
            eval_dataset=evaluated,
            processing_class=tokenizer(),
        )

    def reward(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
        if ROW not in columns:  # an evaluation
            return [0.0] * len(prompts)
        rows = columns[ROW]
        assert prompts == [PROMPTS[row] for row in rows] and columns["kind"] == [KINDS[row] for row in rows]
        self.batches.append(rows)
        self.scores.append([self.worth(row, i) for i, row in enumerate(rows)])
        return self.scores[-1]


# ---- the sampler ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "questions", "answers", "repeats"), [(7, 3, 2, 4), (6, 3, 1, 1), (5, 1, 3, 2)])
def test_rows_chosen_in_order_come_as_the_trainers_own_sampler_gives_them(rows: int, questions: int, answers: int, repeats: int) -> None:
    from trl.trainer.utils import RepeatSampler

    counter = iter(range(rows))
    mine = TeacherSampler(lambda count: [next(counter) for _ in range(count)], rows, questions, answers, repeats)
    theirs = RepeatSampler(range(rows), answers, questions, repeats, shuffle=False)
    assert list(mine) == list(theirs) and len(mine) == len(theirs)


def test_a_choice_is_made_when_its_first_row_is_read_and_again_in_another_epoch() -> None:
    asked: list[int] = []

    def choose(count: int) -> list[int]:
        asked.append(count)
        return [len(asked)] * count

    sampler = TeacherSampler(choose, 4, 2, 2, 3)
    read = iter(sampler)
    first = [next(read) for _ in range(12)]
    assert first == [1] * 12 and asked == [2]
    assert next(read) == 2 and asked == [2, 2] and sampler.chosen == [1, 1, 2, 2]
    sampler.begin_with([7, 8])
    assert list(sampler) == [7, 7, 8, 8] * 3 + [3] * 12 and sampler.chosen == [7, 8, 3, 3]
    assert set(sampler) == {4, 5}  # what was begun with is begun with once


def test_fewer_rows_than_a_generation_asks_are_one_generation_an_epoch() -> None:
    sampler = TeacherSampler(lambda count: [0] * count, 2, 4, 2, 1)
    assert len(sampler) == len(list(sampler)) == 8


# ---- what is chosen is generated for, and rewards come to its arm -------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["GRPO", "RLOO"])
def test_what_a_teacher_says_is_generated_for_and_told_back(tmp_path: Path, algorithm: str) -> None:
    teacher = Scripted((2, 0, 1))
    run = Run(tmp_path, algorithm, rewards=lambda row, i: row + float(i % 4 == 3))
    callback = TeacherCallback(teacher, category="kind", difficulty="level").attach(run.trainer)
    assert [(arm.name, arm.difficulty, arm.size) for arm in callback.arms] == [("x", 3.0, 2), ("y", 1.0, 1), ("z", 5.0, 3)]
    run.trainer.train()
    kinds = [[KINDS[row] for row in rows] for rows in run.batches]
    # two questions a generation, four answers each
    assert kinds == [["z"] * 4 + ["x"] * 4, ["y"] * 4 + ["z"] * 4, ["x"] * 4 + ["y"] * 4, ["z"] * 4 + ["x"] * 4]
    assert [chosen for chosen, _ in teacher.updates] == [[2, 0], [1, 2], [0, 1], [2, 0]]
    for rows, (chosen, outcomes) in zip(run.batches, teacher.updates, strict=True):
        for group, (arm, one) in enumerate(zip(chosen, outcomes, strict=True)):
            row = rows[4 * group]
            assert rows[4 * group : 4 * group + 4] == [row] * 4 and row in ROWS["xyz"[arm]] and one.arm == arm
            assert one.rewards == (row, row, row, row + 1.0)
            assert one.advantages[0] == one.advantages[1] < 0 < one.advantages[3] and sum(one.advantages) == pytest.approx(0, abs=1e-5)
    assert callback.asked == {"x": 3, "y": 2, "z": 3} and sum(callback.shares.values()) == pytest.approx(1)
    # an arm's rows all come before one comes again
    z = [rows[0] for rows in (batch[i : i + 4] for batch in run.batches for i in (0, 4)) if KINDS[rows[0]] == "z"]
    assert sorted(z) == [3, 4, 5]


def test_advantages_are_the_trainers_own(tmp_path: Path) -> None:
    teacher = Scripted((0,))
    run = Run(tmp_path, max_steps=1, scale_rewards="none")
    TeacherCallback(teacher, category="kind").attach(run.trainer)
    run.trainer.train()
    assert [one.advantages for one in teacher.updates[0][1]] == [(-0.5, 0.5, -0.5, 0.5)] * 2


def test_rewards_are_weighted_and_summed_and_what_nobody_judged_is_left_out(tmp_path: Path) -> None:
    teacher = Scripted((1,))

    def first(completions: list[str], **columns: Any) -> list[float | None]:
        return [1.0, None, None, 0.0] * (len(completions) // 4)

    def second(completions: list[str], **columns: Any) -> list[float | None]:
        return [1.0, None, 0.5, 1.0] * (len(completions) // 4)

    run = Run(tmp_path, max_steps=1, functions=[first, second], reward_weights=[1.0, 2.0])
    TeacherCallback(teacher, category="kind").attach(run.trainer)
    run.trainer.train()
    for one in teacher.updates[0][1]:
        assert one.rewards == (3.0, 1.0, 2.0) and len(one.advantages) == 3


@pytest.mark.parametrize(
    ("arguments", "lag"),
    [
        ({}, 1),  # one generation a step, one batch read ahead
        ({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}, 1),
        ({"num_iterations": 2}, 0),  # the next one is read during the second iteration
        ({"per_device_train_batch_size": 4, "steps_per_generation": 2}, 0),
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 1}, 2),
    ],
)
def test_a_choice_knows_all_generations_but_the_latest_few(tmp_path: Path, arguments: dict[str, Any], lag: int) -> None:
    teacher, known = Scripted((0, 2)), list[int]()
    run = Run(tmp_path, max_steps=6, **arguments)
    callback = TeacherCallback(teacher, Beta(), category="kind").attach(run.trainer)
    choose = callback.sampler._choose
    callback.sampler._choose = lambda count: known.append(len(teacher.updates)) or choose(count)  # type: ignore[func-returns-value]
    run.trainer.train()
    behind = [place - updates for place, updates in enumerate(known)]
    assert max(behind) == lag and all(asking.count == 2 for asking in teacher.askings)
    for asking, updates in zip(teacher.askings, known, strict=True):
        assert asking.seen.sum() == 8 * updates and asking.rates[1] == 0.5
    # whatever is repeated, a generation's rows are those of one choice
    assert all([KINDS[row] for row in rows] == ["x"] * 4 + ["z"] * 4 for rows in run.batches)
    assert len(teacher.updates) == len(run.batches)


def test_evaluations_teach_nothing(tmp_path: Path) -> None:
    from datasets import Dataset

    teacher = Scripted((0,))
    held = Dataset.from_dict({"prompt": ["ab", "cd"]})
    run = Run(tmp_path, max_steps=2, eval_dataset=held, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=8)
    callback = TeacherCallback(teacher, category="kind").attach(run.trainer)
    run.trainer.train()
    assert len(teacher.updates) == 2 and callback.asked == {"x": 4, "y": 0, "z": 0}


# ---- teachers ---------------------------------------------------------------------------------------------------------------------------


def test_a_uniform_teacher_divides_evenly(tmp_path: Path) -> None:
    run = Run(tmp_path, max_steps=4, per_device_train_batch_size=12)
    callback = TeacherCallback(Uniform(), category="kind").attach(run.trainer)
    run.trainer.train()
    assert callback.asked == {"x": 4, "y": 4, "z": 4}


def test_every_row_is_an_arm_where_no_category_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path, max_steps=1, per_device_train_batch_size=24)
    callback = TeacherCallback(Uniform()).attach(run.trainer)
    run.trainer.train()
    assert [(arm.name, arm.text, arm.size) for arm in callback.arms] == [(str(i), text, 1) for i, text in enumerate(PROMPTS)]
    assert sorted(run.batches[0][::4]) == [0, 1, 2, 3, 4, 5] and callback.asked == {"": 6}


def test_sec_moves_mass_to_the_arm_with_signal(tmp_path: Path) -> None:
    run = Run(tmp_path, rewards=lambda row, i: float(KINDS[row] == "z" and i % 2), max_steps=8, per_device_train_batch_size=16)
    callback = TeacherCallback(Sec(tau=0.3), category="kind").attach(run.trainer)
    assert callback.shares == pytest.approx({"x": 1 / 3, "y": 1 / 3, "z": 1 / 3})
    run.trainer.train()
    assert callback.shares["z"] > 0.8 and callback.shares["x"] == callback.shares["y"]
    assert callback.asked["z"] > 16 and sum(callback.asked.values()) == 32


def test_progress_is_steps_taken_or_what_is_said(tmp_path: Path) -> None:
    run = Run(tmp_path / "steps", max_steps=4)
    TeacherCallback(EasyToHard(width=1), category="kind", difficulty="level").attach(run.trainer)
    run.trainer.train()
    # y, x and z for a third of the steps each. Choices are made after 0, 0 and 1 of 4 steps, and after 3 where a new epoch begins
    assert [KINDS[rows[0]] for rows in run.batches] == ["y", "y", "y", "z"]
    said = Run(tmp_path / "said", max_steps=2)
    TeacherCallback(EasyToHard(width=1), category="kind", difficulty="level", progress=lambda: 1.0).attach(said.trainer)
    said.trainer.train()
    assert [KINDS[rows[0]] for rows in said.batches] == ["z", "z"]


def test_estimators_that_read_texts_are_handed_them(tmp_path: Path) -> None:
    teacher = Scripted((0, 2))
    run = Run(tmp_path, rewards=lambda row, i: float(row == 3), max_steps=2)
    callback = TeacherCallback(teacher, NearestNeighbour(), category="kind").attach(run.trainer)
    run.trainer.train()
    assert all(one.features is not None and one.features.shape == (256,) for _, outcomes in teacher.updates for one in outcomes)
    with pytest.raises(InputError, match="reads what the model makes of a question.*reads='text'"):
        TeacherCallback(Uniform(), NearestNeighbour(reads="model"))
    assert callback.sampler.chosen


def test_a_teacher_that_looks_at_more_questions_than_are_asked_moves_past_them_all(tmp_path: Path) -> None:
    run = Run(tmp_path, max_steps=3, rewards=lambda row, i: float(KINDS[row] == "x"))
    callback = TeacherCallback(Pcl(over=3), Beta(), category="kind").attach(run.trainer)
    run.trainer.train()
    # six candidates a choice, two of each arm; those nearest to 1/2 are kept, and only x and the unknown move away from it
    assert callback.sampler._choose(2) and sum(callback.asked.values()) == 6
    assert callback._questions.state_dict()["next"] == [8, 8, 8]
    with pytest.raises(InputError, match="learns from evaluations"):
        TeacherCallback(Floor(SkillIt(), 0.5), category="kind").attach(Run(tmp_path / "floor").trainer)


def test_a_teacher_that_ranks_questions_passes_each_through_the_model_once(tmp_path: Path) -> None:
    run, passes = Run(tmp_path, max_steps=3), list[int]()
    callback = TeacherCallback(Gain(sigma=0.3, step=0.0), category="kind", by="question").attach(run.trainer)
    assert [arm.category for arm in callback.arms] == KINDS
    ranked = callback._choosing.lessons.ranked  # type: ignore[attr-defined]
    callback._choosing.lessons.ranked = lambda scores: passes.append(len(scores)) or ranked(scores)  # type: ignore[attr-defined,func-returns-value]
    run.trainer.train()
    assert passes == [6] and len({tuple(sorted(set(rows))) for rows in run.batches}) == 1


# ---- budgets and checkpoints ------------------------------------------------------------------------------------------------------------


def test_a_budget_ends_the_run_and_tells_the_teacher_how_far_it_is(tmp_path: Path) -> None:
    run, teacher = Run(tmp_path, max_steps=-1), Scripted((2, 0))
    TeacherCallback(teacher, category="kind").attach(run.trainer)
    budget = BudgetCallback("80 rollouts").attach(run.trainer)
    inner = run.trainer.reward_funcs[0]

    def charged(completions: list[str], **columns: Any) -> list[float | None]:
        budget.meter.charge("rollout", rollouts=len(completions))
        return inner(completions=completions, **columns)

    run.trainer.reward_funcs[0] = charged
    run.trainer.train()
    result = record(budget), budget.result
    assert result[1].ended_by == "rollouts" and len(run.batches) == len(teacher.updates) == 10
    progress = [asking.progress for asking in teacher.askings]
    assert progress == sorted(progress) and progress[0] == 0 and 0.7 <= progress[-1] <= 1


@pytest.mark.parametrize("arguments", [{}, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}])
@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_resumed_run_equals_one_that_never_stopped(tmp_path: Path, at: int, arguments: dict[str, Any]) -> None:
    # six rows and two questions a generation: an epoch has three steps, and step 3 is its end
    saves = {**arguments, "max_steps": 6, "save_strategy": "steps", "save_steps": at}
    whole = Run(tmp_path / "whole", rewards=_half, **saves)
    first = TeacherCallback(Sec(), category="kind").attach(whole.trainer)
    whole.trainer.train()
    again = Run(tmp_path / "again", rewards=_half, **saves)
    second = TeacherCallback(Sec(), category="kind").attach(again.trainer)
    again.trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{at}"))
    assert again.batches == whole.batches[at:]
    assert second.asked == first.asked and second.shares == first.shares and second.state_dict() == first.state_dict()
    assert identical(weights(again.trainer.model), weights(whole.trainer.model))


def _half(row: int, i: int) -> float:
    return float(KINDS[row] == "z" and i % 2)


def test_a_run_resumed_within_a_generation_tells_what_was_generated_anew(tmp_path: Path) -> None:
    saves = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "num_iterations": 2}
    whole = Run(tmp_path, **saves)
    TeacherCallback(Scripted((0, 2)), category="kind").attach(whole.trainer)
    whole.trainer.train()
    again, teacher = Run(tmp_path / "again", **saves), Scripted((1, 1))
    callback = TeacherCallback(teacher, category="kind").attach(again.trainer)
    again.trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    told = Counter(KINDS[rows[i]] for rows in again.batches for i in (0, 4))
    assert again.batches[0] == whole.batches[1]
    assert Counter("xyz"[arm] for chosen, _ in teacher.updates for arm in chosen) == told
    assert sum(callback.asked.values()) == 4 + sum(told.values())


def test_the_trainer_may_begin_where_it_likes_without_skipping(tmp_path: Path) -> None:
    saves = {"max_steps": 3, "save_strategy": "steps", "save_steps": 2}
    whole = Run(tmp_path, **saves)
    TeacherCallback(Scripted((0,)), category="kind").attach(whole.trainer)
    whole.trainer.train()
    again = Run(tmp_path / "again", **saves, ignore_data_skip=True)
    TeacherCallback(Scripted((1,)), category="kind").attach(again.trainer)
    again.trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.batches == [[1] * 8]


def test_a_second_training_goes_on_with_what_is_known(tmp_path: Path) -> None:
    run, teacher = Run(tmp_path, max_steps=2), Scripted((0,))
    callback = TeacherCallback(teacher, category="kind").attach(run.trainer)
    run.trainer.train()
    run.trainer.train()
    assert callback.asked["x"] == 8 and len(teacher.updates) == 4
    # two choices of each training were used and one was made ahead; every choice has a random stream of its own
    assert len(teacher.askings) == 6 and len({asking.rng.random() for asking in teacher.askings}) == 6


def test_the_example_turns_to_what_can_be_learnt(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    command = [sys.executable, str(root / "examples" / "trl_teacher.py"), "4"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    asked = {kind: int(count) for kind, count in re.findall(r"(\w+) (\d+)(?:,|$)", done.stdout.split("in all: ")[1].strip())}
    assert min(asked["vowels"], asked["digits"]) > max(asked["anything"], asked["impossible"]), done.stdout


# ---- what cannot be -----------------------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_before_training(tmp_path: Path) -> None:
    from datasets import Dataset

    run = Run(tmp_path)
    with pytest.raises(InputError, match="no column 'kinds'; did you mean 'kind'"):
        TeacherCallback(Uniform(), category="kinds").attach(run.trainer)
    with pytest.raises(InputError, match="goes by difficulty, but the arm 'x' has none"):
        TeacherCallback(EasyToHard(), category="kind").attach(run.trainer)
    with pytest.raises(InputError, match="learns from evaluations of every arm"):
        TeacherCallback(SkillIt(), category="kind").attach(run.trainer)
    with pytest.raises(InputError, match="say in which column"):
        TeacherCallback(Uniform(), by="kind")
    with pytest.raises(InputError, match=r"call TeacherCallback\(...\).attach\(trainer\)"):
        TeacherCallback(Uniform()).on_train_begin(run.trainer.args, run.trainer.state, run.trainer.control)
    with pytest.raises(InputError, match="object has no _get_train_sampler; give a GRPOTrainer"):
        TeacherCallback(Uniform()).attach(object())
    for name, value in (("dataloader_num_workers", 2), ("remove_unused_columns", True), ("restore_callback_states_from_checkpoint", True)):
        before = getattr(run.trainer.args, name)
        setattr(run.trainer.args, name, value)
        with pytest.raises(InputError, match=f"{name} must be"):
            TeacherCallback(Uniform()).attach(run.trainer)
        setattr(run.trainer.args, name, before)
    assert ROW not in run.trainer.train_dataset.column_names  # nothing has been changed so far
    TeacherCallback(Uniform()).attach(run.trainer)
    with pytest.raises(InputError, match="as if it had a teacher already"):
        TeacherCallback(Uniform()).attach(run.trainer)
    run.trainer.train_dataset = Dataset.from_dict({"prompt": PROMPTS}).to_iterable_dataset()
    with pytest.raises(InputError, match="found IterableDataset; give a datasets.Dataset"):
        TeacherCallback(Uniform()).attach(run.trainer)


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    monkeypatch.setattr(type(run.trainer.accelerator), "num_processes", property(lambda self: 2))
    with pytest.raises(InputError, match="chooses for one process on one device, found 2 processes"):
        TeacherCallback(Uniform()).attach(run.trainer)


def test_another_dataset_does_not_take_up_a_checkpoint(tmp_path: Path) -> None:
    first, second = Run(tmp_path / "1"), Run(tmp_path / "2")
    one = TeacherCallback(Uniform(), category="kind").attach(first.trainer)
    other = TeacherCallback(Uniform()).attach(second.trainer)
    with pytest.raises(InputError, match="there are 6 arms, but 3 when the run was saved"):
        other.load_state_dict(one.state_dict())
