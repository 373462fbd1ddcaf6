from __future__ import annotations

import pytest
from made_answers import answer, outcomes, values

import outlay
from outlay.rewards import BoxedInThought, Format

GOOD = "<think>a\nb</think>\n<answer>c</answer>"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (GOOD, 1),
        (f"\n {GOOD} \n", 1),
        ("<think></think><answer></answer>", 1),
        (f"so {GOOD}", 0),
        (f"{GOOD} so", 0),
        ("<think>a</think> so <answer>c</answer>", 0),
        ("<answer>c</answer><think>a</think>", 0),
        ("<think>a<answer>c</answer></think>", 0),
        ("<think>a<answer>b</think>c</answer>", 0),
        ("<think>a</think><answer>c", 0),
        ("a</think><answer>c</answer>", 0),
        ("<think><think>a</think><answer>c</answer>", 0),
        (f"{GOOD}<answer>d</answer>", 0),
        ("</think>a<think><answer>c</answer>", 0),
        ("", 0),
    ],
)
def test_tags_in_order_once_each_and_nothing_outside(text: str, right: int) -> None:
    assert values(Format(), [answer(text)]) == [right]
    assert outcomes(Format(), [answer(text)]) == ["passed" if right else "failed"]


def test_tags_and_their_number_are_free_and_the_first_may_be_open_already() -> None:
    three = Format(tags=("plan", "think", "answer"))
    assert values(three, [answer("<plan>a</plan><think>b</think><answer>c</answer>"), answer(GOOD)]) == [1, 0]
    opened = Format(opened=True)
    assert values(opened, [answer("a</think><answer>c</answer>"), answer(GOOD)]) == [1, 0]


def test_a_pattern_must_match_the_whole_text() -> None:
    reward = outlay.make("rewards/format", pattern=r"Answer: \d+.*")
    assert values(reward, [answer("Answer: 42\nsure"), answer("Answer: x"), answer("The Answer: 42")]) == [1, 0, 0]


def test_boxed_must_stand_before_the_end_of_the_thought() -> None:
    texts = [r"so \boxed{42}</think> fine", r"so</think> \boxed{42}", r"\boxed{42}", r"\boxed{</think>}", r"\boxed{4" + "\n2}</think>"]
    assert values(BoxedInThought(), [answer(text) for text in texts]) == [1, 0, 0, 0, 1]
    assert values(BoxedInThought(end="|"), [answer(r"\boxed{1}|")]) == [1]


def test_bad_layouts_are_refused() -> None:
    for fields, message in [
        ({"tags": ()}, "format needs tags or a pattern"),
        ({"tags": ("a", "a")}, "each tag may be named once, found a, a"),
        ({"tags": ("<a>",)}, "a tag is a word without brackets"),
        ({"pattern": "("}, "pattern must be a regular expression"),
    ]:
        with pytest.raises(ValueError, match=message):
            Format(**fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="end must not be empty"):
        BoxedInThought(end="")
