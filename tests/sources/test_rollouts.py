from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from outlay.context import Context
from outlay.errors import InputError
from outlay.models import Transformer
from outlay.prompts import ReasoningPrompts
from outlay.repairs import Refill
from outlay.rewards import Answer, Verdict, passed, unjudged
from outlay.rollout import Work
from outlay.sequences import answer_mask, token_log_probs
from outlay.sources import Rollouts
from outlay.sources.base import IGNORED, Acted, Actor, Batch
from outlay.sources.pairs import trimmed
from outlay.sources.rollouts import RolloutStream

LOADED = Transformer(hidden=32, layers=1, heads=2, context=48).build(3)
CONTEXT = Context(seed=3, tokenizer=LOADED.tokenizer)
PROMPTS = ReasoningPrompts(tasks={"gcd": (1,), "reverse": (1,)})


@dataclass(frozen=True)
class ByLength:
    """Worth 1 / tokens; answers of which ``cannot`` is true cannot be judged."""

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    cannot: Callable[[Answer], bool] = lambda answer: False

    def open(self, context: Context) -> ByLength:
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        return [unjudged("asked not to") if self.cannot(answer) else passed(1.0 / answer.tokens) for answer in answers]


@dataclass
class Books:
    """Leave for so many pieces, and what they took."""

    pieces: int = 10_000
    work: list[Work] = None  # type: ignore[assignment]

    def __call__(self, work: Work) -> bool:
        self.work = [*(self.work or []), work]
        return len(self.work) <= self.pieces


def wilful(ending: float = 0.0) -> nn.Module:
    """The model, its end mark made likelier by ``ending``."""
    model = Transformer(hidden=32, layers=1, heads=2, context=48, tie_embeddings=False).build(3).module
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20.0)
        model.get_output_embeddings().weight[CONTEXT.tokenizer.eos_token_id] *= 1 + ending
    return model


MODEL = wilful(1.0)


def rollouts(**changes: object) -> Rollouts:
    fields: dict[str, object] = {"prompts": PROMPTS, "rewards": {"short": ByLength()}, "samples": 4, "new_tokens": 6} | changes
    return Rollouts(**fields)  # type: ignore[arg-type]


def act(stream: RolloutStream, count: int = 8, *, books: Books | None = None, knobs: dict[str, float] | None = None, greedy: bool = False,
        demonstrations: bool = False, model: nn.Module = MODEL) -> Acted:  # fmt: skip
    leave = books or Books()
    actor = Actor(model, CONTEXT, knobs or {}, leave, lambda _: nullcontext(), lambda batch: batch, greedy, demonstrations)
    return stream.act(count, actor)


def rows_of(batch: Batch) -> list[tuple[list[int], list[int]]]:
    """Prompt and answer of every row, by its mask and labels."""
    found = []
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        real = ids[mask.bool()].tolist()
        answer = labels[labels != IGNORED].tolist()
        assert real[len(real) - len(answer) :] == answer
        found.append((real[: len(real) - len(answer)], answer))
    return found


def test_a_batch_holds_what_was_written_and_its_log_probabilities() -> None:
    stream = rollouts(temperature=0.7).open(CONTEXT)
    asked = PROMPTS.open(CONTEXT).draw(8)
    acted = act(stream, 32)
    batch = stream.draw(32)
    assert (acted.place, acted.questions, acted.cut) == (0, 8, False)
    prompts = [CONTEXT.tokenizer.decode(prompt) for prompt, _ in rows_of(batch)]
    assert prompts == [question.text for question in asked for _ in range(4)]
    lengths = [len(answer) for _, answer in rows_of(batch)]
    assert torch.allclose(batch["reward"], 1 / torch.tensor(lengths, dtype=torch.float32))
    ends = [answer[-1] == CONTEXT.tokenizer.eos_token_id for _, answer in rows_of(batch)]
    assert batch["ended"].tolist() == ends and 0 < sum(ends) < 32
    assert all(len(answer) == 6 for (_, answer), ended in zip(rows_of(batch), ends, strict=True) if not ended)
    with torch.no_grad():
        expected = token_log_probs(MODEL.eval(), batch)
    torch.testing.assert_close(batch["behaviour"][:, 1:], expected, atol=1e-4, rtol=0)
    assert bool((batch["behaviour"][:, 1:][~answer_mask(batch)] == 0).all())
    assert batch["group"].tolist() == [group for group in range(8) for _ in range(4)]
    assert batch["temperature"].tolist() == pytest.approx([0.7] * 32) and batch["limit"].tolist() == [6] * 32


