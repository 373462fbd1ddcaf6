"""Stages that act: what is charged, how a budget ends inside a generation, what is labelled, compared with and attached."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import audit, child, lines, result_of, wait, weights

import outlay
from outlay.errors import InputError
from outlay.rewards.panel import Panel
from outlay.rollout.local import LocalGenerator
from outlay.testing import FakeClock
from outlay.train import Recipe, load_recipe, update
from outlay.train.journal import effective, read_journal
from outlay.train.loop import RunFailed

TASKS = {"gcd": [1, 2], "reverse": [1]}


def acting(**changes: Any) -> dict[str, Any]:
    """Plain values of a stage of rollouts: 4 questions with 4 answers of up to 6 tokens, two updates a generation."""
    source = {
        "prompts": {"reasoning": {"tasks": TASKS}}, "rewards": {"right": "exact"}, "samples": 4, "new_tokens": 6, "minibatches": 2,
        **changes.pop("rollouts", {}),
    }  # fmt: skip
    return {
        "name": "rewards", "source": {"rollouts": source}, "objective": "dr_grpo", "batch_size": 8,
        "knobs": {"lr": {"peak": 0.01, "schedule": "linear"}, "clip": 1.0}, **changes,
    }  # fmt: skip


def demonstrations(**changes: Any) -> dict[str, Any]:
    """Plain values of a supervised stage."""
    return {
        "name": "demonstrations", "source": {"reasoning": {"tasks": TASKS, "examples": 30, "longest": 32}}, "batch_size": 16,
        "knobs": {"lr": 0.01}, **changes,
    }  # fmt: skip


def recipe(budget: str, *stages: dict[str, Any], **changes: Any) -> Recipe:
    plain: dict[str, Any] = {
        "name": "answers", "budget": budget, "threads": 1, "stages": list(stages or [acting()]),
        "model": {"transformer": {"hidden": 32, "layers": 1, "heads": 2, "context": 32}},
        "checkpoints": {"every_steps": 3}, **changes,
    }  # fmt: skip
    return load_recipe(plain)


def places(folder: Path) -> list[int]:
    """The numbers of the questions that were asked, in the history that led to the final weights."""
    asked = [line for line in effective(read_journal(folder)) if line["kind"] == "rollout" and "cut" not in line]
    return [place for line in asked for place in range(line["place"], line["place"] + line["questions"])]


# ---- books --------------------------------------------------------------------------------------------------------------------------


def test_everything_generated_is_charged_and_the_books_add_up(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = outlay.run(recipe("6 steps"), folder)
    seen = [line["seen"] for line in lines(folder, "rollout")]
    assert len(seen) == 3 and result.spent["rollouts"] == sum(one["rollouts_generated"] for one in seen) == 48
    book = result.accounts["rollout"]
    assert book["rollouts"] == 48 and book["new_tokens"] == pytest.approx(sum(one["length"] * 16 for one in seen))
    assert book["flops"] > 0 and book["tokens"] > 0
    assert "reward" in result.accounts and "new_tokens" not in result.accounts["train"]
    # answers that have no part in the gradient are not trained on
    assert 0 < result.accounts["train"]["examples"] <= 48
    assert places(folder) == list(range(12))
    steps = lines(folder, "step")
    assert [line["metrics"]["reward"] for line in steps] == [one["reward"] for one in seen for _ in range(2)]
    assert audit(folder) == []


@pytest.mark.parametrize(("budget", "unit"), [("70 rollouts", "rollouts"), ("150 new_tokens", "new_tokens"), ("6e7 flops", "flops")])
def test_a_budget_that_ends_in_a_generation_is_kept(tmp_path: Path, budget: str, unit: str) -> None:
    folder = tmp_path / "run"
    result = outlay.run(recipe(budget), folder)
    assert result.ended_by == unit
    limit = result.budget[unit]["limit"]
    assert 0 < result.spent[unit] <= limit
    generated = max(line["charged"]["rollout"].get(unit, 0.0) for line in lines(folder, "rollout"))
    assert result.plan is not None
    trained = result.plan["flops_per_step"] if unit == "flops" else 0.0  # of the largest update, which is what must be left for it
    assert result.spent[unit] > limit - generated - trained
    decisions = [line["what"] for line in lines(folder, "decision")]
    assert sum(what.endswith("cut off") for what in decisions) == 1
    assert audit(folder) == []


def test_a_rollouts_budget_without_a_stage_that_rolls_out_is_refused() -> None:
    with pytest.raises(InputError, match="limits rollouts, but no stage spends any"):
        recipe("5 steps, 100 rollouts", demonstrations())


def test_answers_that_are_paid_for_are_used_when_no_more_can_be_made(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = outlay.run(recipe("64 rollouts"), folder)
    assert result.spent["rollouts"] == 64 and result.steps == 8  # 16 answers a generation, two updates on each


def test_a_model_from_which_nothing_can_be_learnt_ends_the_run(tmp_path: Path) -> None:
    hopeless = acting(rollouts={"rewards": {"never": {"exact": {}}}, "repair": {"refill": {"rounds": 1}}, "new_tokens": 1})
    with pytest.raises(RunFailed, match="20 generations in a row left nothing to learn from"):
        outlay.run(recipe("5 steps", hopeless), tmp_path / "run")
    assert len(lines(tmp_path / "run", "rollout")) == 20


# ---- labels -------------------------------------------------------------------------------------------------------------------------


def test_labels_are_bought_once_and_tell_nothing_of_progress(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stages = demonstrations(), acting(), demonstrations(name="again")
    result = outlay.run(recipe("12 steps, 100 labels", *stages), folder)
    assert result.ended_by == "steps" and result.spent["labels"] == 90 == result.accounts["data"]["labels"]
    assert result.steps == 12
    assert [line["progress"] for line in lines(folder, "step")] == pytest.approx([0, 0.25, 0.5, 0.75] * 3)


def test_more_labels_than_the_budget_buys_are_refused_before_anything_is_spent(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"read 90 labelled examples \(demonstrations 90\) and the budget has 80 labels"):
        outlay.run(recipe("12 steps, 80 labels", demonstrations(), acting()), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_demonstrations_that_take_the_place_of_rollouts_are_paid_for(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    gated = acting(objective="hpt")
    result = outlay.run(recipe("6 steps, 100 labels", gated), folder)
    # an untrained model solves next to nothing, so nearly every question is learnt from its demonstration
    assert 6 <= result.spent["labels"] <= 12 and result.accounts["prepare"]["labels"] == result.spent["labels"]
    short = outlay.run(recipe("60 steps, 10 labels", gated), tmp_path / "short")
    assert short.ended_by == "labels" and short.spent["labels"] <= 10


def test_labels_alone_end_no_run() -> None:
    with pytest.raises(InputError, match="the run would never end"):
        recipe("80 labels", demonstrations())


# ---- knobs --------------------------------------------------------------------------------------------------------------------------


def test_temperature_and_token_limit_follow_the_budget(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    falling = {"lr": 0.0, "temperature": {"peak": 2.0, "schedule": {"linear": {}}}, "token_limit": {"peak": 6, "schedule": "linear"}}
    falling["temperature"]["schedule"] = {"polynomial": {"floor": 0.5}}  # type: ignore[index]
    outlay.run(recipe("6 steps", acting(knobs=falling)), folder)
    steps, seen = lines(folder, "step"), [line["seen"] for line in lines(folder, "rollout")]
    assert [round(line["knobs"]["token_limit"], 6) for line in steps] == [6, 5, 4, 3, 2, 1]
    # one generation serves two updates, so limits are read at every second step: 6, 4, 2
    assert [one["length"] <= limit for one, limit in zip(seen, (6, 4, 2), strict=True)] == [True] * 3
    assert seen[2]["length"] > 1


def test_a_knob_that_nothing_reads_is_refused() -> None:
    with pytest.raises(InputError, match="no part of this stage reads the knob 'reward_wrong'"):
        recipe("5 steps", acting(knobs={"reward_wrong": 0.5}))


# ---- kills --------------------------------------------------------------------------------------------------------------------------


def dies(place: Any, name: str, number: int) -> Callable[[], None]:
    """The process kills itself just before the call of this number."""

    def arm() -> None:
        real, calls = getattr(place, name), iter(range(10_000))

        def call(*arguments: Any, **named: Any) -> Any:
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        setattr(place, name, call)

    return arm


def dies_while_writing(number: int) -> Callable[[], None]:
    """The process kills itself in its third piece of the generation of this number."""

    def arm() -> None:
        real, calls = LocalGenerator.generate, iter(range(10_000))

        def generate(self: LocalGenerator, requests: Any, sampling: Any, **named: Any) -> Any:
            leave, pieces, mine = named["leave"], iter(range(10_000)), next(calls) == number

            def asked(work: Any) -> bool:
                if mine and next(pieces) == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                return bool(leave(work))

            return real(self, requests, sampling, **{**named, "leave": asked})

        LocalGenerator.generate = generate  # type: ignore[method-assign]

    return arm


INSTANTS = {
    "in the middle of the fourth generation": dies_while_writing(3),
    "in the first generation": dies_while_writing(0),
    "while the third generation is judged": dies(Panel, "verdicts", 2),
    "in the update of step 8": dies(update, "seeded", 8),
    "in the update of step 7, half a generation done": dies(update, "seeded", 7),
}
WITH_REFERENCE = acting(objective={"grpo": {"kl": 0.1}})


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody kills: two stages, the second compared with the model as it began."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    outlay.run(killable(), folder)
    return folder


def killable() -> Recipe:
    return recipe("14 steps", demonstrations(share=2), {**WITH_REFERENCE, "share": 5})


@pytest.mark.parametrize("instant", INSTANTS)
def test_a_killed_run_asks_no_question_twice_and_ends_with_the_same_weights(instant: str, reference: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def work() -> None:
        INSTANTS[instant]()
        outlay.run(killable(), folder)

    assert wait(child(work)) == -signal.SIGKILL
    assert wait(child(lambda: outlay.resume(folder))) == 0
    assert weights(folder) == weights(reference)
    assert places(folder) == places(reference) == list(range(20))
    mine, theirs = result_of(folder), result_of(reference)
    for unit in ("steps", "rollouts", "new_tokens", "flops"):
        assert mine["spent"][unit] == pytest.approx(theirs["spent"][unit]), unit
    assert audit(folder) == []


#: parts that keep state: bandit, value network on the model's view, probing allocator, replay
TAUGHT = acting(
    rollouts={
        "prompts": {"pool": {"of": {"reasoning": {"tasks": TASKS}}, "size": 12}}, "teacher": {"floor": {"teacher": "dump", "floor": 0.3}},
        "estimator": {"value_network": {"reads": "model"}}, "allocator": {"cures": {"probe": 2}}, "least": 2, "repair": "replay",
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under a teacher, an estimator, an allocator and a repair that nobody kills."""
    folder = tmp_path_factory.mktemp("taught") / "run"
    outlay.run(recipe("10 steps", TAUGHT), folder)
    return folder


