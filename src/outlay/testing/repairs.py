"""The contract of repairs, and a workshop to try them in: a small policy that writes for real, judges that are exact, a budget that ends."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch

from outlay.context import Context
from outlay.prompts.base import Question
from outlay.repairs.base import Attempt, Group, Mending, Repair, Replays
from outlay.rng import derive, numpy_generator
from outlay.rollout.base import Completion
from outlay.sources.base import IGNORED, Batch
from outlay.testing.common import global_generators_untouched, hold, same
from outlay.testing.parts import rollout_batch
from outlay.testing.plain import _check_rebuilt, check_resumable

#: the end mark; every other token is the code of its character
END = 0


@lru_cache(maxsize=4096)
def riddle(place: int, level: int, length: int = 4) -> Question:
    """Return a question whose answer is ``length`` symbols 0 and 1; a higher level is harder. It comes with hints and an expert's failure.

    Args:
        place: its number; the answer follows from it alone.
        level: of difficulty.
        length: symbols of the answer, >= 2.
    """
    bits = "".join(str(bit) for bit in numpy_generator(0, "testing/riddle", place).integers(0, 2, length))
    half = length // 2
    wrong = bits[: length - 1] + str(1 - int(bits[-1]))
    extra = {"hints": [[bits[:1], bits[1:half]], [bits[:half], bits[half:]]], "failures": [wrong], "level": level, "length": length}
    return Question(f"<{place}|{level}|{length}>", bits, place, f"level {level}", extra)


@dataclass
class Riddler:
    """A policy over symbols: P(the right one at position t) = sigmoid(skill - steep level + trust [the prompt tells symbol t]), else the wrong one.

    After as many symbols as the answer has it writes the end mark.

    Args:
        skill: log odds of a right symbol at level 0.
        steep: what a level takes off.
        trust: what it adds when the prompt shows the symbol.
    """

    skill: float = 4.0
    steep: float = 2.0
    trust: float = 6.0

    def read(self, prompt: Sequence[int]) -> tuple[Question, int, str]:
        """Return the question in a prompt, how many symbols of the answer hints tell, and what of the answer has been begun.

        What follows the question on its own line is a hint; what follows it at once has been begun.
        """
        return _read("".join(map(chr, prompt)))

    def steps(self, prompt: Sequence[int], tokens: Sequence[int]) -> list[tuple[bool, float, bool]]:
        """Return of each symbol (not the end mark) whether it is right, the probability of the right one, and whether it was told."""
        question, told, begun = self.read(prompt)
        found = []
        for position, token in enumerate(tokens, start=len(begun)):
            if token != END:
                found.append((chr(token) == question.reference[position], self.chance(question, position < told), position < told))
        return found

    def chance(self, question: Question, told: bool) -> float:
        """Return the probability of a right symbol."""
        return 1.0 / (1.0 + math.exp(-(self.skill - self.steep * question.extra["level"] + self.trust * told)))

    def logprob(self, prompt: Sequence[int], tokens: Sequence[int]) -> float:
        """Return log pi(tokens | prompt)."""
        return sum(math.log(chance if good else 1 - chance) for good, chance, _ in self.steps(prompt, tokens))

    def write(
        self, prompt: Sequence[int], limit: int, rng: np.random.Generator
    ) -> tuple[tuple[int, ...], tuple[float, ...], Literal["end", "limit"]]:
        """Return tokens drawn, their log probabilities and how they ended."""
        question, told, begun = self.read(prompt)
        tokens: list[int] = []
        logprobs: list[float] = []
        for position in range(len(begun), len(begun) + limit):
            if position >= len(question.reference):
                return (*tokens, END), (*logprobs, 0.0), "end"
            chance = self.chance(question, position < told)
            good = bool(rng.random() < chance)
            symbol = question.reference[position] if good else str(1 - int(question.reference[position]))
            tokens.append(ord(symbol))
            logprobs.append(math.log(chance if good else 1 - chance))
        return tuple(tokens), tuple(logprobs), "limit"


@lru_cache(maxsize=4096)
def _read(text: str) -> tuple[Question, int, str]:
    match = re.search(r"<(\d+)\|(-?\d+)\|(\d+)>", text)
    if match is None:
        raise ValueError(f"a prompt must hold a riddle, found {text!r}")
    question = riddle(int(match[1]), int(match[2]), int(match[3]))
    rest = text[match.end() :]
    begun, _, hint = rest.partition("\n") if "\n" in rest else (rest, "", "")
    shown = text[: match.start()] + hint
    runs = re.findall(r"[01]+", shown.replace("\n", ""))
    told = max((_agreement(run, question.reference) for run in runs), default=0)
    return question, told, begun


def _agreement(run: str, reference: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(run, reference, strict=False)) if a != b), min(len(run), len(reference)))


@dataclass
class Bench:
    """A workshop whose generation costs one rollout a completion.

    Args:
        policy: who writes.
        levels: difficulties of the questions that are asked, in turns.
        samples: answers to a question.
        rollouts: completions that the budget bears; None for no end.
        length: symbols of an answer.
        limit: new tokens of an answer; None for its symbols and the end mark.
        seed: root of all streams.
        progress: share of the budget that counts as spent.
    """

    policy: Riddler = field(default_factory=Riddler)
    levels: tuple[int, ...] = (0, 1, 3)
    samples: int = 8
    rollouts: int | None = None
    length: int = 4
    limit: int = 5
    seed: int = 0
    progress: float = 0.5
    cut: bool = False
    charged: int = 0
    judged: int = 0
    asked: int = 0
    calls: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    _written: int = 0

    def __post_init__(self) -> None:
        self.rng = numpy_generator(self.seed, "testing/bench")

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the characters' codes."""
        return tuple(map(ord, text))

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the characters; the end mark stays visible as one of its own."""
        return "".join(map(chr, tokens))

    def ask(self, count: int) -> list[Group]:
        """Return groups of further questions."""
        self._called("ask")
        questions = [riddle(self.asked + i, self.levels[(self.asked + i) % len(self.levels)], self.length) for i in range(count)]
        self.asked += count
        return self._answered(questions, self.samples, [""] * count, [question.place % len(self.levels) for question in questions])

    def answer(self, questions: Sequence[Question], samples: int, begun: Sequence[str] | None = None) -> list[Group]:
        """Return groups of answers to these questions."""
        self._called("answer")
        groups = self._answered(questions, samples, begun or [""] * len(questions), [-1] * len(questions))
        for group in groups:
            group.hinted = 1.0  # it is for the repair to say that a question was asked without help
        return groups

    def write(self, prompts: Sequence[tuple[int, ...]], samples: int, limit: int) -> list[list[Completion]]:
        """Return completions of prompts."""
        self._called("write")
        found = self._completed(prompts, samples, limit)
        whole = all(one is not None for row in found for one in row)
        return [[one for one in row if one is not None] for row in found] if whole else []

    def judge(self, question: Question, texts: Sequence[str]) -> list[tuple[float, bool]]:
        """Return 1 for the reference and 0 for other texts."""
        self._called("judge")
        self.judged += len(texts)
        return [(float(text == question.reference), True) for text in texts]

    def easier(self, group: Group) -> Question | None:
        """Return the question one level lower; None at level 0."""
        self._called("easier")
        level = group.question.extra["level"]
        return riddle(group.question.place, level - 1, self.length) if level > 0 else None

    def _called(self, what: str) -> None:
        self.calls.append(what)
        if self.cut:
            self.late.append(what)

    def _completed(self, prompts: Sequence[tuple[int, ...]], samples: int, limit: int) -> list[list[Completion | None]]:
        found: list[list[Completion | None]] = []
        for number, prompt in enumerate(prompts):
            row: list[Completion | None] = []
            for sample in range(samples):
                if self.cut or (self.rollouts is not None and self.charged >= self.rollouts):
                    self.cut = True
                    row.append(None)
                    continue
                self.charged += 1
                rng = np.random.default_rng(derive(self.seed, "testing/bench/write", self._written))
                self._written += 1
                row.append(Completion(number, sample, *self.policy.write(prompt, limit, rng)))
            found.append(row)
        return found

    def _answered(self, questions: Sequence[Question], samples: int, begun: Sequence[str], arms: Sequence[int]) -> list[Group]:
        prompts = [self.encode(question.text + start) for question, start in zip(questions, begun, strict=True)]
        groups = []
        for question, prompt, start, arm, row in zip(
            questions, prompts, begun, arms, self._completed(prompts, samples, self.limit), strict=True
        ):
            if any(one is None for one in row):
                continue
            attempts = []
            for one in row:
                if one is not None:
                    text = start + self.decode(one.tokens[:-1] if one.ended == "end" else one.tokens)
                    attempts.append(Attempt(prompt, one, float(text == question.reference), judged=True))
            groups.append(Group(question, attempts, arm))
        return groups


# ---- the check ---------------------------------------------------------------------------------------------------------------------


def check_repair(
    make: Callable[[], Repair], *, filters: bool = False, touches: Literal["failed", "silent"] = "failed", rounds: int = 4
) -> None:
    """Check the repair seam: how many groups come back and of what size, what is left alone, what a budget's end does, and resuming.

    Args:
        make: returns the repair, alike each time.
        filters: whether it leaves groups out; otherwise the first ``wanted`` come back, each in its place.
        touches: which groups may change: those whose answers all failed, or all whose answers are worth the same.
        rounds: batches that are mended for resuming, > 1.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    repair = make()
    name = repr(repair)
    hold(isinstance(repair, Repair), "a repair has open", f"{name} lacks it")
    _check_rebuilt(repair)
    context = Context(seed=0)
    hold(
        isinstance(repair.open(context), Mending),
        "what is opened has mend, state_dict and load_state_dict",
        f"{name} opened lacks one of them",
    )
    with global_generators_untouched(name):
        for seed in range(2):
            for wanted in (1, 4, 9):
                _check_mended(make, name, filters, touches, seed, wanted)
            _check_cut(make, name, seed)
        _check_cut_at_once(make, name)
        _check_silent_budget(make, name)
    check_resumable(lambda: _Driven(make()), lambda part, step: part.drive(step), lambda part: part.probe(), steps=rounds)
    if isinstance(repair.open(context), Replays):
        _check_replay(make, name)


