from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_answers import CONTEXT, answer
from unruly import MISDEEDS, Careful, Nesting, Odd, Sleepy, Together, Unopenable, Unruly

import outlay
from outlay.context import Context
from outlay.errors import InputError
from outlay.rewards import Answer, Exact, Isolated, Judge, Reward, open_judge
from outlay.testing import check_reward


@pytest.fixture
def opened() -> Iterator[list[Judge]]:
    """Judges to be closed after the test."""
    judges: list[Judge] = []
    yield judges
    for judge in judges:
        judge.close()  # type: ignore[attr-defined]


def made(texts: list[str], size: int) -> list[Answer]:
    return [answer(text, group=i // size) for i, text in enumerate(texts)]


def gone(process: int) -> bool:
    """Whether a process is gone, or becomes so in a while."""
    for _ in range(200):
        if not Path(f"/proc/{process}").exists():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("workers", [1, 3])
def test_a_judge_that_fails_on_a_tenth_of_all_answers_changes_no_other_reward(opened: list[Judge], workers: int) -> None:
    # 70 answers in groups of 5, a tenth of which make the judge crash in every way or hang; some groups hold two of them
    texts = [str(i % 7) for i in range(70)]
    for place, deed in zip((3, 14, 20, 21, 37, 55, 69), MISDEEDS, strict=True):
        texts[place] = deed
    answers = made(texts, 5)
    judge = Isolated(Unruly(), seconds=0.4, workers=workers).open(CONTEXT)
    opened.append(judge)
    found = judge.judge(answers)
    honest = [one for one in answers if one.text not in MISDEEDS]
    expected = iter(Unruly().judge(honest))  # the shares of what is left of every group
    for one, verdict in zip(answers, found, strict=True):
        if one.text in MISDEEDS:
            assert (verdict.outcome, verdict.value) == ("unjudged", 0.0), one.text
        else:
            assert verdict == next(expected), one.text
    # nothing has stopped
    after = made([str(i) for i in range(20)], 5)
    assert judge.judge(after) == Unruly().judge(after)


def test_what_could_not_be_judged_says_why(opened: list[Judge]) -> None:
    judge = Isolated(Unruly(), seconds=0.4).open(CONTEXT)
    opened.append(judge)
    assert [judge.judge([answer(deed)])[0].why for deed in ("raise", "exit", "hang")] == [
        "KeyError: 'no such key'",
        "the judge's process died",
        "not done after 0.4 s",
    ]


def test_a_group_on_which_it_only_fails_together_is_unjudged(opened: list[Judge]) -> None:
    judge = Isolated(Together(), seconds=5.0).open(CONTEXT)
    opened.append(judge)
    answers = [answer(group=0), answer(group=1), answer(group=1), answer(group=2)]
    found = judge.judge(answers)
    assert [verdict.outcome for verdict in found] == ["passed", "unjudged", "unjudged", "passed"]
    assert "together, and on none alone" in found[1].why


def test_the_limit_is_one_of_an_answer(opened: list[Judge]) -> None:
    # three answers of 0.3 s are late as a group, but not one by one, and then not as a group that has the time of three
    judge = Isolated(Sleepy(0.3), seconds=0.6).open(CONTEXT)
    opened.append(judge)
    assert [verdict.outcome for verdict in judge.judge([answer(), answer(), answer()])] == ["passed"] * 3
    late = Isolated(Sleepy(0.6), seconds=0.3).open(CONTEXT)
    opened.append(late)
    assert [verdict.outcome for verdict in late.judge([answer(), answer()])] == ["unjudged"] * 2


def test_workers_are_used_again_and_are_not_this_process(opened: list[Judge], tmp_path: Path) -> None:
    book = tmp_path / "book"
    judge = Isolated(Sleepy(0.0, str(book)), workers=2).open(CONTEXT)
    opened.append(judge)
    for _ in range(5):
        judge.judge([answer(group=i) for i in range(4)])
    processes = set(book.read_text().split())
    assert 1 <= len(processes) <= 2 and str(os.getpid()) not in processes


def test_what_a_judge_has_started_ends_with_it(opened: list[Judge], tmp_path: Path) -> None:
    book = tmp_path / "book"
    judge = Isolated(Nesting(str(book)), seconds=0.4).open(CONTEXT)
    opened.append(judge)
    assert judge.judge([answer()])[0].outcome == "unjudged"
    assert gone(int(book.read_text()))


def test_closing_ends_the_processes(tmp_path: Path) -> None:
    book = tmp_path / "book"
    judge = Isolated(Sleepy(0.0, str(book))).open(CONTEXT)
    judge.judge([answer()])
    judge.close()
    assert gone(int(book.read_text()))


def test_a_starter_that_dies_is_replaced(opened: list[Judge], tmp_path: Path) -> None:
    book = tmp_path / "book"
    judge = Isolated(Sleepy(0.0, str(book)), seconds=5.0).open(CONTEXT)
    opened.append(judge)
    judge.judge([answer()])
    process = int(book.read_text())
    starter = int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(starter, 9)
    os.kill(process, 9)
    assert [judge.judge([answer()])[0].outcome for _ in range(2)][-1] == "passed"


@pytest.mark.parametrize(("reward", "told"), [(Unopenable(), "there is no such metric"), (Unopenable(missing=True), "outlay[rl]")])
def test_a_reward_that_cannot_be_opened_is_refused(reward: Reward, told: str) -> None:
    with pytest.raises(InputError) as refused:
        Isolated(reward).open(CONTEXT)
    assert told in str(refused.value)


def test_what_cannot_be_sent_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be sent to another process"):
        Isolated(Exact()).open(Context(seed=0, tokenizer=lambda text: text))
    local = type("Local", (Unruly,), {"__module__": "__main__"})
    with pytest.raises(InputError, match="move it to a module"):
        Isolated(local()).open(CONTEXT)


def test_verdicts_that_are_none_are_seen(opened: list[Judge]) -> None:
    judge = Isolated(Odd()).open(CONTEXT)
    opened.append(judge)
    found = judge.judge([answer("fine"), answer("short"), answer("infinite"), answer("none")])
    assert [verdict.outcome for verdict in found] == ["passed", "unjudged", "unjudged", "unjudged"]


def test_a_reward_may_ask_to_be_isolated(opened: list[Judge]) -> None:
    judge = open_judge(Careful(), CONTEXT)
    opened.append(judge)
    assert judge.judge([answer(str(os.getpid()))])[0].value == 1.0
    assert open_judge(Unruly(), CONTEXT).judge([answer("2")])[0].value == 1.0


def test_contract_and_recipe() -> None:
    isolated = outlay.make("rewards/isolated", reward="exact", seconds=20, workers=2)
    assert isolated == Isolated(Exact(), 20.0, 2) and isolated.bounds == Exact().bounds
    check_reward(isolated, [answer("1", "1", group=0), answer("2", "1", group=0), answer("3", "3", group=1)])
    for fields in ({"seconds": 0.0}, {"seconds": float("inf")}, {"workers": 0}):
        with pytest.raises(ValueError, match="must be"):
            Isolated(Exact(), **fields)
