"""Rollouts under a teacher, an allocator and a repair."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from outlay.allocators import Bound, Claims
from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.context import Context
from outlay.errors import InputError
from outlay.estimators import InContext, text_features
from outlay.models import Transformer
from outlay.prompts import PoolPrompts, ReasoningPrompts
from outlay.record import Record
from outlay.repairs import Refill
from outlay.rewards import Answer, Verdict, passed
from outlay.rollout import Work
from outlay.sequences import answer_mask, token_log_probs
from outlay.sources import Rollouts
from outlay.sources.base import Acted, Actor, Batch
from outlay.sources.looking import concentrations, gradient_norms, prompt_features
from outlay.sources.rollouts import RolloutStream
from outlay.teachers import Asking, Uniform
from outlay.teachers.base import Stateless, even

LOADED = Transformer(hidden=32, layers=1, heads=2, context=48).build(3)
CONTEXT = Context(seed=3, tokenizer=LOADED.tokenizer)
PROMPTS = ReasoningPrompts(tasks={"gcd": (1, 2), "reverse": (1,)})


@dataclass(frozen=True)
class FirstLetter:
    """Worth 1 for answers whose first character is a digit, so that about half are right."""

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def open(self, context: Context) -> FirstLetter:
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        return [passed(float(sum(map(ord, answer.text)) % 2)) for answer in answers]


@dataclass
class Told:
    """What a teacher was asked and told."""

    askings: list[Asking] = field(default_factory=list)
    updates: list[tuple[list[int], list[Outcome]]] = field(default_factory=list)
    examined: list[tuple[list[float], float]] = field(default_factory=list)


@dataclass(frozen=True)
class Scripted:
    """Chooses arms 0, 0, 1, 0, 0, 1 ... and remembers what it is told."""

    told: Told = field(default_factory=Told)

    def open(self, arms: Sequence[Arm], context: Context) -> ScriptedLessons:
        return ScriptedLessons(self.told, len(arms))


@dataclass
class ScriptedLessons:
    told: Told
    arms: int
    batches: int = 0

    def shares(self, asking: Asking) -> FloatArray:
        return np.array([2 / 3, 1 / 3, *[0.0] * (self.arms - 2)])

    def choose(self, asking: Asking) -> IntArray:
        self.told.askings.append(asking)
        return np.array([int(i % 3 == 2) for i in range(asking.count)], np.int64)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        self.told.updates.append((chosen.tolist(), list(outcomes)))
        self.batches += 1

    def examined(self, losses: FloatArray, progress: float) -> None:
        self.told.examined.append((losses.tolist(), progress))

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.batches = int(state["batches"])


@dataclass(frozen=True)
class Screening:
    """Looks at three candidates for each question that is asked, and keeps the last ones."""

    def open(self, arms: Sequence[Arm], context: Context) -> ScreeningLessons:
        return ScreeningLessons(len(arms))


@dataclass
class ScreeningLessons(Stateless):
    arms: int
    over: ClassVar[int] = 3

    def shares(self, asking: Asking) -> FloatArray:
        return even(self.arms)

    def choose(self, asking: Asking) -> IntArray:
        return np.arange(asking.count) % self.arms

    def screen(self, rates: FloatArray, asking: Asking) -> IntArray:
        assert len(rates) == self.over * asking.count
        return np.arange(len(rates) - asking.count, len(rates))


@dataclass(frozen=True)
class Slope:
    """Gives question i a share in proportion to i + 1, after ``probe`` answers each."""

    probe: int = 0
    claims: list[Claims] = field(default_factory=list)
    needs_norms: ClassVar[bool] = True

    def allocate(self, claims: Claims, total: int, *, low: Bound = 0, high: Bound | None = None) -> IntArray:
        from outlay.allocators import largest_remainder

        self.claims.append(claims)
        return largest_remainder(np.arange(1.0, len(claims) + 1), total, low=low, high=high)


def wilful() -> nn.Module:
    """The model, surer of itself: answers differ but repeat."""
    model = Transformer(hidden=32, layers=1, heads=2, context=48, tie_embeddings=False).build(3).module
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20.0)
    return model


MODEL = wilful()


def rollouts(**changes: object) -> Rollouts:
    fields: dict[str, object] = {"prompts": PROMPTS, "rewards": {"odd": FirstLetter()}, "samples": 4, "new_tokens": 4} | changes
    return Rollouts(**fields)  # type: ignore[arg-type]


@dataclass
class Books:
    """Leave for everything until ``positions`` of looking are spent."""

    looked: dict[str, float] = field(default_factory=dict)
    rollouts: int = 0
    positions: float = float("inf")

    def leave(self, work: Work) -> bool:
        self.rollouts += work.rollouts
        return True

    def passes(self, account: str, positions: float) -> bool:
        if sum(self.looked.values()) + positions > self.positions:
            return False
        self.looked[account] = self.looked.get(account, 0.0) + positions
        return True


def with_advantages(batch: Batch) -> Batch:
    """What an objective would add: advantages r - 1/4 on the answers' tokens."""
    mask = batch["labels"] != -100
    return batch | {"advantage": torch.where(mask, (batch["reward"] - 0.25)[:, None], 0.0)}


