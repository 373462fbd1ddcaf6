"""Mixtures: rows by hand, the domains' own orders, processes, the teacher's part of the state, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from outlay.arms import Arm
from outlay.context import Context
from outlay.errors import InputError
from outlay.models.tokenizers import open_tokenizer
from outlay.record import Record
from outlay.sources import Arrays, Mixture, Preferences, Source, Table, Text, Watches
from outlay.sources.base import IGNORED
from outlay.sources.mixture import Joined, MixtureStream
from outlay.teachers import Asking, MissingSkills, SkillIt, Uniform
from outlay.testing import check_source, record

CHARACTERS = open_tokenizer("characters")
CONTEXT = Context(seed=3, tokenizer=CHARACTERS)


def numbers(start: int, count: int = 40, kept: int = 5) -> Arrays:
    """Examples that say which they are: ``start``, ``start + 1`` ..."""
    inputs = torch.arange(float(start), start + count).unsqueeze(1)
    aside = torch.arange(float(start) + 500, start + 500 + kept).unsqueeze(1)
    return Arrays({"inputs": inputs, "labels": inputs[:, 0].long()}, {"inputs": aside, "labels": aside[:, 0].long()})


def mixture(**fields: Any) -> Mixture:
    return Mixture(**{"domains": {"low": numbers(0), "high": numbers(1000, 30)}, **fields})


def opened(source: Mixture, **changes: Any) -> MixtureStream:
    stream = source.open(dataclasses.replace(CONTEXT, **changes))
    assert isinstance(stream, MixtureStream)
    return stream


def evaluation(progress: float, **losses: float) -> Record:
    return record(kind="evaluation", loss=None, progress=progress, metrics={f"held_out_loss/{name}": loss for name, loss in losses.items()})


def read(stream: MixtureStream, counts: Sequence[int]) -> list[int]:
    found = []
    for count in counts:
        found += stream.draw(count)["labels"].tolist()
        stream.advance(count)
    return found


@dataclasses.dataclass(frozen=True)
class Told:
    """Lessons that note what they are asked and told, and choose arm 1 in every third place."""

    asked: list[Any] = dataclasses.field(default_factory=list)

    def open(self, arms: Sequence[Arm], context: Context) -> Told:
        self.asked.append(tuple(arms))
        return self

    def shares(self, asking: Asking) -> Any:
        return np.array([2 / 3, 1 / 3])

    def choose(self, asking: Asking) -> Any:
        assert np.isnan(asking.rates).all() and not asking.seen.any()
        self.asked.append((asking.count, asking.progress))
        return (np.arange(asking.count) % 3 == 2).astype(np.int64)

    def update(self, chosen: Any, outcomes: Any) -> None:
        assert outcomes == []
        self.asked.append(chosen.tolist())

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass


# ---- reading -------------------------------------------------------------------------------------------------------------------------


def test_rows_stand_where_the_teacher_put_their_domain_and_keep_its_order() -> None:
    teacher = Told()
    stream = opened(mixture(teacher=teacher, difficulty={"high": 2.0}))
    own = {name: source.open(CONTEXT).draw(30)["labels"].tolist() for name, source in mixture().domains.items()}
    low, high = iter(own["low"]), iter(own["high"])
    expected = [next(high) if place % 3 == 2 else next(low) for place in range(7)]
    expected += [next(high) if place % 3 == 2 else next(low) for place in range(5)]
    assert read(stream, [7, 5]) == expected
    assert teacher.asked[0] == (Arm("low", "low", None, 40), Arm("high", "high", 2.0, 30))
    assert teacher.asked[1:] == [(7, 0.0), (7, 0.0), [0, 0, 1, 0, 0, 1, 0], (5, 0.0), (5, 0.0), [0, 0, 1, 0, 0]]
    assert stream.shares() == {"low": 2 / 3, "high": 1 / 3}


def test_the_uniform_teacher_balances_every_batch_and_its_draws_come_from_the_named_stream() -> None:
    stream = opened(mixture())
    orders = []
    for _ in range(6):
        high = (stream.draw(8)["labels"] >= 1000).tolist()
        assert sum(high) == 4
        orders.append(tuple(high))
        stream.advance(8)
    assert len(set(orders)) > 1
    assert read(opened(mixture()), [8] * 6) == read(opened(mixture()), [8] * 6)
    assert read(opened(mixture()), [8]) != read(opened(mixture(), seed=4), [8])


@pytest.mark.parametrize("teacher", [Uniform(), SkillIt(), MissingSkills()])
def test_contract(teacher: Any) -> None:
    check_source(lambda: mixture(teacher=teacher), CONTEXT, by_batch=True, far=5000)


def test_contract_of_texts_of_unlike_widths() -> None:
    short = Table(rows=[{"prompt": f"{i}+1=", "answer": str(i + 1)} for i in range(200)])
    long = Table(rows=[{"prompt": f"the number after {i} is ", "answer": f"no other than {i + 1}"} for i in range(200)])
    check_source(lambda: Mixture({"short": short, "long": long}), CONTEXT, by_batch=True, far=5000)


def test_narrow_rows_are_padded_and_padding_teaches_nothing() -> None:
    narrow = Table(rows=[{"prompt": "a", "answer": "b"}], held_out_share=0.0)
    wide = Table(rows=[{"prompt": "cd", "answer": "e" * 10}], held_out_share=0.0)
    batch = Mixture({"narrow": narrow, "wide": wide}, Told()).open(CONTEXT).draw(3)  # type: ignore[arg-type]
    assert batch["input_ids"].shape == (3, 16)
    alone = narrow.open(CONTEXT).draw(1)
    for row in (0, 1):
        for name, filler in (("input_ids", CHARACTERS.pad_token_id), ("attention_mask", 0), ("labels", IGNORED)):
            assert batch[name][row, :8].tolist() == alone[name][0].tolist()
            assert batch[name][row, 8:].tolist() == [filler] * 8
    assert batch["attention_mask"].sum(1).tolist() == [3, 3, 13]


def test_held_out_examples_are_the_domains_in_their_order() -> None:
    kept = mixture().held_out(CONTEXT)
    assert len(kept) == 10
    assert kept.collate(range(10))["labels"].tolist() == [*range(500, 505), *range(1500, 1505)]
    assert kept.collate([7, 0, 9, 1])["labels"].tolist() == [1502, 500, 1504, 501]
    assert len(kept.collate([])["labels"]) == 0
    bare = Arrays({"inputs": torch.zeros(3, 1), "labels": torch.zeros(3).long()})
    with pytest.raises(InputError, match="no held-out part"):
        mixture(domains={"low": numbers(0), "bare": bare}).held_out(CONTEXT)
    assert isinstance(kept, Joined) and list(kept.parts) == ["low", "high"]


def test_units_and_labels_are_the_domains() -> None:
    text = Text(texts=("abc def " * 40,), length=8, held_out_share=0.0)
    assert Mixture({"one": text}).units == ("examples", "tokens")
    source = mixture()
    assert isinstance(source, Source) and opened(source).labels == 0

    @dataclasses.dataclass(frozen=True)
    class Bought(Arrays):
        units = ("examples", "labels")

        def open(self, context: Context) -> Any:
            stream = super().open(context)
            stream.labels = 40  # type: ignore[attr-defined]
            return stream

    bought = mixture(domains={"low": Bought(numbers(0).train), "high": Bought(numbers(1000).train), "free": numbers(2000)})
    assert bought.units == ("examples", "labels", "tokens") and opened(bought).labels == 80


# ---- what the teacher learns --------------------------------------------------------------------------------------------------------


def test_progress_and_losses_reach_the_teacher() -> None:
    teacher = Told()
    stream = opened(mixture(teacher=teacher))
    stream.observe(record(progress=0.25))
    stream.draw(3)
    assert teacher.asked[-1] == (3, 0.25)
    stream.observe(evaluation(0.5, low=1.0))  # to lessons that are not examined an evaluation only tells the time
    stream.draw(3)
    assert teacher.asked[-1] == (3, 0.5)


def test_evaluations_change_the_shares_of_a_teacher_that_is_examined() -> None:
    stream = opened(mixture(teacher=MissingSkills()))
    assert isinstance(stream, Watches)
    stream.observe(evaluation(0.2, elsewhere=3.0))
    assert stream.shares() == {"low": 0.5, "high": 0.5}
    stream.observe(record(progress=0.25, metrics={"held_out_loss/low": 9.0}))
    assert stream.shares() == {"low": 0.5, "high": 0.5}
    stream.observe(evaluation(0.3, low=0.2, high=0.6))
    assert stream.shares() == pytest.approx({"low": 0.25, "high": 0.75})
    stream.observe(evaluation(0.4, high=0.2))
    assert stream.shares() == pytest.approx({"low": 0.5, "high": 0.5})
    other = opened(mixture(teacher=MissingSkills(), watch="exam"))
    other.observe(record(kind="evaluation", metrics={"exam/low": 0.0, "exam/high": 1.0}))
    assert other.shares() == {"low": 0.0, "high": 1.0}
    assert all(label >= 1000 for label in other.draw(9)["labels"].tolist())


def test_going_on_from_a_state_equals_never_having_stopped() -> None:
    source = mixture(teacher=SkillIt(eta=2.0))
    straight, stopped = opened(source), opened(source)
    for stream in (straight, stopped):
        read(stream, [5, 7])
        stream.observe(evaluation(0.4, low=0.1, high=1.5))
        read(stream, [6])
    again = opened(source)
    again.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert again.state_dict() == straight.state_dict()
    assert read(again, [9, 4, 11]) == read(straight, [9, 4, 11])
    other = opened(mixture(domains={"low": numbers(0), "else": numbers(0)}))
    with pytest.raises(InputError, match="low, else, but low, high when the run was saved"):
        other.load_state_dict(stopped.state_dict())


# ---- refused ------------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Screening(Uniform):
    def open(self, arms: Sequence[Arm], context: Context) -> Any:
        lessons = super().open(arms, context)
        lessons.over, lessons.screen = 2, lambda rates, asking: rates  # type: ignore[attr-defined]
        return lessons


PAIRS = Preferences(rows=[{"prompt": str(i), "chosen": "a", "rejected": "b"} for i in range(9)], held_out_share=0.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"domains": {"low": numbers(0), "wide": Arrays({"inputs": torch.zeros(4, 2), "labels": torch.zeros(4).long()})}},
         r"'low' and 'wide' differ in their columns: inputs float32 \(1,\), labels int64 \(\), and inputs float32 \(2,\), labels int64 \(\)"),
        ({"domains": {"low": numbers(0), "text": Text(texts=("abc def " * 40,), length=8)}}, "differ in their columns"),
        ({"domains": {"pairs": PAIRS}}, "rows that belong together"),
        ({"domains": {"inner": mixture()}}, "follows the run itself"),
        ({"teacher": Screening()}, "Screening judges single questions"),
    ],
)  # fmt: skip
def test_what_cannot_be_mixed_is_refused_when_it_is_opened(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mixture(**fields).open(CONTEXT)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"domains": {}}, "at least one"),
        ({"difficulty": {"lo": 1.0}}, "'lo', which is no domain; did you mean 'low'"),
        ({"difficulty": {"low": float("nan")}}, "finite"),
    ],
)
def test_ranges(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixture(**fields)
