from __future__ import annotations

from typing import Any

import pytest

from outlay import catalog
from outlay.context import Context
from outlay.errors import InputError
from outlay.models.tokenizers import open_tokenizer
from outlay.sources import Reasoning
from outlay.sources.base import IGNORED
from outlay.sources.prompts import draw_problems
from outlay.testing import check_source

CONTEXT = Context(seed=1, tokenizer=open_tokenizer("characters"))
END = 2


def pairs(batch: dict[str, Any], context: Context = CONTEXT) -> list[tuple[str, str]]:
    found = []
    for row, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        answer = [token for token, label in zip(row, labels, strict=True) if label != IGNORED]
        prompt = row[: row.index(END) - len(answer) + 1]
        found.append((context.tokenizer.decode(prompt), context.tokenizer.decode(answer[:-1])))
    return found


def training(source: Reasoning, context: Context = CONTEXT) -> list[tuple[str, str]]:
    stream = source.open(context)
    return pairs(stream.draw(stream.state_dict()["examples"]), context)


def test_answers_are_right_and_counted_by_task_and_level() -> None:
    source = Reasoning(tasks={"reverse": (3, 4), "gcd": (1,)}, examples=30)
    found = training(source)
    words = [(prompt, answer) for prompt, answer in found if prompt.startswith("r")]
    assert len(found) == 90
    assert len(words) == 60
    assert all(answer == prompt[1:-1][::-1] for prompt, answer in words)
    assert len({prompt for prompt, _ in found}) == 90


def test_sides_share_no_prompt_and_seeds_draw_others() -> None:
    source = Reasoning(tasks={"gcd": (2,)}, examples=200, held_out_examples=50)
    kept = source.held_out(CONTEXT)
    aside = {prompt for prompt, _ in pairs(kept.collate(range(len(kept))))}
    train = {prompt for prompt, _ in training(source)}
    again = {prompt for prompt, _ in training(source, Context(seed=2, tokenizer=CONTEXT.tokenizer))}
    assert len(aside) == 50
    assert not aside & (train | again)
    assert train != again


def test_a_small_level_gives_all_it_has() -> None:
    # sums of two one-digit numbers with a sign between: 10 * 10 * 2 prompts
    train = draw_problems({"sum": (1,)}, "train", 1000, 0, "short")
    aside = draw_problems({"sum": (1,)}, "held_out", 1000, 0, "short")
    prompts = {problem.prompt for problem in [*train, *aside]}
    assert prompts == {f"+{a}{sign}{b}=" for a in range(10) for b in range(10) for sign in "+-"}
    assert len(train) + len(aside) == 200
    assert draw_problems({"sum": (1,)}, "train", 20, 0, "short") == train[:20]


def test_validation_names_the_nearest_and_makes_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a problem was made while the fields were checked")

    monkeypatch.setattr("outlay.tasks.reasoning.stream", refuse)
    monkeypatch.setattr("outlay.tasks.reasoning.problems", refuse)
    for tasks, message in (
        ({"revers": (1,)}, r"there is no reasoning task 'revers'; did you mean 'reverse'\?"),
        ({"gcd": (1, 5)}, r"levels of 'gcd' are different whole numbers from 1 to 4, at least one; found \[1, 5\]"),
        ({"gcd": (0,)}, r"found \[0\]"),
        ({"gcd": (1, 1)}, r"found \[1, 1\]"),
        ({"gcd": ()}, r"found \[\]"),
        ({}, "tasks must name at least one task with its levels"),
    ):
        with pytest.raises(ValueError, match=message):
            Reasoning(tasks=tasks)
    with pytest.raises(ValueError, match="examples and held_out_examples must be > 0, found 0 and 100"):
        Reasoning(tasks={"gcd": (1,)}, examples=0)
    with pytest.raises(ValueError, match="longest must be > 0"):
        Reasoning(tasks={"gcd": (1,)}, longest=0)
    assert Reasoning(tasks={"gcd": (4,)}).tasks == {"gcd": (4,)}


def test_recipes_build_and_describe_it() -> None:
    source = catalog.make("sources/reasoning", tasks={"gcd": [1, 2]}, style="english")
    assert source == Reasoning(tasks={"gcd": (1, 2)}, style="english")
    assert catalog.make("sources/reasoning", **catalog.describe(source)["sources/reasoning"]) == source
    with pytest.raises(InputError, match="did you mean 'gcd'"):
        catalog.make("sources/reasoning", tasks={"gdc": [1]})


def test_english_and_chat() -> None:
    tokenizer = open_tokenizer("bytes")
    tokenizer.chat_template = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    context = Context(seed=1, tokenizer=tokenizer)
    (prompt, answer), *_ = training(Reasoning(tasks={"reverse": (2,)}, examples=3, style="english", chat=True), context)
    assert prompt.startswith("[") and prompt.endswith("]>") and len(prompt) > 20
    assert answer[::-1] in prompt


def test_contract() -> None:
    check_source(lambda: Reasoning(tasks={"gcd": (1,), "reverse": (2,)}, examples=60), CONTEXT)
