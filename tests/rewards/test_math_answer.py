from __future__ import annotations

import threading

import pytest
from made_answers import answer, outcomes, verdicts
from trl.rewards import accuracy_reward

import outlay
from outlay.rewards import Math, Verdict


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        (r"so \boxed{\frac{1}{2}}", "1/2", "passed"),
        (r"so \boxed{0.5}", r"\frac{1}{2}", "passed"),
        (r"$x = 7$, so \boxed{8} in the end", "8", "passed"),
        (r"\boxed{7} no, \boxed{8}", "8", "passed"),
        (r"\boxed{8} no, \boxed{7}", "8", "failed"),
        ("The answer is 8.", "8", "passed"),
        ("7 apples and then 8", "8", "passed"),
        ("8 apples and then 7", "8", "failed"),
        (r"\boxed{x^2 + 2x + 1}", "(x+1)^2", "passed"),
        (r"\boxed{(1, 2)}", "(1,2)", "passed"),
        (r"\boxed{\{2, 1\}}", r"\{1,2\}", "passed"),
        ("no idea", "8", "failed"),
        (r"\boxed{", "8", "failed"),
        ("", "8", "failed"),
        ("8", "Paris", "unjudged"),
        ("8", "", "unjudged"),
    ],
)
def test_answers_are_compared_as_mathematics(text: str, reference: str, expected: str) -> None:
    assert outcomes(Math(), [answer(text, reference)]) == [expected]


def test_a_box_an_end_and_a_tag_can_be_required() -> None:
    plain, boxed = answer("The answer is 8.", "8"), answer(r"\boxed{8}", "8")
    assert outcomes(Math(boxed=True), [plain, boxed]) == ["failed", "passed"]
    late = answer(r"\boxed{8}", "8", ended=False)
    assert outcomes(Math(), [late]) == ["failed"]
    assert outcomes(Math(end_required=False), [late]) == ["passed"]
    tagged = answer("<answer>8</answer> or 9", "8")
    assert outcomes(outlay.make("rewards/math", inside="answer"), [tagged, plain]) == ["passed", "failed"]
    assert outcomes(Math(), [tagged]) == ["failed"]


def test_the_reason_names_the_reference() -> None:
    assert "'Paris' cannot be parsed" in verdicts(Math(), [answer("8", "Paris")])[0].why


def test_it_agrees_with_trl_on_boxed_answers() -> None:
    solutions = ["1/2", r"\frac{3}{4}", "12", "$x+1$", "0.25", "-3"]
    texts = [rf"so \boxed{{{text}}}" for text in ("0.5", "0.75", "13", "1+x", r"\frac{1}{4}", "3")]
    theirs = accuracy_reward([[{"content": text}] for text in texts], solutions)
    ours = verdicts(Math(), [answer(text, solution) for text, solution in zip(texts, solutions, strict=True)])
    assert [verdict.value for verdict in ours] == theirs == [1, 1, 0, 1, 1, 0]


def test_it_judges_outside_the_main_thread() -> None:
    found: list[Verdict] = []
    thread = threading.Thread(target=lambda: found.extend(verdicts(Math(), [answer(r"\boxed{8}", "8")])))
    thread.start()
    thread.join()
    assert [verdict.outcome for verdict in found] == ["passed"]
    assert Math.isolate