def act(stream: RolloutStream, count: int = 24, *, books: Books | None = None, progress: float = 0.0, greedy: bool = False) -> Acted:
    books = books or Books()
    actor = Actor(MODEL, CONTEXT, {}, books.leave, lambda _: nullcontext(), with_advantages, greedy, False, progress, books.passes)
    return stream.act(count, actor)


def done(stream: RolloutStream, count: int = 24) -> None:
    """Use up what was generated."""
    while stream.ready():
        stream.advance(count)


def test_the_teacher_says_what_is_asked_and_is_told_what_came_of_it() -> None:
    teacher = Scripted()
    stream = rollouts(teacher=teacher).open(CONTEXT)
    acted = act(stream, progress=0.25)
    assert teacher.told.askings[0].count == 6 and teacher.told.askings[0].progress == 0.25
    (chosen, outcomes) = teacher.told.updates[0]
    assert chosen == [0, 0, 1, 0, 0, 1] == [one.arm for one in outcomes]
    batch = stream.draw(24)
    assert [list(one.rewards) for one in outcomes] == batch["reward"].view(6, 4).tolist()
    for one in outcomes:
        assert one.advantages == pytest.approx([reward - 0.25 for reward in one.rewards])
    asked = Counter({"gcd/1": 4, "gcd/2": 2})
    assert {kind: int(row["asked"]) for kind, row in acted.kinds.items()} == asked
    assert acted.kinds["gcd/1"]["success"] == pytest.approx(np.mean([one.rate for one in outcomes if one.arm == 0]))
    assert acted.divided == {4: 6} and acted.shares == pytest.approx({"gcd/1": 2 / 3, "gcd/2": 1 / 3, "reverse/1": 0.0})


def test_what_is_asked_is_what_the_arm_would_ask_by_itself_and_never_twice() -> None:
    stream, texts = rollouts(teacher=Scripted()).open(CONTEXT), list[str]()
    for _ in range(3):
        act(stream)
        batch = stream.draw(24)
        starts = (batch["labels"] != -100).int().argmax(1)
        texts += [CONTEXT.tokenizer.decode(ids[:start]) for ids, start in zip(batch["input_ids"][::4], starts[::4], strict=True)]
        done(stream)
    own = PROMPTS.open(CONTEXT)
    expected = [question.text for question in own.pick([0, 0, 1] * 6)]
    assert texts == expected
    assert stream.state_dict()["place"] == 18


def test_estimates_follow_what_was_judged() -> None:
    teacher = Scripted()
    stream = rollouts(teacher=teacher).open(CONTEXT)
    act(stream)
    done(stream)
    act(stream)
    first, second = teacher.told.askings
    assert np.isnan(first.rates).all() and first.seen.sum() == 0
    latest = [reward for one in teacher.told.updates[0][1] if one.arm == 0 for reward in one.rewards][-16:]
    assert second.rates[0] == pytest.approx(np.mean(latest)) and second.seen.tolist() == [16, 8, 0]


def test_an_estimator_that_reads_is_told_what_it_read_of_each_question() -> None:
    teacher = Scripted()
    stream = rollouts(teacher=teacher, estimator=InContext(reads="text")).open(CONTEXT)
    act(stream)
    asked = PROMPTS.open(CONTEXT).pick([0, 0, 1, 0, 0, 1])
    expected = text_features([question.text for question in asked])
    found = [one.features for one in teacher.told.updates[0][1]]
    assert all(row is not None for row in found)
    assert np.array_equal(np.stack([row for row in found if row is not None]), expected)


def test_candidates_that_are_screened_out_are_not_answered() -> None:
    books = Books()
    stream = rollouts(teacher=Screening()).open(CONTEXT)
    acted = act(stream, books=books)
    assert (acted.questions, books.rollouts) == (18, 24)
    assert int(sum(row["asked"] for row in acted.kinds.values())) == 6