def _check_mended(make: Callable[[], Repair], name: str, filters: bool, touches: str, seed: int, wanted: int) -> None:
    shop = Bench(seed=seed)
    groups = shop.ask(9)
    before = _shown(groups)
    came = make().open(Context(seed=seed)).mend(groups, wanted, shop)
    hold(_shown(groups) == before, "the groups that were handed over stay as they were", f"{name} changed them")
    hold(len(came) <= wanted, "at most as many groups as are wanted come back", f"{name} returned {len(came)} of {wanted}")
    hold(shop.charged >= 0 and not shop.late, "nothing is asked after the end", f"{name} asked {shop.late}")
    again = Bench(seed=seed)
    repeated = make().open(Context(seed=seed)).mend(again.ask(9), wanted, again)
    rule = "the same groups in the same workshop are mended alike"
    hold(_shown(repeated) == _shown(came) and again.charged == shop.charged, rule, f"{name} answered otherwise")
    for group in came:
        sizes = f"{name} returned a group of {len(group.attempts)} where questions get {shop.samples}"
        hold(len(group.attempts) == shop.samples, "a group keeps its size", sizes)
        hold(0 <= group.hinted <= 1, "the share of hinted answers lies in [0, 1]", f"{name} said {group.hinted}")
        for one in group.attempts:
            _check_attempt(one, group, name)
    if not filters:
        hold(len(came) == min(wanted, len(groups)), "groups are not left out", f"{name} returned {len(came)} of {min(wanted, len(groups))}")
    for i, group in enumerate(groups[:wanted]):
        may = group.failed if touches == "failed" else not group.varied
        if not may:
            there = [came[i]] if not filters else [one for one in came if one.question == group.question]
            rule = f"groups are left alone unless they are {touches}"
            hold(all(_shown([one]) == _shown([group]) for one in there), rule, f"{name} changed one worth {group.values}")


