"""Pipelines: how a budget is divided and rolls over, what stands for what, what answers are kept, and kills in every kind of leg."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import child, lines, wait, weights

import outlay
from outlay import cli
from outlay.budget import Budget
from outlay.catalog import build_dataclass
from outlay.context import Context
from outlay.errors import InputError, Problem
from outlay.prompts import ReasoningPrompts
from outlay.rewards.panel import Panel
from outlay.rng import derive
from outlay.rollout.base import Request, Sampling, Work
from outlay.rollout.local import Local, LocalGenerator
from outlay.testing import FakeClock
from outlay.train import answers as answering
from outlay.train import load_recipe, piping, update
from outlay.train.answers import Answers, Judged, rows_of, write_answers
from outlay.train.pipeline import Leg, Pipeline, PipelineFailed, dump_pipeline, load_pipeline
from outlay.train.piping import PipelineResult, resume_pipeline, run_pipeline
from outlay.train.reading import bundled_pipelines, holds_pipeline

TASKS = {"reverse": [1]}
MODEL = {"transformer": {"hidden": 16, "layers": 1, "heads": 2, "context": 32}}


def trained(source: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Plain values of a supervised recipe."""
    stage = {
        "source": source or {"reasoning": {"tasks": TASKS, "examples": 30, "longest": 32}}, "batch_size": 8, "knobs": {"lr": 0.01},
    }  # fmt: skip
    return {"model": MODEL, "threads": 1, "checkpoints": {"every_steps": 2}, "stages": [stage], **changes}


def asked(**changes: Any) -> dict[str, Any]:
    """Plain values of answers: 12 questions, 4 together."""
    return {
        "model": {"pretrained": {"path": "$base"}}, "prompts": {"reasoning": {"tasks": TASKS}}, "rewards": {"right": "exact"},
        "questions": 12, "samples": 2, "new_tokens": 6, "together": 4, "threads": 1, **changes,
    }  # fmt: skip


