"""Reasoning problems: right answers, sides that cannot overlap, reproducible draws, honest counts, and the built-in provider."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.errors import InputError, MissingExtra
from outlay.tasks import reasoning as room
from outlay.tasks.reasoning import TASKS, Problem, is_held_out, problems, score, stream

ALL_LEVELS = [(name, level) for name, task in TASKS.items() for level in range(1, len(task.levels) + 1)]
BUILT_IN = [name for name, task in TASKS.items() if task.built_in]
needs_gym = pytest.mark.skipif(not room._has_reasoning_gym(), reason="reasoning-gym is not installed (extra 'rl')")


@pytest.fixture
def without_gym(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_has_reasoning_gym", lambda: False)


def first(count: int, problems_of: Iterator[Problem]) -> list[Problem]:
    return list(itertools.islice(problems_of, count))


def truth(task: str, prompt: str) -> str:
    """Work out the answer of a short prompt from the prompt alone."""
    sign, asked = prompt[0], prompt[1:].removesuffix("=")
    if task in ("sum", "product"):
        assert re.fullmatch(r"\d+([-+*]\d+)+", asked)
        return str(eval(re.sub(r"\b0+(?=\d)", "", asked)))  # digits and operators only, checked above
    if task in ("gcd", "lcm"):
        return str(getattr(math, task)(*map(int, asked.split(","))))
    if task == "reverse":
        return asked[::-1]
    if task == "sort":
        return ",".join(map(str, sorted(map(int, asked.split(",")), reverse=sign == ">")))
    if task == "count":
        return str(asked[2:].count(asked[0]))
    if task == "base":
        digits, source, target = asked.split(",")
        value, out = int(digits, int(source)), ""
        while value:
            value, last = divmod(value, int(target))
            out = "0123456789abcdefghijklmnopqrstuvwxyz"[last] + out
        return out or "0"
    if task == "fraction":
        above, below = map(int, asked.split("/"))
        return f"{above // math.gcd(above, below)}/{below // math.gcd(above, below)}"
    if task == "bits":
        return str(int(asked).bit_count())
    left, found = int(asked), []
    for prime in range(2, left + 1):
        while left % prime == 0:
            found.append(str(prime))
            left //= prime
    return "*".join(found)


@needs_gym
@pytest.mark.parametrize(("task", "level"), ALL_LEVELS)
def test_every_answer_is_right_and_every_prompt_short(task: str, level: int) -> None:
    for split in ("train", "held_out"):
        for problem in first(80, stream(task, level, split=split, seed=5)):
            assert problem.answer == truth(task, problem.prompt)
            assert score(problem, f" {problem.answer}\n") and not score(problem, problem.answer + "1")
            assert problem.prompt.endswith("=") and (len(problem.prompt) < 32 or task == "count")


@needs_gym
@pytest.mark.parametrize(("task", "level"), ALL_LEVELS)
def test_both_styles_ask_the_same_and_reasoning_gym_agrees(task: str, level: int) -> None:
    import reasoning_gym

    from outlay import rng

    short = first(40, stream(task, level, split="train", seed=9))
    english = first(40, stream(task, level, split="train", seed=9, style="english"))
    assert [problem.index for problem in short] == [problem.index for problem in english]
    seed = rng.derive(9, f"tasks/reasoning/{task}/{level}")
    dataset = reasoning_gym.create_dataset(TASKS[task].source, size=2**40, seed=seed, **TASKS[task].levels[level - 1])
    for problem in english:
        entry = dataset[problem.index]
        assert (problem.prompt, problem.answer) == (entry["question"], entry["answer"])
        assert dataset.score_answer(problem.answer, entry) >= 0.99 and score(problem, problem.answer)
        assert dataset.score_answer("17 × 17", entry) < 0.99 and not score(problem, "17 × 17")


@needs_gym
@settings(max_examples=40, deadline=None)
@given(st.sampled_from(ALL_LEVELS), st.integers(0, 2**62), st.integers(0, 2**62), st.sampled_from(["short", "english"]), st.data())
def test_training_never_meets_a_held_out_problem(where: tuple[str, int], one: int, other: int, style: str, data: st.DataObject) -> None:
    task, level = where
    other_level = data.draw(st.integers(1, len(TASKS[task].levels)))
    train = {problem.prompt for problem in first(150, stream(task, level, split="train", seed=one, style=style))}
    held = {problem.prompt for problem in first(150, stream(task, other_level, split="held_out", seed=other, style=style))}
    assert train and held and not train & held


@needs_gym
@pytest.mark.parametrize("task", ["gcd", "lcm", "product", "sort", "sum"])
def test_swapped_operands_stay_on_one_side(task: str) -> None:
    def operands(problem: Problem) -> tuple[str, ...]:
        sign = problem.prompt[0] if task == "sort" else ""
        signed = re.sub(r"^\W?", "+", problem.prompt) if task == "sum" else problem.prompt
        return (sign, *sorted(re.findall(r"[-+]?\d+" if task in ("sum", "sort") else r"\d+", signed)))

    sides = [{operands(problem) for problem in first(400, stream(task, 1, split=split, seed=2))} for split in ("train", "held_out")]
    assert not sides[0] & sides[1]


def test_one_question_in_eight_is_held_out() -> None:
    held = sum(is_held_out("gcd", f"{a} {b}") for a in range(100) for b in range(100, 200))
    assert abs(held / 10_000 - 1 / 8) < 0.012


@needs_gym
def test_problems_are_a_pure_function_and_a_longer_list_begins_with_the_shorter() -> None:
    few, many = (problems("gcd", 3, split="train", count=count, seed=4) for count in (50, 200))
    assert many[:50] == few == problems("gcd", 3, split="train", count=50, seed=4)
    assert len({problem.prompt for problem in many}) == 200
    assert problems("gcd", 3, split="train", count=50, seed=5) != few


# (task, level, distinct prompts of the whole space): 20 x 20 pairs, 10 x 10 products, 10 x 10 sums and differences, ...
SPACES = [("gcd", 1, 400), ("lcm", 1, 100), ("product", 1, 100), ("sum", 1, 200), ("factor", 1, 99), ("bits", 1, 255)]


@needs_gym
@pytest.mark.parametrize(("task", "level", "size"), SPACES)
def test_a_space_that_is_too_small_says_how_many_there_are(task: str, level: int, size: int) -> None:
    counts = []
    for split in ("train", "held_out"):
        with pytest.raises(InputError, match=f"task '{task}' at level {level} has only ") as caught:
            problems(task, level, split=split, count=1000, seed=1)
        counts.append(int(re.findall(r"only (\d+) distinct", str(caught.value))[0]))
        assert len(problems(task, level, split=split, count=counts[-1], seed=2)) == counts[-1]
    assert sum(counts) == size and counts[1] < size / 4


@pytest.mark.parametrize(
    ("answer", "task", "right", "wrong"),
    [
        ("2*2*3", "factor", ["3*2*2", "2 * 3 * 2", "2 × 2 × 3"], ["12", "2*6", "2*2*3*1", "2*2*3=", "", "2**3"]),
        ("['-2.0', '7.0']", "sort", ["[-2, 7]", "-2,7", "['-2.0', '7']"], ["7,-2", "-2", "-2 7", "", "-2,7,nan"]),
        ("noen", "reverse", ["noen "], ["Noen", "no en", "noe", ""]),
        ("12", "sum", ["12", "\n12"], ["12.0", "+12", "012", "x=12", "1 2", ""]),
    ],
)
def test_score(answer: str, task: str, right: list[str], wrong: list[str]) -> None:
    problem = Problem(task, 1, "?", answer, 0)
    assert all(score(problem, text) for text in [answer, *right])
    assert not any(score(problem, text) for text in wrong)


def test_at_least_six_tasks_with_three_levels_and_signs_of_their_own() -> None:
    assert len(TASKS) >= 6 and all(len(task.levels) >= 3 and task.name == name for name, task in TASKS.items())
    assert BUILT_IN == ["sum", "gcd", "reverse"]


@needs_gym
def test_each_task_opens_with_its_own_sign() -> None:
    opening = {name: {problem.prompt[0] for problem in first(30, stream(name, 1, split="train", seed=0))} for name in TASKS}
    assert opening.pop("sort") == {"<", ">"}
    assert all(len(signs) == 1 for signs in opening.values()) and len(set.union(*opening.values())) == len(opening)


@pytest.mark.usefixtures("without_gym")
@pytest.mark.parametrize("task", BUILT_IN)
def test_the_built_in_provider_answers_right_and_keeps_sides_apart(task: str) -> None:
    assert TASKS[task].provider == "built-in"
    for level in range(1, len(TASKS[task].levels) + 1):
        train, held = (first(150, stream(task, level, split=split, seed=1)) for split in ("train", "held_out"))
        assert all(problem.answer == truth(task, problem.prompt) for problem in train + held)
        assert not {problem.prompt for problem in train} & {problem.prompt for problem in held}
        assert train == first(150, stream(task, level, split="train", seed=1)) != first(150, stream(task, level, split="train", seed=2))
    english = first(20, stream(task, 1, split="train", seed=1, style="english"))
    assert all(len(problem.prompt) > 10 and score(problem, problem.answer) for problem in english)


@needs_gym
@pytest.mark.parametrize(("task", "level", "size"), [("gcd", 1, 400), ("sum", 1, 200)])
def test_both_providers_draw_from_the_same_space(task: str, level: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def space() -> set[str]:
        sides = [first(12 * size, stream(task, level, split=split, seed=3)) for split in ("train", "held_out")]
        return {problem.prompt for problem in sides[0] + sides[1]}

    assert TASKS[task].provider == "reasoning-gym"
    from_gym = space()
    monkeypatch.setattr(room, "_has_reasoning_gym", lambda: False)
    assert len(from_gym) == size and space() == from_gym


@pytest.mark.usefixtures("without_gym")
def test_other_tasks_say_what_to_install() -> None:
    assert TASKS["lcm"].provider == "missing"
    with pytest.raises(MissingExtra, match=r"pip install 'outlay\[rl\]'"):
        stream("lcm", 1, split="train", seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "gdc"}, "did you mean 'gcd'"),
        ({"level": 0}, "levels 1 to 4, found 0"),
        ({"level": 5}, "levels 1 to 4, found 5"),
        ({"split": "test"}, "'train' or 'held_out', found 'test'"),
        ({"style": "latex"}, "'short' or 'english', found 'latex'"),
        ({"count": 0}, "at least 1, found 0"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"task": "gcd", "level": 1, "split": "train", "count": 1, "seed": 0, "style": "short"}
    with pytest.raises(InputError, match=re.escape(message)):
        problems(**(good | change))
