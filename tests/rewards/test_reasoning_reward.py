from __future__ import annotations

import pytest
import reasoning_gym
from made_answers import answer, outcomes, values, verdicts

from outlay.rewards import Reasoning, ReasoningGym
from outlay.tasks.reasoning import problems


def test_right_answers_in_other_words_pass_as_the_task_says() -> None:
    made = [
        answer(" 7 ", "7", kind="gcd/2"),
        answer("8", "7", kind="gcd/2"),
        answer("3*2*2", "2*2*3", kind="factor/1"),
        answer("4*3", "2*2*3", kind="factor/1"),
        answer("[1, '2', 3.0]", "1,2,3", extra={"task": "sort"}),
        answer("3,2,1", "1,2,3", kind="gcd/1", extra={"task": "sort"}),  # what is told in extra goes before kind
    ]
    assert values(Reasoning(), made) == [1, 0, 1, 0, 1, 0]
    assert outcomes(Reasoning(), made) == ["passed", "failed"] * 3


def test_every_built_in_problem_is_solved_by_its_own_answer() -> None:
    drawn = [problem for task in ("sum", "gcd", "reverse") for problem in problems(task, 2, split="train", count=5, seed=3)]
    made = [answer(problem.answer, problem.answer, kind=f"{problem.task}/{problem.level}", prompt=problem.prompt) for problem in drawn]
    assert set(outcomes(Reasoning(), made)) == {"passed"}


@pytest.mark.parametrize("name", ["countdown", "gcd", "word_sorting"])
def test_entries_are_scored_by_their_own_dataset(name: str) -> None:
    dataset = reasoning_gym.create_dataset(name, size=5, seed=1)
    entries = [dataset[index] for index in range(5)]
    texts = [entry["answer"] if entry["answer"] is not None else "" for entry in entries]
    made = [answer(text, extra={"task": name, "entry": entry}) for text, entry in zip(texts, entries, strict=True)]
    wrong = [answer("nothing", extra={"task": name, "entry": entry}) for entry in entries]
    assert (
        values(ReasoningGym(), made) == [dataset.score_answer(text, entry) for text, entry in zip(texts, entries, strict=True)] == [1.0] * 5
    )
    assert values(ReasoningGym(), wrong) == [dataset.score_answer("nothing", entry) for entry in entries]
    assert set(outcomes(ReasoningGym(), wrong)) == {"failed"}


def test_a_task_of_ours_stands_for_the_dataset_behind_it() -> None:
    entry = reasoning_gym.create_dataset("chain_sum", size=1, seed=0)[0]
    assert outcomes(ReasoningGym(), [answer(entry["answer"], extra={"task": "sum", "entry": entry})]) == ["passed"]


def test_a_partial_score_is_the_reward_and_fails_below_the_threshold() -> None:
    entry = reasoning_gym.create_dataset("gcd", size=1, seed=0)[0]
    near = answer(f"it is {entry['answer']}", extra={"task": "gcd", "entry": entry})
    part = reasoning_gym.get_score_answer_fn("gcd")(near.text, entry)
    assert 0 < part < 0.99
    assert [(v.outcome, v.value) for v in verdicts(ReasoningGym(), [near])] == [("failed", part)]
    assert [(v.outcome, v.value) for v in verdicts(ReasoningGym(threshold=part), [near])] == [("passed", part)]
    assert values(ReasoningGym(partial=False), [near]) == [0.0]
    assert values(ReasoningGym(partial=False, threshold=part), [near]) == [1.0]


def test_an_end_is_required_unless_that_is_borne_and_a_tag_may_hold_the_answer() -> None:
    late, tagged = answer("7", "7", kind="gcd/1", ended=False), answer("so <answer>7</answer>", "7", kind="gcd/1")
    assert outcomes(Reasoning(), [late, tagged]) == ["failed", "failed"]
    assert outcomes(Reasoning(end_required=False), [late]) == ["passed"]
    assert outcomes(Reasoning(inside="answer"), [tagged, answer("7", "7", kind="gcd/1")]) == ["passed", "failed"]


def test_what_has_no_scorer_is_not_judged() -> None:
    entry = {"question": "?", "answer": "7", "metadata": {}}
    made = [
        answer("7", "7"),
        answer("7", "7", kind="poetry/1"),
        answer("7", "", kind="gcd/1"),
    ]
    found = verdicts(Reasoning(), made)
    assert [verdict.outcome for verdict in found] == ["unjudged"] * 3
    assert "'poetry'" in found[1].why and "no reference" in found[2].why
    asked = [
        answer("7", "7", kind="gcd/1"),
        answer("7", "7", extra={"task": "poetry", "entry": entry}),
        answer("(1+2", extra={"task": "word_sorting", "entry": {"answer": None, "metadata": None}}),
    ]
    found = verdicts(ReasoningGym(), asked)
    assert [verdict.outcome for verdict in found] == ["unjudged"] * 3
    assert "holds no entry" in found[0].why and "no dataset 'poetry'" in found[1].why
    assert "the scorer of 'word_sorting' failed" in found[2].why


def test_a_question_that_cannot_be_judged_is_not_judged_by_how_its_answer_ended() -> None:
    # otherwise the answers of one group would be judged by their ends alone
    for question in ({"reference": "7"}, {"kind": "gcd/1"}):
        assert outcomes(Reasoning(), [answer("7", ended=False, **question)]) == ["unjudged"]
    for extra in ({}, {"task": "poetry", "entry": {}}):
        assert outcomes(ReasoningGym(), [answer("7", "7", extra=extra, ended=False)]) == ["unjudged"]
    entry = reasoning_gym.create_dataset("gcd", size=1, seed=0)[0]
    late = answer(entry["answer"], extra={"task": "gcd", "entry": entry}, ended=False)
    assert outcomes(ReasoningGym(), [late]) == ["failed"]
    assert outcomes(ReasoningGym(end_required=False), [late]) == ["passed"]


@pytest.mark.parametrize(("score", "value"), [(-0.5, 0.0), (0.5, 0.5), (1.5, 1.0)])
def test_a_score_out_of_range_is_taken_for_the_nearest_in_it(monkeypatch: pytest.MonkeyPatch, score: float, value: float) -> None:
    monkeypatch.setattr(reasoning_gym, "get_score_answer_fn", lambda name: lambda text, entry: score)
    assert values(ReasoningGym(), [answer("7", extra={"task": "gcd", "entry": {}})]) == [value]


def test_a_threshold_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"threshold must lie in \(0, 1\], found 0"):
        ReasoningGym(threshold=0)