def three(budget: str = "12 steps", **changes: Any) -> Pipeline:
    """A base, its answers, and a model that begins with the base and learns from them."""
    student = trained({"table": {"path": "$spoken.file", "longest": 32}}, model={"pretrained": {"path": "$base"}})
    legs = [
        {"name": "base", "share": 2, "recipe": trained()},
        {"name": "spoken", "answers": asked()},
        {"name": "student", "recipe": student},
    ]
    return load_pipeline({"name": "three", "budget": budget, "legs": legs, **changes})


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PipelineResult]:
    """The pipeline that nobody kills."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    return folder, run_pipeline(three(), folder)


# ---- dividing -----------------------------------------------------------------------------------------------------------------------


def test_a_unit_is_divided_among_the_legs_that_spend_it_and_what_is_left_rolls_over() -> None:
    made = three("120 steps, 1000 rollouts, 600k tokens, 100 labels, 50M params")
    nothing = dict.fromkeys(made.budget.limits, 0.0)
    # steps are the two recipes' (2 : 1), tokens everybody's (2 : 1 : 1), rollouts the answers' alone, and labels not divided
    first = made.part(0, nothing)
    assert dict(first.limits) == {"steps": 80, "tokens": 300_000, "labels": 100} and first.ceilings == {"params": 50e6}
    # the base has left 20 steps and 100k tokens
    second = made.part(1, nothing | {"steps": 60, "tokens": 200_000, "labels": 30})
    assert dict(second.limits) == {"rollouts": 1000, "tokens": 200_000}
    third = made.part(2, nothing | {"steps": 60, "tokens": 250_000, "rollouts": 10, "labels": 30})
    assert dict(third.limits) == {"steps": 60, "tokens": 350_000}


def test_seconds_keep_a_little_back_for_the_pipeline_itself() -> None:
    made = three("100s")
    assert made.part(0, {"seconds": 0.0}).limits["seconds"] == pytest.approx((100 - 3 * 0.05) / 2)
    assert made.part(2, {"seconds": 90.0}).limits["seconds"] == pytest.approx(10 - 0.05)
    assert made.part(2, {"seconds": 99.0}).limits["seconds"] == pytest.approx(1 - 0.01)


def test_money_goes_by_what_it_is_priced_by() -> None:
    made = three("$8 at $1/h")
    assert made.part(0, {}) == Budget({"usd": 4.0}, price=made.budget.price)


def test_nothing_left_is_told() -> None:
    with pytest.raises(InputError, match="nothing is left of the 12 steps for the leg 'student'"):
        three().part(2, {"steps": 12.0})


def test_what_a_leg_leaves_goes_to_those_after_it(tmp_path: Path) -> None:
    # answers ask 4 questions and leave most of their third of the rollouts' tokens to the student
    made = three("1600 tokens")
    legs = [made.legs[0], Leg("spoken", 1.0, answers=asked(questions=4, samples=4)), made.legs[2]]
    result = run_pipeline(Pipeline(made.budget, tuple(legs)), tmp_path / "out")
    base, spoken, student = result.legs
    assert base["limits"] == {"tokens": 800} and spoken["limits"] == {"tokens": (1600 - base["spent"]["tokens"]) // 2}
    assert spoken["ended_by"] == "questions" and spoken["spent"]["tokens"] < 250
    assert student["limits"] == {"tokens": 1600 - base["spent"]["tokens"] - spoken["spent"]["tokens"]}
    assert result.spent["tokens"] <= 1600 and result.spent["tokens"] == sum(leg["spent"]["tokens"] for leg in result.legs)
    assert result.ended_by == "tokens" and result.exit_code == 0


def test_the_books_say_where_each_unit_went(finished: tuple[Path, PipelineResult]) -> None:
    folder, result = finished
    assert result.budget == {"steps": {"limit": 12.0, "spent": 12.0}}
    assert result.went["steps"] == {"base": 8.0, "student": 4.0}
    assert result.went["rollouts"] == {"spoken": 24.0} and result.went["labels"] == {"base": 30.0}
    assert set(result.went["seconds"]) == {"base", "spoken", "student", "pipeline"}
    for unit, parts in result.went.items():
        assert result.spent[unit] == pytest.approx(sum(parts.values()))
    told = json.loads((folder / "result.json").read_text())
    assert told["went"] == result.went and told["legs"] == result.legs
    assert result.model == folder / "student" / "model" and (result.model / "model.safetensors").is_file()
    for leg in ("base", "spoken", "student"):
        outlay.report([folder / leg])


def test_seconds_are_kept_in_all(tmp_path: Path) -> None:
    made = three("8s")
    # many questions a part, so that even a model of a few steps ends some of its answers
    legs = (made.legs[0], Leg("spoken", answers=asked(questions=128, together=64)), made.legs[2])
    result = run_pipeline(Pipeline(made.budget, legs), tmp_path / "out")
    assert 4.0 < result.spent["seconds"] <= 8.5
    assert result.went["seconds"]["pipeline"] < 1.0


# ---- what stands for what -----------------------------------------------------------------------------------------------------------


def refused(problem: str, **legs: dict[str, Any]) -> None:
    plain = {"name": "x", "budget": "9 steps", "legs": [{"name": name, **leg} for name, leg in legs.items()]}
    with pytest.raises(InputError, match=problem):
        load_pipeline(plain)


def test_a_leg_begins_only_with_what_earlier_legs_left() -> None:
    base = {"recipe": trained()}
    begins = {"recipe": trained(model={"pretrained": {"path": "$base"}})}
    refused(r"legs\[0\].recipe.model.pretrained.path: the leg 'base' comes later", one=begins, base=base)
    refused(r"the leg 'base' is this very leg", base=begins)
    refused(r"\$base stands for no leg; did you mean 'bases'", bases=base, one=begins)
    refused(r"the leg 'base' is a recipe and leaves a model", base=base, one={"recipe": trained({"table": {"path": "$base.file"}})})
    wrong = {"recipe": trained(model={"pretrained": {"path": "$asked"}})}
    refused(r"the leg 'asked' is one of answers and leaves a file", base=base, asked={"answers": asked()}, one=wrong)


def test_the_rest_is_checked_before_anything_is_spent_with_its_place() -> None:
    base = {"recipe": trained()}
    refused(r"legs\[1\].answers.rewards.right: there is no method 'exat'", base=base, asked={"answers": asked(rewards={"right": "exat"})})
    refused(
        r"legs\[0\].recipe.stages\[0\].batch_size: must be > 0",
        base={"recipe": trained() | {"stages": [trained()["stages"][0] | {"batch_size": 0}]}},
    )
    refused(r"legs\[0\].recipe.budget: a leg's budget is its share", base={"recipe": trained(budget="3 steps")})
    refused(r"either a recipe or answers, found both", base={"recipe": trained(), "answers": asked()})
    refused(r"either a recipe or answers, found neither", base={})
    refused(r"share: must be a finite number > 0", base=base | {"share": 0})
    refused(r"a letter first, and not 'pipeline'", pipeline=base)
    refused(r"keep: right needs rewards", base=base, asked={"answers": asked(rewards={}, keep="right")})
    with pytest.raises(InputError, match="the leg name 'base' is used 2 times"):
        load_pipeline({"budget": "9 steps", "legs": [{"name": "base", **base}, {"name": "base", **base}]})


def test_a_budget_that_cannot_end_every_leg_is_refused() -> None:
    with pytest.raises(InputError, match=r"legs\[0\]: spends no rollouts, so that it would never end"):
        three("500 rollouts")
    with pytest.raises(InputError, match="limits rollouts, but no leg spends any"):
        load_pipeline({"budget": "9 steps, 10 rollouts", "legs": [{"name": "base", "recipe": trained()}]})
    with pytest.raises(InputError, match="1 steps cannot be divided into 2 parts"):
        three("1 steps")
    with pytest.raises(InputError, match="limits nothing that is used up"):
        three("60 labels")


def test_yaml_and_plain_values_are_the_same_thing(tmp_path: Path) -> None:
    path = tmp_path / "three.yaml"
    path.write_text(dump_pipeline(three()))
    assert load_pipeline(path) == three()
    assert load_pipeline(path, ["legs[1].answers.questions=3"], "7 steps").legs[1].answers["questions"] == 3  # type: ignore[index]
    assert holds_pipeline(path) and not holds_pipeline("quickstart")
    with pytest.raises(InputError, match=r"pipeline of several runs \(legs\)"):
        load_recipe(path)
    text = dump_pipeline(three()).replace("right: exact", "right: exactly")
    path.write_text(text)
    line = next(i for i, one in enumerate(text.splitlines(), 1) if "exactly" in one)
    with pytest.raises(InputError, match=rf"legs\[1\].answers.rewards.right \(line {line}\): .*did you mean 'rewards/exact'"):
        load_pipeline(path)


@pytest.mark.parametrize("name", sorted(bundled_pipelines()))
def test_bundled_pipelines_survive_the_round_trip(name: str) -> None:
    made = load_pipeline(name)
    assert made.name == name and load_pipeline(yaml.safe_load(dump_pipeline(made))) == made


def test_wrong_input_in_the_first_leg_leaves_nothing_behind(tmp_path: Path) -> None:
    missing = {"budget": "9 steps", "legs": [{"name": "base", "recipe": trained({"table": {"path": "no.jsonl"}})}]}
    with pytest.raises(InputError, match=r"no file no\.jsonl"):
        run_pipeline(load_pipeline(missing), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_input_in_a_later_leg_is_told_with_the_leg_and_can_be_mended(tmp_path: Path) -> None:
    path = tmp_path / "late.jsonl"
    plain = {
        "budget": "8 steps",
        "legs": [{"name": "base", "recipe": trained()}, {"name": "more", "recipe": trained({"table": {"path": str(path)}})}],
    }
    with pytest.raises(PipelineFailed, match="leg more: there is no file"):
        run_pipeline(load_pipeline(plain), tmp_path / "out")
    told = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (told["ended_by"], told["exit_code"], told["spent"]["steps"]) == ("failure", 4, 4.0)
    path.write_text("".join(json.dumps({"prompt": f"{i}=", "answer": "x"}) + "\n" for i in range(9)))
    before = (tmp_path / "out" / "base" / "journal.jsonl").read_bytes()
    assert run_pipeline(load_pipeline(plain), tmp_path / "out").spent["steps"] == 8
    assert (tmp_path / "out" / "base" / "journal.jsonl").read_bytes() == before


def test_a_folder_of_something_else_is_refused(tmp_path: Path, finished: tuple[Path, PipelineResult]) -> None:
    with pytest.raises(InputError, match="holds another pipeline"):
        run_pipeline(three("13 steps"), finished[0])
    (tmp_path / "strange.txt").touch()
    with pytest.raises(InputError, match="holds no pipeline"):
        run_pipeline(three(), tmp_path)
    with pytest.raises(InputError, match="holds no pipeline"):
        resume_pipeline(tmp_path)


def test_a_pipeline_that_has_ended_is_returned_as_it_is(finished: tuple[Path, PipelineResult]) -> None:
    folder, result = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert run_pipeline(three(), folder) == result == resume_pipeline(folder)
    changed = {path.name for path, at in before.items() if path.stat().st_mtime_ns != at}
    assert changed <= {"pipeline.lock"}


# ---- answers ------------------------------------------------------------------------------------------------------------------------


def test_the_file_holds_what_the_engine_writes(finished: tuple[Path, PipelineResult]) -> None:
    folder, result = finished
    loaded = outlay.make("models/pretrained", path=str(folder / "base" / "model")).build(0)
    questions = ReasoningPrompts({"reverse": (1,)}).open(Context(0, loaded.tokenizer)).draw(12)
    prompts = [tuple(loaded.tokenizer(question.text)["input_ids"]) for question in questions]
    requests = [Request(prompt, 2, 6, place) for place, prompt in enumerate(prompts)]
    work: list[Work] = []
    # one call where the leg made three: what is written does not depend on that
    written = Local().open(loaded.module, Context(0, loaded.tokenizer)).generate(
        requests, Sampling(), seed=derive(0, "train/answers"), leave=lambda one: not work.append(one)  # type: ignore[func-returns-value]
    )  # fmt: skip
    expected = []
    for one in written:
        question = questions[one.request]
        text = loaded.tokenizer.decode(one.tokens[:-1])
        if one.ended == "end":
            expected.append({"prompt": question.text, "answer": text, "reward": float(text == question.reference)})
    assert rows(folder / "spoken") == expected
    spent = result.legs[1]["spent"]
    assert spent["rollouts"] == 24 and spent["new_tokens"] == sum(len(one.tokens) for one in written)
    # shared prompts are read once; the last token of an answer is not read back
    assert spent["tokens"] == sum(len(prompt) for prompt in prompts) + sum(len(one.tokens) - 1 for one in written)
    assert spent["flops"] > 0 and spent["seconds"] > 0
    metrics = result.legs[1]["metrics"]
    assert (metrics["questions"], metrics["answers"], metrics["rows"]) == (12, 24, len(expected))
    assert metrics["length"] == pytest.approx(spent["new_tokens"] / 24)


A, B, C = "long and right", "right", "wrong"


def judged(text: str, value: float, right: bool, tokens: int = 5, ended: bool = True, told: bool = True) -> Judged:
    return Judged(text, tokens, ended, value, told, right)


def test_what_is_kept() -> None:
    group = [
        judged(C, 0.2, False), judged(A, 1.0, True, tokens=9), judged(B, 1.0, True), judged(B, 1.0, True), judged("cut", 0.0, False, ended=False),
        judged("?", 9.0, False, told=False), judged("last", -1.0, False),
    ]  # fmt: skip
    row = {"prompt": "p", "answer": B, "reward": 1.0}
    assert [one["answer"] for one in rows_of("p", group, "all")] == [C, A, B, B, "?", "last"]
    assert [one["reward"] for one in rows_of("p", group, "all")] == [0.2, 1.0, 1.0, 1.0, None, -1.0]
    assert rows_of("p", group, "right") == [row]
    assert rows_of("p", group, "right", per_question=5) == [row, row | {"answer": A}]
    assert rows_of("p", group, "best") == [row]
    assert rows_of("p", group, "pairs") == [{"prompt": "p", "chosen": B, "rejected": "last"}]
    assert rows_of("p", group, "hard_pairs") == [{"prompt": "p", "chosen": B, "rejected": C}]
    answers = [C, A, B, B, "cut", "?", "last"]
    assert rows_of("p", group, "groups") == [{"prompt": "p", "answers": answers, "rewards": [0.2, 1.0, 1.0, 1.0, 0.0, None, -1.0]}]


def test_groups_that_teach_nothing_are_left_out() -> None:
    wrong, right = [judged(C, 0.0, False), judged("w", 0.0, False)], [judged(B, 1.0, True)]
    for keep in ("right", "pairs", "hard_pairs", "groups"):
        assert rows_of("p", wrong, keep) == []
    for keep in ("pairs", "hard_pairs", "groups"):
        assert rows_of("p", right * 2, keep) == []
    assert rows_of("p", wrong, "best") == [{"prompt": "p", "answer": C, "reward": 0.0}]
    assert rows_of("p", [judged("cut", 1.0, False, ended=False)], "best") == []
    unended = [judged(B, 1.0, True), judged("cut", 0.0, False, ended=False)]
    assert rows_of("p", unended, "pairs") == [{"prompt": "p", "chosen": B, "rejected": "cut"}]


def spec(folder: Path, **changes: Any) -> Answers:
    problems: list[Problem] = []
    made = build_dataclass(Answers, asked(model={"pretrained": {"path": str(folder / "base" / "model")}}, **changes), "", problems)
    assert not problems
    return made  # type: ignore[no-any-return]


@pytest.mark.parametrize(("unit", "limit"), [("rollouts", 15), ("new_tokens", 61), ("tokens", 100), ("flops", 1e6)])
def test_answers_end_inside_their_budget(unit: str, limit: float, tmp_path: Path, finished: tuple[Path, PipelineResult]) -> None:
    result = write_answers(spec(finished[0]), Budget({unit: limit}), tmp_path)
    assert result.ended_by == unit and 0 < result.spent[unit] <= limit and result.metrics["questions"] <= 12
    whole = rows(finished[0] / "spoken")
    assert 0 < result.metrics["answers"] < 24 and len(rows(tmp_path)) == result.metrics["rows"]
    assert all(row in whole for row in rows(tmp_path))
    with pytest.raises(InputError, match="have been written"):
        write_answers(spec(finished[0]), Budget({unit: limit}), tmp_path)


def test_answers_end_on_the_clock_with_time_for_judging(tmp_path: Path, finished: tuple[Path, PipelineResult]) -> None:
    clock = FakeClock()
    made = spec(finished[0], questions=1000, engine=Ticking(clock))
    result = write_answers(made, Budget({"seconds": 20.0}), tmp_path, clock=clock)
    assert result.ended_by == "seconds" and 19.0 < result.spent["seconds"] <= 20.0
    assert result.accounts["rollout"]["seconds"] > 18.0


class Ticking:
    """An engine whose pieces take a tenth of a second on a simulated clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    def open(self, model: Any, context: Any) -> Any:
        inner, clock = Local().open(model, context), self.clock

        class Opened:
            def generate(self, requests: Any, sampling: Any, *, seed: int, leave: Callable[[Work], bool], hooks: Any = ()) -> Any:
                def asked(work: Work) -> bool:
                    granted = leave(work)
                    clock.advance(0.1 if granted else 0.0)
                    return granted

                return inner.generate(requests, sampling, seed=seed, leave=asked, hooks=hooks)

        return Opened()