def test_what_was_seen_is_said() -> None:
    stream = rollouts(rewards={"short": ByLength(), "some": ByLength(lambda answer: answer.tokens == 6)}).open(CONTEXT)
    act(stream)
    batch, seen = stream.draw(8), stream.seen()
    lengths = [len(answer) for _, answer in rows_of(batch)]
    short = [n for n in lengths if n < 6]
    assert 0 < len(short) < 8
    assert batch["judged"].tolist() == [n < 6 for n in lengths]
    assert seen["unjudged"] == 8 - len(short)
    assert seen["length"] == pytest.approx(sum(lengths) / 8)
    assert seen["reward"] == pytest.approx(sum(2 / n for n in short) / len(short))
    assert seen["reward/some"] == pytest.approx(sum(1 / n for n in short) / len(short))
    assert seen["reward/short"] == pytest.approx(sum(1 / n for n in lengths) / 8)
    assert seen["rollouts_generated"] == seen["rollouts_trained"] == 8.0


def test_a_reward_without_weight_masks_nothing() -> None:
    never = ByLength(lambda answer: True)
    stream = rollouts(rewards={"short": ByLength(), "never": never}).open(CONTEXT)
    act(stream, knobs={"reward_short": 2.0, "reward_never": 0.0})
    batch = stream.draw(8)
    assert bool(batch["judged"].all())
    assert batch["reward"].tolist() == pytest.approx([2 / len(answer) for _, answer in rows_of(batch)])
    act_all = rollouts(rewards={"short": ByLength(), "never": never}).open(CONTEXT)
    act(act_all)
    assert not bool(act_all.draw(8)["judged"].any())


def test_knobs_reach_generation() -> None:
    stream = rollouts().open(CONTEXT)
    act(stream, knobs={"token_limit": 2.2, "temperature": 0.5})
    batch = stream.draw(8)
    assert max(len(answer) for _, answer in rows_of(batch)) == 2
    assert batch["limit"].tolist() == [2] * 8 and batch["temperature"].tolist() == [0.5] * 8
    assert set(rollouts().knobs) == {"temperature", "top_p", "token_limit", "reward_short"}


def test_every_epoch_goes_through_whole_groups_once() -> None:
    stream = rollouts(minibatches=3, epochs=2).open(CONTEXT)
    act(stream, 8)
    seen: list[list[tuple[list[int], list[int]]]] = []
    for _ in range(6):
        assert stream.ready()
        batch = stream.draw(8)
        assert [int((batch["group"] == group).sum()) for group in batch["group"].unique()] == [4, 4]
        seen.append(rows_of(batch))
        stream.advance(8)
    assert not stream.ready()
    first, second = (sorted(row for part in seen[i : i + 3] for row in part) for i in (0, 3))
    assert first == second and len(first) == 24
    assert [sorted(part) for part in seen[:3]] != [sorted(part) for part in seen[3:]]
    assert stream.state_dict()["place"] == 6  # questions are used once their answers have been trained on


def test_questions_are_neither_skipped_nor_asked_twice() -> None:
    stream = rollouts(minibatches=2).open(CONTEXT)
    asked = []
    for _ in range(3):
        acted = act(stream, 8)
        asked += list(range(acted.place, acted.place + acted.questions))
        prompts = set()
        while stream.ready():
            prompts |= {tuple(prompt) for prompt, _ in rows_of(stream.draw(8))}
            stream.advance(8)
    assert asked == list(range(12))


def test_the_likeliest_answer_and_the_demonstration_come_where_they_are_wanted() -> None:
    stream = rollouts().open(CONTEXT)
    books = Books()
    act(stream, greedy=True, demonstrations=True, books=books)
    batch = stream.draw(8)
    demonstrations = batch["demonstration"].nonzero().flatten().tolist()
    assert demonstrations == [4, 9]
    for row, question in zip(demonstrations, PROMPTS.open(CONTEXT).draw(2), strict=True):
        prompt, answer = rows_of(batch)[row]
        assert CONTEXT.tokenizer.decode(prompt) == question.text
        assert CONTEXT.tokenizer.decode(answer[:-1]) == question.reference and answer[-1] == CONTEXT.tokenizer.eos_token_id
    for group in (0, 1):
        prompt, _ = rows_of(batch)[group * 5]
        assert float(batch["greedy_reward"][group * 5]) == pytest.approx(1 / len(_greedy(prompt, 6)))
    assert sum(work.rollouts for work in books.work) == 10  # samples and likeliest answers


def _greedy(prompt: list[int], limit: int) -> list[int]:
    written: list[int] = []
    while len(written) < limit and CONTEXT.tokenizer.eos_token_id not in written:
        with torch.no_grad():
            written.append(int(MODEL.eval()(input_ids=torch.tensor([prompt + written])).logits[0, -1].argmax()))
    return written