def test_an_allocator_divides_exactly_what_there_is() -> None:
    stream = rollouts(allocator=Slope(), teacher=Scripted()).open(CONTEXT)
    books = Books()
    acted = act(stream, books=books)
    sizes = torch.unique(stream.draw(24)["group"], return_counts=True)[1].tolist()
    assert sizes == [1, 2, 4, 5, 6, 6] or sorted(sizes) == sizes
    assert sum(sizes) == books.rollouts == 24 == sum(n * count for n, count in acted.divided.items())


def test_an_allocator_is_told_what_estimates_rest_on() -> None:
    allocator, teacher = Slope(), Scripted()
    stream = rollouts(allocator=allocator, teacher=teacher).open(CONTEXT)
    for _ in range(2):
        act(stream)
        done(stream)
    first, second = allocator.claims
    assert first.seen is not None and second.seen is not None and first.seen.tolist() == [0.0] * 6 and np.isnan(first.rates).all()
    (_, outcomes), asking = teacher.told.updates[0], teacher.told.askings[1]
    answers = [min(16, sum(len(one.rewards) for one in outcomes if one.arm == arm)) for arm in (0, 1)]
    assert second.seen.tolist() == [answers[arm] for arm in (0, 0, 1, 0, 0, 1)]
    assert second.rates.tolist() == [asking.rates[arm] for arm in (0, 0, 1, 0, 0, 1)]


def test_a_probe_is_part_of_the_total_and_tells_the_allocator() -> None:
    allocator, teacher, books = Slope(probe=2), Scripted(), Books()
    stream = rollouts(allocator=allocator, teacher=teacher, most=9).open(CONTEXT)
    act(stream, books=books)
    (claims,) = allocator.claims
    assert claims.seen is not None and claims.seen.tolist() == [2.0] * 6 and books.rollouts == 24
    batch, (_, outcomes) = stream.draw(24), teacher.told.updates[0]
    rates = [np.mean(one.rewards[:2]) for one in outcomes]
    assert claims.rates.tolist() == pytest.approx(rates)
    assert claims.right_norms is not None and claims.wrong_norms is not None
    for rate, right, wrong in zip(rates, claims.right_norms, claims.wrong_norms, strict=True):
        assert (np.isnan(right), np.isnan(wrong)) == (rate == 0, rate == 1)
    assert books.looked["allocator"] > 0
    # answers of the second phase are not those of the first again
    answers = [tuple(row[row != -100].tolist()) for row in batch["labels"]]
    first = [answers[i] for i, group in enumerate(batch["group"].tolist()) if group == 5]
    assert len(set(first)) > 2


def test_bounds_hold_and_minibatches_share_uneven_groups_out() -> None:
    stream = rollouts(allocator=Slope(), least=2, most=6, minibatches=2).open(CONTEXT)
    act(stream, 12)
    parts = []
    for _ in range(2):
        batch = stream.draw(12)
        parts.append(torch.unique(batch["group"], return_counts=True))
        stream.advance(12)
    sizes = [size for _, counts in parts for size in counts.tolist()]
    assert sum(sizes) == 24 and min(sizes) >= 2 and max(sizes) <= 6
    assert not set(parts[0][0].tolist()) & set(parts[1][0].tolist())
    assert abs(sum(parts[0][1].tolist()) - 12) <= 6 and not stream.ready()