@pytest.mark.parametrize(
    "instant", ["in the middle of the fourth generation", "while the third generation is judged", "in the update of step 8"]
)
def test_a_killed_curriculum_goes_on_as_if_nothing_had_been(instant: str, taught: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def work() -> None:
        INSTANTS[instant]()
        outlay.run(recipe("10 steps", TAUGHT), folder)

    assert wait(child(work)) == -signal.SIGKILL
    assert wait(child(lambda: outlay.resume(folder))) == 0
    assert weights(folder) == weights(taught)
    assert places(folder) == places(taught) == list(range(20))
    chosen = [
        [[line["kinds"], line["divided"], line["shares"]] for line in effective(read_journal(one)) if line["kind"] == "rollout"]
        for one in (folder, taught)
    ]
    assert chosen[0] == chosen[1] and len(chosen[0]) == 5
    assert audit(folder) == []


def test_what_choosing_asks_of_the_model_is_charged(taught: Path) -> None:
    accounts = result_of(taught)["accounts"]
    assert accounts["teacher"]["flops"] > 0 and accounts["allocator"]["flops"] > 0
    assert accounts["rollout"]["rollouts"] == result_of(taught)["spent"]["rollouts"] == 80
    assert accounts["teacher"]["seconds"] > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": {"reasoning": {"tasks": TASKS, "examples": 20, "longest": 32}}}, "'reward', which .* does not give; sources/rollouts"),
        ({"rollouts": {"new_tokens": 40}}, "prompt and answer take up to .* the model reads 32; lower new_tokens"),
    ],
)
def test_stages_that_cannot_go_are_refused_before_earlier_ones_are_paid_for(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        outlay.run(recipe("8 steps", demonstrations(), acting(**change)), tmp_path / "run")
    assert not (tmp_path / "run").exists() or lines(tmp_path / "run", "step") == []


def test_a_batch_that_groups_cannot_fill_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="multiple of samples"):
        outlay.run(recipe("4 steps", acting(batch_size=10)), tmp_path / "run")
    assert not (tmp_path / "run" / "journal.jsonl").exists() or lines(tmp_path / "run", "step") == []