def _check_attempt(one: Attempt, group: Group, name: str) -> None:
    policy = Riddler()
    question, _, begun = policy.read(one.prompt)
    tokens = one.completion.tokens[:-1] if one.completion.ended == "end" else one.completion.tokens
    worth = float(begun + "".join(map(chr, tokens)) == question.reference)
    rule = "an answer is worth what the workshop's judge says"
    hold(one.judged and one.value == worth, rule, f"{name} returned {one} worth {worth} in a group asked {group.question.text}")
    whole = len(one.completion.logprobs) == len(one.completion.tokens) > 0 and one.completion.ended != "cut"
    hold(whole, "answers are whole, each token with its log probability", f"{name} returned {one.completion}")
    hold(
        question.place == group.question.place,
        "a prompt asks its group's question",
        f"{name} returned {one.prompt} in {group.question.text}",
    )


def _check_cut(make: Callable[[], Repair], name: str, seed: int) -> None:
    """A budget that ends somewhere within mending."""
    for rollouts in (72, 73, 79, 80, 88, 100, 120, 200):
        shop = Bench(seed=seed, rollouts=rollouts)
        groups = shop.ask(9)
        came = make().open(Context(seed=seed)).mend(groups, 9, shop)
        rule, seen = "nothing is asked after the budget's end", f"{name} asked {shop.late} with {rollouts - 72} rollouts to spend"
        hold(not shop.late, rule, seen)
        hold(shop.charged <= rollouts, "nothing is generated without being charged", seen)
        hold(len(came) <= 9, "at most as many groups as are wanted come back", seen)
        for group in came:
            hold(len(group.attempts) == shop.samples, "a group is whole or not there", f"{name} returned {len(group.attempts)} answers")
            for one in group.attempts:
                _check_attempt(one, group, name)