def test_groups_that_do_not_vary_make_room_for_others() -> None:
    @dataclass(frozen=True)
    class Parity:
        bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

        def open(self, context: Context) -> Parity:
            return self

        def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
            return [passed(float(answer.question.place % 2 == 1 and answer.tokens % 2 == 0)) for answer in answers]

    stream = rollouts(rewards={"odd": Parity()}, repair=Refill(rounds=8)).open(CONTEXT)
    acted = act(stream, 8)
    batch = stream.draw(8)
    assert acted.questions > 2 and acted.seen["rollouts_generated"] == 4 * acted.questions and acted.seen["rollouts_trained"] == 8
    assert len(batch["reward"]) == 8
    for group in (0, 1):
        assert len(set(batch["reward"][batch["group"] == group].tolist())) == 2
    stream.advance(8)
    assert stream.state_dict()["place"] == acted.questions


def test_groups_that_never_vary_leave_nothing_but_are_used() -> None:
    stream = rollouts(rewards={"none": ByLength()}, repair=Refill(rounds=2), new_tokens=1).open(CONTEXT)
    acted = act(stream, 8)
    assert not stream.ready() and acted.questions == 4 and stream.state_dict()["place"] == 4 and not acted.cut


@pytest.mark.parametrize("pieces", [0, 1, 2, 3])
def test_a_budget_that_ends_inside_a_generation_leaves_nothing_half_done(pieces: int) -> None:
    stream = rollouts().open(CONTEXT)
    acted = act(stream, 8, books=Books(pieces))
    assert acted.cut and not stream.ready()
    assert stream.state_dict()["place"] == 0


def test_whole_groups_that_fill_an_update_are_used_when_the_budget_ends() -> None:
    """Eight groups, two rows each at a time: the first are done when the last have not begun."""
    from outlay.rollout import Local

    def stream() -> RolloutStream:
        return rollouts(minibatches=4, samples=2, engine=Local(slots=2)).open(CONTEXT)

    whole, books = stream(), Books()
    act(whole, 4, books=books)
    assert whole.state_dict()["buffer"] is not None and whole.state_dict()["buffer"]["per_epoch"] == 4
    cut = stream()
    acted = act(cut, 4, books=Books(len(books.work) - 2))
    assert acted.cut and cut.ready()
    kept = cut.state_dict()["buffer"]
    assert kept["per_epoch"] == 3 and len(cut.tensors()["reward"]) == 12
    rows = rows_of(trimmed(whole.tensors()))
    assert all(row in rows for row in rows_of(trimmed(cut.tensors())))


def test_the_outline_is_as_large_as_any_batch() -> None:
    stream = rollouts().open(CONTEXT)
    outline = stream.outline(8)
    assert bool((outline["labels"] != IGNORED).sum(1).eq(6).all())
    for _ in range(4):
        act(stream, 8)
        batch = stream.draw(8)
        assert batch["input_ids"].shape[1] <= outline["input_ids"].shape[1]
        assert set(batch) | {"greedy_reward"} == set(outline)
        stream.advance(8)


def test_a_saved_stream_goes_on_with_the_same_answers() -> None:
    stream = rollouts(minibatches=2, epochs=2).open(CONTEXT)
    act(stream, 8)
    stream.advance(8)
    state, tensors = stream.state_dict(), stream.tensors()
    other = rollouts(minibatches=2, epochs=2).open(CONTEXT)
    other.load_state_dict(state)
    other.load_tensors(tensors)
    for _ in range(3):
        mine, theirs = stream.draw(8), other.draw(8)
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
        assert stream.seen() == other.seen()
        stream.advance(8)
        other.advance(8)
    assert not stream.ready() and not other.ready()
    assert act(stream, 8).place == act(other, 8).place == 4
    assert torch.equal(stream.draw(8)["input_ids"], other.draw(8)["input_ids"])


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="an update of 6 answers cannot be made of groups of 4"):
        act(rollouts().open(CONTEXT), 6)
    with pytest.raises(InputError, match="works in one process"):
        rollouts().open(Context(seed=1, tokenizer=CONTEXT.tokenizer, world=2))
    with pytest.raises(InputError, match="keeps no examples back"):
        rollouts().held_out(CONTEXT)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        rollouts(temperature=0.0)
    with pytest.raises(ValueError, match="rewards must name at least one"):
        rollouts(rewards={})
    for name in ("samples", "new_tokens", "minibatches", "epochs"):
        with pytest.raises(ValueError, match=f"{name} must be > 0, found 0"):
            rollouts(**{name: 0})
