"""The workshop that repairs work in: real generation, real judging, real charges."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from outlay.context import Context
from outlay.models import Transformer
from outlay.prompts import ReasoningPrompts
from outlay.repairs import Easier, ExpertFailures, Group, Guide, HintPrefix, Repair, Replay, Scaffold
from outlay.rewards import Answer, Verdict, failed, passed
from outlay.rewards.panel import Panel
from outlay.rollout import Local, Work
from outlay.sequences import answer_mask
from outlay.sources import Rollouts
from outlay.sources.base import Actor, Batch
from outlay.sources.choosing import Choosing
from outlay.sources.rollouts import RolloutStream
from outlay.sources.workshop import Generation
from outlay.teachers import Uniform

LOADED = Transformer(hidden=32, layers=1, heads=2, context=64).build(3)
CONTEXT = Context(seed=3, tokenizer=LOADED.tokenizer)
PROMPTS = ReasoningPrompts(tasks={"gcd": (1, 2, 3)})


@dataclass(frozen=True)
class Listening:
    """Remembers what it is asked to judge; right when the text begins with ``begins``."""

    begins: str = "\0"
    heard: list[tuple[str, str]] = field(default_factory=list)
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def open(self, context: Context) -> Listening:
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        self.heard.extend((answer.question.text, answer.text) for answer in answers)
        return [passed() if answer.text.startswith(self.begins) else failed() for answer in answers]


def wilful() -> nn.Module:
    model = Transformer(hidden=32, layers=1, heads=2, context=64, tie_embeddings=False).build(3).module
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(5.0)
    return model


MODEL = wilful()


@dataclass
class Books:
    rollouts: int = 0
    most: int = 10**9

    def leave(self, work: Work) -> bool:
        if self.rollouts + work.rollouts > self.most:
            return False
        self.rollouts += work.rollouts
        return True


def generation(reward: Listening, books: Books, **fields: object) -> Generation:
    spec = Rollouts(PROMPTS, {"right": reward}, samples=4, new_tokens=4, teacher=Uniform(), **fields)  # type: ignore[arg-type]
    questions = PROMPTS.open(CONTEXT)
    choosing = Choosing(questions, Uniform(), spec.estimator, None, CONTEXT)
    actor = Actor(MODEL, CONTEXT, {}, books.leave, lambda _: nullcontext(), lambda batch: batch)
    return Generation(spec, questions, choosing, Panel(spec.rewards, CONTEXT), Local().open(MODEL, CONTEXT), CONTEXT.tokenizer, 3, actor, 0)


def texts(group: Group) -> list[str]:
    return [CONTEXT.tokenizer.decode(one.completion.tokens) for one in group.attempts]


def test_what_answers_begin_with_is_shown_to_the_model_and_to_the_judge() -> None:
    reward = Listening("12")
    work = generation(reward, Books())
    (question,) = [group.question for group in work.ask(1)]
    reward.heard.clear()
    one, other = work.answer([question, question], 3, ["12", "7"])
    assert [group.values for group in (one, other)] == [[1.0] * 3, [0.0] * 3]
    assert one.attempts[0].prompt == work.encode(question.text + "12") and other.begun == "7"
    assert {heard[1][:2] for heard in reward.heard[:3]} == {"12"} and {heard[1][0] for heard in reward.heard[3:]} == {"7"}


def test_a_question_asked_again_is_answered_otherwise_and_charged() -> None:
    books = Books()
    work = generation(Listening(), books)
    (first,) = work.ask(1)
    again = work.answer([first.question, first.question], 4)
    assert len({tuple(texts(group)) for group in (first, *again)}) == 3
    assert work.generated == books.rollouts == 12
    assert all(group.arm == first.arm and group.hinted == 1 for group in again)


def test_an_easier_question_is_of_the_same_task_and_counts_as_used() -> None:
    work = generation(Listening(), Books())
    groups = {group.question.kind: group for group in work.ask(3)}
    question = work.easier(groups["gcd/3"])
    assert question is not None and question.kind == "gcd/2" and work.easier(groups["gcd/1"]) is None
    (answered,) = work.answer([question], 4)
    assert work.easier(answered).kind == "gcd/1"  # type: ignore[union-attr]
    assert work.asked == 5 and len(work.looked) == 5 and len(work.chosen) == 3
    assert len({question.place for question in [*(group.question for group in work.every), question]}) == 4


def test_help_that_the_model_cannot_read_is_left_out_and_counted() -> None:
    work = generation(Listening(), Books())
    (question,) = [group.question for group in work.ask(1)]
    (answered,) = work.answer([replace(question, text="1" * 62), question], 2)
    assert answered.question == question and work.too_long == 1 and not work.cut


def test_nothing_is_done_after_the_budget_has_ended() -> None:
    work = generation(Listening(), Books(most=6))
    groups = work.ask(2)
    assert work.cut and len(groups) <= 1
    assert work.ask(1) == [] and work.answer([group.question for group in groups], 2) == [] and work.write([(1, 2)], 1, 2) == []


def test_bare_completions_are_written_and_judged() -> None:
    work = generation(Listening("5"), Books())
    (group,) = work.ask(1)
    (written,) = work.write([group.attempts[0].prompt], 3, 2)
    assert len(written) == 3 and all(len(one.tokens) <= 2 for one in written)
    assert work.judge(group.question, ["5", "6"]) == [(1.0, True), (0.0, True)]


# ---- repairs in a stream ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """Right when the question holds a hint, so that nothing succeeds without one."""

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def open(self, context: Context) -> Told:
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        return [passed() if "\n" in answer.question.text and sum(map(ord, answer.text)) % 2 else failed() for answer in answers]


def acted(repair: Repair, reward: object, books: Books, seen: list[dict[str, float]] | None = None) -> tuple[RolloutStream, Batch]:
    words = ReasoningPrompts(tasks={"reverse": (3, 4)})
    spec = Rollouts(words, {"right": reward}, samples=4, new_tokens=4, teacher=Uniform(), repair=repair)  # type: ignore[dict-item]
    stream = spec.open(CONTEXT)

    def prepare(batch: Batch) -> Batch:
        centred = batch["reward"].view(-1, 4) - batch["reward"].view(-1, 4).mean(1, keepdim=True)
        mask = torch.nn.functional.pad(answer_mask(batch), (1, 0))
        return batch | {"advantage": torch.where(mask, centred.view(-1, 1), 0.0), "old": batch["behaviour"]}

    actor = Actor(MODEL, CONTEXT, {}, books.leave, lambda _: nullcontext(), prepare, progress=0.5)
    done = stream.act(12, actor)
    if seen is not None:
        seen.append(done.seen)
    return stream, stream.draw(12)


@pytest.mark.parametrize(
    "repair", [Scaffold(levels=3), HintPrefix(template="{question}\n{hint}\n"), Guide(template="{question}\n{hint}\n")]
)
def test_hints_bring_a_signal_to_failed_groups_and_are_charged(repair: Repair) -> None:
    books, seen = Books(), list[dict[str, float]]()
    _, batch = acted(repair, Told(), books, seen)
    assert len(batch["labels"]) == 12 and seen[0]["reward"] == 0 == seen[0]["varied"]
    assert seen[0]["rollouts_generated"] == books.rollouts > 12 and seen[0]["varied_after_repair"] > 0 and seen[0]["hinted"] > 0
    assert float(batch["reward"].sum()) > 0


def test_a_replayed_row_takes_the_place_of_a_silent_one_whole() -> None:
    books = Books()

    @dataclass(frozen=True)
    class Sometimes(Told):
        def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
            return [passed() if "2" in answer.question.text and sum(map(ord, answer.text)) % 2 else failed() for answer in answers]

    spec = Rollouts(PROMPTS, {"right": Sometimes()}, samples=4, new_tokens=4, teacher=Uniform(), repair=Replay())
    stream = spec.open(CONTEXT)

    def prepare(batch: Batch) -> Batch:
        centred = batch["reward"].view(-1, 4) - batch["reward"].view(-1, 4).mean(1, keepdim=True)
        mask = torch.nn.functional.pad(answer_mask(batch), (1, 0))
        return batch | {"advantage": torch.where(mask, centred.view(-1, 1), 0.0)}

    actor = Actor(MODEL, CONTEXT, {}, books.leave, lambda _: nullcontext(), prepare)
    silent = 0
    for _ in range(4):
        replayed = stream.act(12, actor).seen["replayed"]
        batch = stream.draw(12)
        assert len(batch["labels"]) == 12 and replayed > 0
        silent += int((batch["advantage"] == 0).all(1).sum())
        # labels repeat what is read, wherever they are set
        told = batch["labels"] != -100
        assert torch.equal(batch["labels"][told], batch["input_ids"][told]) and bool((batch["attention_mask"][told] == 1).all())
        stream.advance(12)
    assert silent == 0 and books.rollouts == 48


def test_an_expert_that_failed_gives_starts_to_go_on_from() -> None:
    work = generation(Listening("123"), Books())
    groups = [
        replace(group, question=replace(group.question, extra={**group.question.extra, "failures": ["123999999999"]}))
        for group in work.ask(2)
    ]
    mended = ExpertFailures().open(CONTEXT).mend(groups, 2, work)
    assert [group.varied for group in mended] == [True, True]
    assert [len(group.attempts) for group in mended] == [4, 4]


def test_easier_questions_take_the_place_of_failed_ones() -> None:
    work = generation(Listening(), Books())
    mended = Easier(steps=2).open(CONTEXT).mend(work.ask(3), 3, work)
    assert sorted(group.question.kind for group in mended) == ["gcd/1"] * 3