def _check_cut_at_once(make: Callable[[], Repair], name: str) -> None:
    shop = Bench()
    groups = shop.ask(9)
    shop.cut, shop.calls = True, []
    came = make().open(Context(seed=0)).mend(groups, 5, shop)
    hold(not shop.calls, "nothing is mended after the end", f"{name} called {shop.calls}")
    given = [_shown([group]) for group in groups]
    hold(all(_shown([group]) in given for group in came), "after the end groups come back as they are", f"{name} changed one")


def _check_silent_budget(make: Callable[[], Repair], name: str) -> None:
    """No groups, or none that is wanted."""
    for groups, wanted in (([], 4), (Bench().ask(3), 0)):
        shop = Bench(rollouts=0)
        came = make().open(Context(seed=0)).mend(groups, wanted, shop)
        hold(came == [], "nothing comes of nothing", f"{name} returned {len(came)} groups of {len(groups)}, {wanted} wanted")


class _Driven:
    """A mending with its tensors in its state, for ``check_resumable``."""

    def __init__(self, repair: Repair) -> None:
        self._mending = repair.open(Context(seed=0))

    def drive(self, step: int) -> None:
        _mend(self._mending, step)

    def probe(self) -> Any:
        return _mend(copy.deepcopy(self._mending), 1000)

    def state_dict(self) -> dict[str, Any]:
        state = self._mending.state_dict()
        rule = "a state is plain values that survive JSON"
        hold(json.loads(json.dumps(state)) == state, rule, f"found {state!r}")
        tensors = self._mending.tensors() if isinstance(self._mending, Replays) else {}
        return {"plain": state, "tensors": {name: tensor.clone() for name, tensor in tensors.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._mending.load_state_dict(state["plain"])
        if isinstance(self._mending, Replays):
            self._mending.load_tensors(state["tensors"])


def _mend(mending: Mending, step: int) -> Any:
    """Mend groups of questions that come again in later steps, and replay made-up rows."""
    shop = Bench(policy=Riddler(skill=3.0 + 0.2 * (step % 5)), seed=step, levels=(1, 2, 3))
    found: list[Any] = [_shown(mending.mend(shop.ask(6), 6, shop)), shop.charged]
    if isinstance(mending, Replays):
        found.append(mending.replay(prepared(step), 0, numpy_generator(step, "testing/replay")))
    return found


def prepared(seed: int, width: int = 9, groups: int = 3) -> Batch:
    """Return made-up rollouts with the column ``advantage``, silent in all of their groups but the last."""
    batch = rollout_batch(seed, groups=groups, width=width)
    centred = batch["reward"] - 1.25
    centred[batch["group"] < groups - 1] = 0.0
    centred[~batch["judged"]] = 0.0
    batch["advantage"] = torch.where(batch["labels"] != IGNORED, centred[:, None], 0.0)
    return batch


def _check_replay(make: Callable[[], Repair], name: str) -> None:
    mending = make().open(Context(seed=0))
    hold(isinstance(mending, Replays), "a repair that replays has replay, tensors and load_tensors", name)
    if not isinstance(mending, Replays):
        return
    silent = prepared(0)
    silent["advantage"] = torch.zeros_like(silent["advantage"])
    rng = numpy_generator(0, "testing/replay")
    hold(same(mending.replay(dict(silent), 0, rng), silent), "with nothing stored the batch stays as it is", f"{name} changed it")
    for seed, width in ((0, 9), (1, 17), (2, 6), (3, 9)):
        batch = prepared(seed, width)
        before = {column: tensor.clone() for column, tensor in batch.items()}
        came = mending.replay(batch, 7, numpy_generator(seed, "testing/replay"))
        hold(same(batch, before), "the batch that was handed over stays as it was", f"{name} changed it")
        hold(came.keys() == batch.keys(), "the columns stay", f"{name} returned {sorted(came)}")
        hold(torch.equal(came["group"], batch["group"]), "rows keep their group's number", f"{name} returned {came['group']}")
        loud = (batch["advantage"] != 0).any(1)
        hold(bool((came["advantage"] != 0).any(1).all()), "with rows stored none stays silent", f"{name} left {(~loud).sum()} as they are")
        length = batch["input_ids"].shape[1]
        for column, tensor in came.items():
            kept = tensor[loud][:, :length] if tensor.dim() > 1 else tensor[loud]
            hold(torch.equal(kept, batch[column][loud]), "rows that teach stay", f"{name} changed them in {column}")
        there = came["attention_mask"].bool()
        hold(bool((came["input_ids"][~there & ~loud[:, None]] == 7).all()), "padding is the padding token", f"{name} padded otherwise")
        hold(bool((came["labels"][~there] == IGNORED).all()), "padding is not labelled", f"{name} labelled it")


def _shown(groups: Sequence[Group]) -> str:
    """All that groups hold, as a text that is equal only where they are."""
    return repr(list(groups))