def test_a_run_limited_by_seconds_is_repeated_from_its_journal(tmp_path: Path) -> None:
    first = tmp_path / "run"
    outlay.run(recipe("3s", WITH_REFERENCE), first)
    again = outlay.replay(first)
    assert weights(Path(again.folder)) == weights(first)
    assert places(Path(again.folder)) == places(first)


def test_what_a_stage_compares_with_is_refused_when_it_was_changed(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def work() -> None:
        dies(update, "seeded", 6)()
        outlay.run(recipe("14 steps", WITH_REFERENCE), folder)

    assert wait(child(work)) == -signal.SIGKILL
    kept = folder / "checkpoints" / "frozen-0.safetensors"
    data = bytearray(kept.read_bytes())
    data[-1] ^= 1
    kept.write_bytes(data)
    with pytest.raises(InputError, match="frozen-0.safetensors, the model that stage 1 compares with, has been changed or torn"):
        outlay.resume(folder)
    kept.unlink()
    with pytest.raises(InputError, match="is not there"):
        outlay.resume(folder)


def test_looking_at_a_whole_batch_before_it_is_cut_is_charged(tmp_path: Path) -> None:
    """DisCO's constraint is on the whole batch: cut into pieces, an update takes one forward pass more."""
    whole, cut = (
        outlay.run(recipe("2 steps", acting(objective="disco", rollouts={"minibatches": 1}), micro_batch=size), tmp_path / str(size))
        for size in (8, 4)
    )
    assert whole.spent["examples"] == cut.spent["examples"]
    assert cut.accounts["train"]["flops"] == pytest.approx(whole.accounts["train"]["flops"] * 4 / 3, rel=0.02)


def test_judging_and_preparing_belong_to_what_must_be_left_when_generation_ends(tmp_path: Path) -> None:
    """On a clock that only judging moves, a generation is not begun whose judging would end behind the limit. With four updates to a generation
    most steps take no time, so that the forecast of a step alone would not tell."""
    clock, judge = FakeClock(), Panel.verdicts

    def slow(self: Panel, answers: Any) -> Any:
        clock.now += float(bool(answers))
        return judge(self, answers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Panel, "verdicts", slow)
        result = outlay.run(recipe("5.5s", acting(rollouts={"minibatches": 4})), tmp_path / "run", clock=clock)
    assert result.ended_by == "seconds" and 4.0 <= result.spent["seconds"] <= 5.5