def test_a_model_over_the_ceiling_does_not_answer(tmp_path: Path, finished: tuple[Path, PipelineResult]) -> None:
    with pytest.raises(InputError, match="more than the budget's ceiling on params"):
        write_answers(spec(finished[0]), Budget({}, {"params": 100}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_kept_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    made = three()
    legs = (made.legs[0], Leg("spoken", answers=asked(keep="right", questions=2, new_tokens=1)), made.legs[2])
    for _ in range(2):  # calling again changes nothing
        with pytest.raises(PipelineFailed, match="leg spoken: none of the answers to 2 questions were kept"):
            run_pipeline(Pipeline(made.budget, legs), tmp_path / "out")


def test_answers_without_rewards_are_kept_unjudged(tmp_path: Path, finished: tuple[Path, PipelineResult]) -> None:
    result = write_answers(spec(finished[0], rewards={}), Budget({}), tmp_path)
    assert [row["answer"] for row in rows(tmp_path)] == [row["answer"] for row in rows(finished[0] / "spoken")]
    assert all(row["reward"] is None for row in rows(tmp_path)) and "right" not in result.metrics


# ---- kills --------------------------------------------------------------------------------------------------------------------------


def dies(place: Any, name: str, number: int, after: bool = False) -> Callable[[], None]:
    """The process kills itself just before (or after) the call of this number."""

    def arm() -> None:
        real, calls = getattr(place, name), iter(range(10_000))

        def call(*arguments: Any, **named: Any) -> Any:
            mine = next(calls) == number
            if mine and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            done = real(*arguments, **named)
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        setattr(place, name, call)

    return arm


INSTANTS = {
    "before the first leg is remembered": dies(piping, "_write", 1),
    "before the first leg begins": dies(piping, "run", 0),
    "in the update of step 6 of the first leg": dies(update, "seeded", 5),
    "when the first leg has ended and nobody knows": dies(piping, "run", 0, after=True),
    "before the answers begin": dies(piping, "write_answers", 0),
    "while the second part of the questions is answered": dies(LocalGenerator, "generate", 1),
    "while the third part is judged": dies(Panel, "verdicts", 2),
    "when the answers of the first part have been written and are not on the books": dies(answering.os, "fsync", 4),
    "when the answers have been finished and nobody knows": dies(piping, "write_answers", 0, after=True),
    "in the update of step 2 of the last leg": dies(update, "seeded", 9),
    "when all legs have ended": dies(piping._Work, "_finish", 0),
}


@pytest.mark.parametrize("instant", INSTANTS)
def test_a_killed_pipeline_goes_on_where_it_was(instant: str, finished: tuple[Path, PipelineResult], tmp_path: Path) -> None:
    reference, theirs = finished
    folder = tmp_path / "out"

    def work() -> None:
        INSTANTS[instant]()
        run_pipeline(three(), folder)

    assert wait(child(work)) == -signal.SIGKILL
    assert wait(child(lambda: run_pipeline(three(), folder))) == 0
    mine = json.loads((folder / "result.json").read_text())
    for leg in ("base", "student"):
        assert weights(folder / leg) == weights(reference / leg)
    assert rows(folder / "spoken") == rows(reference / "spoken")
    for unit in ("steps", "rollouts", "new_tokens", "tokens", "labels", "examples"):
        assert mine["went"][unit] == theirs.went[unit], unit
    assert sum(mine["went"]["seconds"].values()) == pytest.approx(mine["spent"]["seconds"])
    assert all(leg["done"] for leg in mine["legs"])
    assert len(lines(folder / "spoken", "answers")) == 3


@pytest.mark.parametrize("where", ["base", "spoken"])
def test_a_signal_stops_a_pipeline_in_good_order(where: str, finished: tuple[Path, PipelineResult], tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def stop() -> None:
        place, name = (update, "seeded") if where == "base" else (LocalGenerator, "generate")
        real, calls = getattr(place, name), iter(range(10_000))

        def call(*arguments: Any, **named: Any) -> Any:
            if next(calls) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return real(*arguments, **named)

        setattr(place, name, call)
        result = run_pipeline(three(), folder)
        assert (result.ended_by, result.exit_code) == ("signal", 3)

    assert wait(child(stop)) == 0
    assert not (folder / "student").exists()
    assert wait(child(lambda: resume_pipeline(folder))) == 0
    assert weights(folder / "student") == weights(finished[0] / "student")
    assert rows(folder / "spoken") == rows(finished[0] / "spoken")


def test_two_processes_never_spend_one_pipeline(finished: tuple[Path, PipelineResult]) -> None:
    with piping._held(finished[0]), pytest.raises(InputError, match="another process is spending"):
        run_pipeline(three(), finished[0])


# ---- bundled ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sft_dpo_rlvr", "sft_then_grpo"])
def test_bundled_recipes_of_several_stages_run(name: str, tmp_path: Path) -> None:
    small = [
        "model.transformer.hidden=16",
        "model.transformer.layers=1",
        "stages[0].batch_size=8",
        "evaluate.exams[0].exact_match.problems=2",
    ]
    rolled = [i for i, stage in enumerate(load_recipe(name).stages) if "rollouts" in stage.source.units]
    # so little training gets no answer right, and groups that vary would be looked for in vain
    few = [f"stages[{i}].{change}" for i in rolled for change in ("batch_size=8", "source.rollouts.repair=null")]
    result = outlay.run(load_recipe(name, [*small, *few, "stages[0].source.reasoning.examples=20"], "9 steps"), tmp_path / "run")
    assert result.ended_by == "steps" and all(stage["steps"] for stage in result.stages)
    assert result.spent["rollouts"] > 0 and result.metrics["exact_match"] >= 0


def test_bundled_teacher_and_student_run(tmp_path: Path) -> None:
    few = {
        "legs[0].recipe.model.transformer.hidden": 16, "legs[2].recipe.model.transformer.hidden": 8, "legs[2].recipe.model.transformer.layers": 1,
        "legs[0].recipe.stages[0].batch_size": 8, "legs[0].recipe.stages[0].source.reasoning.examples": 20, "legs[0].recipe.stages[1].batch_size": 8,
        "legs[0].recipe.stages[1].source.rollouts.repair": "null", "legs[1].answers.questions": 12, "legs[2].recipe.stages[0].batch_size": 8,
        "legs[2].recipe.stages[1].batch_size": 8, "legs[2].recipe.evaluate.exams[0].exact_match.problems": 2,
    }  # fmt: skip
    result = run_pipeline(load_pipeline("teacher_student", [f"{key}={value}" for key, value in few.items()], "11 steps"), tmp_path / "out")
    assert result.spent["steps"] == 11 and result.went["rollouts"].keys() == {"teacher", "spoken", "student"}
    assert json.loads((tmp_path / "out" / "teacher" / "result.json").read_text())["metrics"] and "exact_match" in result.metrics


def test_bundled_self_improvement_runs(tmp_path: Path) -> None:
    plain = yaml.safe_load(bundled_pipelines()["self_improvement"].read_text())
    plain = json.loads(json.dumps(plain).replace('"exact"', '"missing_end"'))  # so little training gets no answer right
    for leg in plain["legs"]:
        if "answers" in leg:
            leg["answers"] |= {"questions": 40}
            if "worth" in leg["answers"]["rewards"]:
                leg["answers"]["rewards"]["worth"]["verifier_and_model"]["verifier"] = "missing_end"
        else:
            for stage in leg["recipe"]["stages"]:
                stage["batch_size"] = 24 if stage["name"] == "rank" else 8
    base = plain["legs"][0]["recipe"]
    base["model"]["transformer"] |= {"hidden": 16, "layers": 1}
    base["evaluate"]["exams"][0]["exact_match"]["problems"] = 2
    result = run_pipeline(load_pipeline(plain, budget="60 steps"), tmp_path / "out")
    assert [leg["done"] for leg in result.legs] == [True] * 9 and result.spent["steps"] == 60
    assert set(rows(tmp_path / "out" / "groups_1")[0]) == {"prompt", "answers", "rewards"}
    assert set(rows(tmp_path / "out" / "kept_2")[0]) == {"prompt", "answer", "reward"}
    assert set(rows(tmp_path / "out" / "pairs_2")[0]) == {"prompt", "chosen", "rejected"}


def test_replacing_a_value_that_an_alias_stands_for_replaces_it_there_alone() -> None:
    made = load_pipeline("teacher_student", ["legs[0].recipe.evaluate.exams[0].exact_match.problems=7"])
    problems = [made.legs[i].plain["evaluate"]["exams"][0]["exact_match"]["problems"] for i in (0, 2)]
    assert problems == [7, 50]


def test_the_command_line_spends_a_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("three.yaml").write_text(dump_pipeline(three()))

    def call(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["outlay", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0)

    assert call("run", "three.yaml", "--budget", "6 steps") == 0
    said = capsys.readouterr().out
    assert "spoken" in said and "pipeline directory:" in said and "three-1" in said
    assert call("resume", "runs/three-1") == 0
    assert call("plan", "three.yaml") == 2
    assert "pipeline of several runs" in capsys.readouterr().err