def test_a_run_goes_on_from_any_place_as_if_it_had_never_stopped() -> None:
    def fresh() -> RolloutStream:
        return rollouts(teacher=Uniform(), allocator=Slope(), repair=Refill(rounds=2), minibatches=2).open(CONTEXT)

    whole, batches = fresh(), []
    for _ in range(3):
        act(whole, 12)
        while whole.ready():
            batches.append(whole.draw(12))
            whole.advance(12)
    stream, found = fresh(), []
    for _ in range(3):
        act(stream, 12)
        while stream.ready():
            state, tensors = json.loads(json.dumps(stream.state_dict())), dict(stream.tensors())
            stream = fresh()
            stream.load_state_dict(state)
            stream.load_tensors(tensors)
            found.append(stream.draw(12))
            stream.advance(12)
    assert len(found) == len(batches) > 3
    for one, other in zip(batches, found, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert whole.state_dict() == stream.state_dict()


def test_evaluations_reach_a_teacher_that_learns_from_them() -> None:
    teacher = Scripted()
    stream = rollouts(teacher=teacher).open(CONTEXT)
    metrics = {"exact_match/gcd/1": 0.75, "exact_match/reverse/1": 0.5, "exact_match": 0.6}
    stream.observe(Record("evaluation", 3, "rewards", 0.4, metrics=metrics))
    ((losses, progress),) = teacher.told.examined
    assert losses[0] == 0.25 and np.isnan(losses[1]) and losses[2] == 0.5 and progress == 0.4


def test_a_pool_makes_every_question_an_arm() -> None:
    pool = PoolPrompts(PROMPTS, 9)
    opened = pool.open(CONTEXT)
    assert len(opened.arms) == 9 and all(arm.size == 1 and arm.text for arm in opened.arms)
    assert {arm.difficulty for arm in opened.arms} == {1.0, 2.0}
    first, again = opened.pick([4, 7, 4]), opened.pick([4, 7, 4])
    assert first == again and first[0].text == first[2].text != first[1].text
    assert [question.place for question in first] == [0, 1, 2]
    opened.use([4, 7, 4])
    assert opened.pick([4])[0].place == 3
    by_kind = PoolPrompts(PROMPTS, 9, by="kind").open(CONTEXT)
    assert [(arm.category, arm.size) for arm in by_kind.arms] == [(kind, 3) for kind in dict.fromkeys(arm.category for arm in opened.arms)]
    rounds = [question.text for question in by_kind.pick([0] * 6)]
    assert len(set(rounds[:3])) == 3 and set(rounds[:3]) == set(rounds[3:])


def test_prompts_without_arms_cannot_be_taught(tmp_path: Any) -> None:
    from outlay.prompts import FilePrompts

    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "1+1=", "reference": "2"}\n{"prompt": "1+2=", "reference": "3"}\n')
    with pytest.raises(InputError, match="prompts/pool"):
        rollouts(prompts=FilePrompts(path), teacher=Uniform()).open(CONTEXT)
    assert rollouts(prompts=PoolPrompts(FilePrompts(path), 2), teacher=Uniform()).open(CONTEXT)


# ---- looking ------------------------------------------------------------------------------------------------------------------------


def actor(books: Books) -> Actor:
    return Actor(MODEL, CONTEXT, {}, books.leave, lambda _: nullcontext(), lambda batch: batch, passes=books.passes)


def test_norms_are_those_of_the_embedding_matrix_one_row_at_a_time() -> None:
    stream = rollouts().open(CONTEXT)
    act(stream, 8)
    batch, books = stream.draw(8), Books()
    found = gradient_norms(actor(books), batch, "allocator")
    assert found is not None and books.looked == {"allocator": 3.0 * batch["input_ids"].numel()}
    matrix = MODEL.get_input_embeddings().weight  # type: ignore[operator]
    for i in range(8):
        row = {name: column[i : i + 1] for name, column in batch.items()}
        log_prob = (token_log_probs(MODEL, row) * answer_mask(row)).sum()
        (gradient,) = torch.autograd.grad(log_prob, matrix)
        assert found[i] == pytest.approx(float(gradient.norm()), rel=1e-4)


def test_features_are_of_length_one_and_do_not_depend_on_company() -> None:
    questions, books = PROMPTS.open(CONTEXT).draw(6), Books()
    found = prompt_features(actor(books), questions, CONTEXT.tokenizer, "teacher")
    alone = prompt_features(actor(books), questions[2:3], CONTEXT.tokenizer, "teacher")
    assert found is not None and alone is not None and found.shape == (6, 32)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(6)) and found[2] == pytest.approx(alone[0], abs=1e-5)


def test_concentration_is_the_mean_cosine() -> None:
    questions = PROMPTS.open(CONTEXT).draw(3)
    found = concentrations(actor(Books()), questions, CONTEXT.tokenizer, "teacher")
    assert found is not None
    ids = torch.tensor([CONTEXT.tokenizer(questions[0].text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        hidden = MODEL.eval()(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
    unit = torch.nn.functional.normalize(hidden, dim=1)
    assert found[0] == pytest.approx(float((unit @ unit.T).mean()), abs=1e-5)


def test_looking_ends_with_the_budget() -> None:
    questions = PROMPTS.open(CONTEXT).draw(3)
    assert prompt_features(actor(Books(positions=5)), questions, CONTEXT.tokenizer, "teacher") is None
    assert concentrations(actor(Books(positions=5)), questions, CONTEXT.tokenizer, "teacher") is None
    stream = rollouts(teacher=Scripted(), allocator=Slope(probe=2)).open(CONTEXT)
    acted = act(stream, books=Books(positions=5))
    assert acted.cut and not stream.ready()
