"""Toy policy: success at five levels of which each teaches the next, known exactly, to hold teachers, allocators and repairs against each other.

One run takes a fraction of a second, and drives the real methods through their seams: what they choose, how they divide and what they throw
away is theirs. It is a landscape, not a language model: it tells which methods do what they claim, not how much they will bring elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from outlay.allocators.base import Allocator, Claims
from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.context import Context
from outlay.errors import InputError
from outlay.estimators.base import Estimator
from outlay.estimators.windowed import Windowed
from outlay.rng import numpy_generator
from outlay.schedules.base import require
from outlay.teachers.base import Asking, Examined, Ranks, Screens, Teacher

if TYPE_CHECKING:
    from outlay.prompts.base import Question
    from outlay.repairs.base import Group, Repair

#: what the arms are: every prompt one, or every level one, whose prompts are drawn evenly
Over = Literal["prompts", "categories"]
#: advantages of a group: (r - mean) / std, 0 where all are equal; or r less what the likelier answer is worth, which is one more rollout
Objective = Literal["grpo", "remax"]

#: answers to each level in an examination, and examinations in a run, for teachers that learn from them; they are charged
EXAM_ANSWERS, EXAMS = 32, 10

#: PPO's bound on the ratio of replayed rows
CLIP = 0.2


@dataclass(frozen=True)
class ToyLaw:
    """What prompts are drawn from. A prompt of level l has features x = e_l + transfer e_(l-1) and ``noises`` further ones of N(0, noise),
    and difficulty d = easiest + step l + N(0, spread). The policy w, 0 at first, answers it rightly with probability 1 / (1 + exp(d - w x)).

    Args:
        prompts: how many are in a pool, the same number of each level but for one, > 0.
        levels: how many, > 0.
        transfer: what is learnt at a level is worth this much at the next.
        noises: features that tell nothing.
        noise: their standard deviation, >= 0.
        easiest: mean difficulty of the first level.
        step: by how much each further level is harder.
        spread: standard deviation of difficulties within a level, >= 0.
    """

    prompts: int = 600
    levels: int = 5
    transfer: float = 0.7
    noises: int = 9
    noise: float = 0.3
    easiest: float = 1.0
    step: float = 2.2
    spread: float = 0.6

    def __post_init__(self) -> None:
        require(self.levels > 0, f"levels must be > 0, found {self.levels}")
        require(self.prompts >= self.levels, f"prompts must be >= levels, found {self.prompts} for {self.levels} levels")
        require(self.noises >= 0, f"noises must be >= 0, found {self.noises}")
        require(self.noise >= 0 and self.spread >= 0, f"noise and spread must be >= 0, found {self.noise} and {self.spread}")

    @property
    def width(self) -> int:
        """Number of features."""
        return self.levels + self.noises

    def draw(self, rng: np.random.Generator) -> ToyPool:
        """Return a pool of prompts."""
        levels = np.arange(self.prompts) % self.levels
        features = np.zeros((self.prompts, self.width))
        features[np.arange(self.prompts), levels] = 1.0
        above = np.flatnonzero(levels)
        features[above, levels[above] - 1] = self.transfer
        features[:, self.levels :] = rng.normal(0.0, self.noise, (self.prompts, self.noises))
        difficulties = self.easiest + self.step * levels + rng.normal(0.0, self.spread, self.prompts)
        return ToyPool(levels, features, difficulties)


@dataclass(frozen=True)
class ToyPool:
    """Prompts.

    Args:
        levels: level of each, (prompts,).
        features: (prompts, width).
        difficulties: (prompts,).
    """

    levels: IntArray
    features: FloatArray
    difficulties: FloatArray

    def success(self, weights: FloatArray) -> FloatArray:
        """Return how likely a policy is right, (prompts,)."""
        return np.asarray(1.0 / (1.0 + np.exp(self.difficulties - self.features @ weights)), np.float64)

    def arms(self, over: Over) -> list[Arm]:
        """Return what a teacher chooses among: prompts, whose place is their difficulty scaled to [0, 1], or levels."""
        names = [f"level/{level}" for level in self.levels]
        if over == "categories":
            kinds, sizes = np.unique(self.levels, return_counts=True)
            most = max(len(kinds) - 1, 1)
            return [Arm(f"level/{k}", f"level/{k}", float(k), int(n), (float(k) / most,)) for k, n in zip(kinds, sizes, strict=True)]
        low, high = float(self.difficulties.min()), float(self.difficulties.max())
        places = (self.difficulties - low) / max(high - low, 1e-12)
        return [
            Arm(str(i), name, float(level), 1, (float(place),), f"{name} question {i}")
            for i, (name, level, place) in enumerate(zip(names, self.levels, places, strict=True))
        ]


@dataclass(frozen=True)
class ToyResult:
    """What came of a run. All is about prompts that were drawn from the same law and never trained on, and about true rates of success.

    Args:
        spent: rollouts that had been generated before the first update and after each one, (updates + 1,), from 0 to the budget.
        success: mean rate of success at each of these points.
        hard: the same over levels 3 and above, or over the hardest where there are fewer.
        norm: mean length of an update, learning rate included.
        informative: share of the rollouts generated that had an advantage other than 0.
        trained: rollouts that were learnt from, counted as often as they were.
        shares: share of the generated rollouts that went to each level, (levels,).
        weights: the policy at the end.
    """

    spent: FloatArray
    success: FloatArray
    hard: FloatArray
    norm: float
    informative: float
    trained: int
    shares: FloatArray
    weights: FloatArray

    @property
    def updates(self) -> int:
        """Updates made."""
        return len(self.spent) - 1

    @property
    def area(self) -> float:
        """Mean success over the rollouts spent, straight lines between points."""
        return float(np.sum((self.success[1:] + self.success[:-1]) / 2 * np.diff(self.spent)) / self.spent[-1])

    @property
    def final(self) -> float:
        """Success at the end."""
        return float(self.success[-1])

    @property
    def final_hard(self) -> float:
        """Success on the hard levels at the end."""
        return float(self.hard[-1])

    def reached(self, target: float) -> float:
        """Return the rollouts after which success first was at least ``target``; infinite when it never was."""
        there = np.flatnonzero(self.success >= target)
        return float(self.spent[there[0]]) if len(there) else math.inf


def run_toy(
    teacher: Teacher,
    allocator: Allocator | None = None,
    *,
    estimator: Estimator | None = None,
    repair: Repair | None = None,
    over: Over = "prompts",
    objective: Objective = "grpo",
    lr: float = 4.0,
    limit: float | None = None,
    pull: float = 0.0,
    seed: int = 0,
    rollouts: int = 25_600,
    batch: int = 32,
    samples: int = 8,
    law: ToyLaw | None = None,
) -> ToyResult:
    """Spend a budget of rollouts and return what came of it.

    Update: w <- w + lr (sum over rollouts of A (r - p) x / (batch samples) - pull w), shortened to ``limit``. The divisor never changes,
    whatever is thrown away or divided otherwise: else a method would win by a larger step alone. With neither ``limit`` nor ``pull`` a larger
    lr is always better: success has no ceiling, and where it is reached no gradient is left that could do harm.

    Every rollout generated is charged: the greedy ones of ``remax``, those that are thrown away and those of examinations too. The last batch
    is as large as the budget bears, and what makes no whole group is spent and lost.

    Replayed rollouts are weighed by the ratio of their likelihoods now and then, cut off as in PPO at 0.2; the catalog's replay is stood in for by
    ``ToyReplay``. Repairs that give hints need hints, which there are none of here.

    Args:
        teacher: chooses among the arms.
        allocator: divides ``batch`` x ``samples`` rollouts among the prompts of a batch; None for ``samples`` each.
        estimator: estimates rates for both; ``Windowed()`` when None.
        repair: of groups that teach nothing; None leaves them in.
        over: what the arms are.
        objective: how advantages are worked out.
        lr: learning rate, > 0.
        limit: longest update, > 0; None for no bound. With one no method can win by longer steps.
        pull: how strongly the policy is pulled back to where it began, >= 0, as a KL penalty does.
        seed: of the pool, of the held-out prompts and of all draws. Runs of one seed share both pools.
        rollouts: the budget, >= ``samples`` + 1.
        batch: prompts of an update, > 0.
        samples: rollouts of a prompt, > 0.
        law: of the prompts; ``ToyLaw()`` when None.

    Raises:
        InputError: when a number is out of range, or the teacher lacks something on these arms.
    """
    require(lr > 0, f"lr must be > 0, found {lr}")
    require(limit is None or limit > 0, f"limit must be > 0, found {limit}")
    require(pull >= 0, f"pull must be >= 0, found {pull}")
    require(batch > 0 and samples > 0, f"batch and samples must be > 0, found {batch} and {samples}")
    require(rollouts > samples, f"rollouts must be > samples, found {rollouts} for {samples}")
    estimator, law = estimator or Windowed(), law or ToyLaw()
    return _Toy(teacher, allocator, estimator, repair, over, objective, lr, limit, pull, seed, rollouts, batch, samples, law).run()


@dataclass
class _Answers:
    """Groups of answers, as rows: ``first`` is where each group begins, with the end of all behind them."""

    items: IntArray
    arms: IntArray
    first: IntArray
    rewards: FloatArray
    greedy: FloatArray
    p: FloatArray

    @property
    def owner(self) -> IntArray:
        return np.repeat(np.arange(len(self.items)), np.diff(self.first))

    def __len__(self) -> int:
        return len(self.items)

    def take(self, kept: Sequence[int]) -> _Answers:
        rows = [np.arange(self.first[i], self.first[i + 1]) for i in kept]
        sizes = np.array([len(row) for row in rows], np.int64)
        which = np.asarray(kept, np.int64)
        rewards = self.rewards[np.concatenate(rows)] if rows else np.zeros(0)
        return _Answers(self.items[which], self.arms[which], _edges(sizes), rewards, self.greedy[which], self.p[which])

    @classmethod
    def joined(cls, parts: Sequence[_Answers]) -> _Answers:
        sizes = np.concatenate([np.diff(part.first) for part in parts])
        columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("items", "arms", "rewards", "greedy", "p")]
        items, arms, rewards, greedy, p = columns
        return cls(items, arms, _edges(sizes), rewards, greedy, p)

    def advantages(self, objective: Objective) -> FloatArray:
        """Return the advantage of every row."""
        owner, sizes = self.owner, np.diff(self.first)
        if objective == "remax":
            return self.rewards - self.greedy[owner]
        means = np.bincount(owner, self.rewards, len(self)) / np.maximum(sizes, 1)
        spreads = np.sqrt(means * (1 - means))  # rewards are 0 or 1
        return np.where(spreads[owner] > 1e-9, (self.rewards - means[owner]) / np.maximum(spreads[owner], 1e-9), 0.0)


@dataclass
class ToyReplay:
    """``repairs/replay`` over rows of numbers in place of tensors, by the same rules and with the same draws.

    Args:
        alpha: as there.
        capacity: as there.
        stored: rows that taught, (stored, 4): item, reward, advantage, likelihood when it was sampled.
    """

    alpha: float
    capacity: int | None
    stored: FloatArray = field(default_factory=lambda: np.zeros((0, 4)))

    def replay(self, rows: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return the rows with those of advantage 0 replaced by stored ones."""
        from outlay.repairs.replay import chances

        silent = rows[:, 2] == 0
        self.stored = np.concatenate([self.stored, rows[~silent]])[-(self.capacity or max(1, len(rows) // 2)) :]
        if not silent.any() or not len(self.stored):
            return rows
        odds = chances(np.abs(self.stored[:, 2]).tolist(), self.alpha)
        found = rows.copy()
        found[silent] = self.stored[rng.choice(len(self.stored), size=int(silent.sum()), p=odds)]
        return found


def _edges(sizes: IntArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


@dataclass
class _Toy:
    teacher: Teacher
    allocator: Allocator | None
    estimator: Estimator
    repair: Repair | None
    over: Over
    objective: Objective
    lr: float
    limit: float | None
    pull: float
    seed: int
    budget: int
    batch: int
    samples: int
    law: ToyLaw
    spent: int = 0
    askings: int = 0
    trained: int = 0
    informative: int = 0
    generated: list[_Answers] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pool = self.law.draw(self._stream("pool"))
        self.unseen = self.law.draw(self._stream("held-out"))
        self.aside = self.law.draw(self._stream("examination"))
        context = Context(self.seed)
        arms = self.pool.arms(self.over)
        self.lessons = self.teacher.open(arms, context)
        self.estimates = self.estimator.open(arms, context)
        self.memory = self._memory()
        self.mending = self.repair.open(context) if self.repair is not None and self.memory is None else None
        self.members = [np.flatnonzero(self.pool.levels == level) for level in range(self.law.levels)]
        self.answering = self._stream("answers")
        self.drawing = self._stream("prompts")
        self.weights = np.zeros(self.law.width)
        self.lengths = np.linalg.norm(self.pool.features, axis=1)
        self.by_level = np.zeros(self.law.levels)
        self.asks_norms = self.allocator is not None and self.allocator.needs_norms
        self.screens = self.lessons if isinstance(self.lessons, Screens) else None
        self.examined = self.lessons if isinstance(self.lessons, Examined) else None
        if isinstance(self.lessons, Ranks):
            self.lessons.ranked(self._angles())

    def _stream(self, name: str, counter: int = 0) -> np.random.Generator:
        return numpy_generator(self.seed, f"toy/{name}", counter)

    def _memory(self) -> ToyReplay | None:
        """Return what stands in for the catalog's replay, where that is the repair."""
        if self.repair is None:
            return None
        from outlay.repairs.replay import Replay

        return ToyReplay(self.repair.alpha, self.repair.capacity) if isinstance(self.repair, Replay) else None

    def _angles(self) -> FloatArray:
        """Return what stands in for the angle concentration of each question: falls with difficulty, and correlates with it by about -0.9."""
        d = self.pool.difficulties
        noisy = (d - d.mean()) / d.std() + 0.5 * self._stream("angles").normal(size=len(d))
        angles = -noisy / np.abs(noisy).max()
        if self.over == "categories":
            return np.array([angles[mine].mean() for mine in self.members])
        return np.asarray(angles, np.float64)

    # ---- the loop ----------------------------------------------------------------------------------------------------------------------

    def run(self) -> ToyResult:
        hard = self.unseen.levels >= min(3, self.law.levels - 1)
        first = self.unseen.success(self.weights)
        points = [(0.0, float(first.mean()), float(first[hard].mean()))]
        norms: list[float] = []
        exams = 0
        while self.spent < self.budget:
            if self.examined is not None and self.spent * EXAMS >= exams * self.budget:
                exams += 1
                self._examine()
            norms.append(self._step())
            success = self.unseen.success(self.weights)
            points.append((float(self.spent), float(success.mean()), float(success[hard].mean())))
        spent, success, difficult = np.array(points).T
        shares = self.by_level / self.by_level.sum() if self.by_level.any() else self.by_level
        informative = self.informative / self.budget
        return ToyResult(spent, success, difficult, float(np.mean(norms)), informative, self.trained, shares, self.weights)

    def _step(self) -> float:
        """Generate a batch, learn from it, and return the length of the update."""
        self.generated = []
        count = min(self.batch, self.left // self._cost)
        answers = self._generate(*self._pick(count)) if count else None
        if answers is None:
            self.spent = self.budget
            return 0.0
        if self.mending is not None:
            answers = self._mended(answers)
        if self.left < self._cost:
            self.spent = self.budget
        update = self._gradient(answers)
        self._tell(_Answers.joined(self.generated))
        moved = self.lr * (update - self.pull * self.weights)
        length = float(np.linalg.norm(moved))
        if self.limit is not None and length > self.limit:
            moved, length = moved * (self.limit / length), self.limit
        self.weights = self.weights + moved
        return length

    def _tell(self, answers: _Answers) -> None:
        """Let the teacher and the estimator learn from all that was generated."""
        advantages = answers.advantages(self.objective)
        self.informative += int(np.count_nonzero(advantages))
        features = self._features(answers.items)
        norms = (
            np.abs(answers.rewards - answers.p[answers.owner]) * self.lengths[answers.items[answers.owner]]
            if self.asks_norms
            else np.zeros(0)
        )
        rewards, worths, lengths = answers.rewards.tolist(), advantages.tolist(), norms.tolist()
        edges, outcomes = answers.first.tolist(), []
        for i, arm in enumerate(answers.arms.tolist()):
            rows = slice(edges[i], edges[i + 1])
            mine = features[i] if features is not None else None
            outcomes.append(Outcome(arm, tuple(rewards[rows]), tuple(worths[rows]), tuple(lengths[rows]), mine))
        self.lessons.update(answers.arms, outcomes)
        self.estimates.update(outcomes)

    def _gradient(self, answers: _Answers) -> FloatArray:
        """Return sum of A (r - p) x over the rows / (batch samples); of replayed rows times the ratio, 0 where PPO cuts it off."""
        owner = answers.owner
        items, rewards, advantages = answers.items[owner], answers.rewards, answers.advantages(self.objective)
        weight = advantages * (rewards - answers.p[owner])
        if self.memory is not None:
            rows = np.stack([items, rewards, advantages, np.where(rewards > 0, answers.p[owner], 1 - answers.p[owner])], 1)
            rows = self.memory.replay(rows, self._stream("replay", self.askings))
            items, (rewards, advantages, before) = rows[:, 0].astype(np.int64), rows[:, 1:].T
            p = self.pool.success(self.weights)[items]
            ratio = np.where(rewards > 0, p, 1 - p) / before
            cut = np.where(advantages > 0, ratio > 1 + CLIP, ratio < 1 - CLIP)
            weight = np.where(cut, 0.0, ratio * advantages * (rewards - p))
        self.trained += len(rewards)
        sums = np.bincount(items, weight, len(self.pool.levels))
        return np.asarray(sums @ self.pool.features / (self.batch * self.samples), np.float64)

    # ---- choosing and answering --------------------------------------------------------------------------------------------------------

    @property
    def left(self) -> int:
        """Rollouts that have not been spent."""
        return self.budget - self.spent

    @property
    def _cost(self) -> int:
        """Rollouts of a group, the greedy one among them."""
        return self.samples + (self.objective == "remax")

    def _features(self, items: IntArray) -> FloatArray | None:
        return None if self.estimator.reads == "nothing" else self.pool.features[items]

    def _pick(self, count: int) -> tuple[IntArray, IntArray]:
        """Return the arms and the items of the next prompts."""
        self.askings += 1
        rates, seen = self.estimates.rates(), self.estimates.seen()
        stream = self._stream("asking", self.askings)
        over = self.screens.over if self.screens is not None else 1
        arms = self.lessons.choose(Asking(count * over, self.progress, rates, seen, stream))
        items = arms
        if self.over == "categories":
            items = np.array([self.members[arm][self.drawing.integers(len(self.members[arm]))] for arm in arms], np.int64)
        if self.screens is not None:
            guesses = self.estimates.of(arms, self._features(items))
            kept = self.screens.screen(guesses, Asking(count, self.progress, rates, seen, stream))
            arms, items = arms[kept], items[kept]
        return arms, items

    def _answer(self, items: IntArray, sizes: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return rewards of new answers as rows, and how likely each prompt was answered rightly. Charges them."""
        z = self.pool.features[items] @ self.weights - self.pool.difficulties[items]
        p = 1.0 / (1.0 + np.exp(-z))
        self.spent += int(sizes.sum())
        self.by_level += np.bincount(self.pool.levels[items], sizes, self.law.levels)
        return (self.answering.random(int(sizes.sum())) < np.repeat(p, sizes)).astype(np.float64), p

    def _generate(self, arms: IntArray, items: IntArray, samples: int | None = None) -> _Answers:
        """Return answers to prompts: so many each, or what the allocator gives them."""
        count = len(items)
        sizes = np.full(count, self.samples if samples is None else samples, np.int64)
        if self.allocator is None or samples is not None:
            rewards, p = self._answer(items, sizes)
        else:
            rewards, p, sizes = self._divided(self.allocator, arms, items)
        greedy = (p > 0.5).astype(np.float64)
        if self.objective == "remax":
            self.spent += count
        answers = _Answers(items, arms, _edges(sizes), rewards, greedy, p)
        self.generated.append(answers)
        return answers

    def _divided(self, allocator: Allocator, arms: IntArray, items: IntArray) -> tuple[FloatArray, FloatArray, IntArray]:
        """Return answers that an allocator divided: those that it asks for first, then the rest."""
        total = self.samples * len(items)
        probe = min(allocator.probe, self.samples)
        rates = self.estimates.of(arms, self._features(items))
        seen = self.estimates.seen()[arms]
        right = wrong = None
        early = np.zeros((len(items), 0))
        if probe:
            rewards, p = self._answer(items, np.full(len(items), probe, np.int64))
            early = rewards.reshape(len(items), probe)
            rates, seen = early.mean(axis=1), np.full(len(items), float(probe))
            length = self.lengths[items]
            right = np.where(early.any(axis=1), (1 - p) * length, np.nan)
            wrong = np.where(~early.all(axis=1), p * length, np.nan)
        claims = Claims(rates, seen, right, wrong) if allocator.needs_norms else Claims(rates, seen)
        sizes = allocator.allocate(claims, total, low=probe)
        late, p = self._answer(items, sizes - probe)
        ends = _edges(sizes - probe)
        rows = [np.concatenate([early[i], late[ends[i] : ends[i + 1]]]) for i in range(len(items))]
        return np.concatenate(rows), p, sizes

    def _examine(self) -> None:
        """Let lessons learn from answers to further prompts of every level, which are charged."""
        if self.over != "categories":
            raise InputError(f"{type(self.teacher).__name__} learns from evaluations of its arms; here that takes over='categories'")
        assert self.examined is not None
        p = self.aside.success(self.weights)
        losses = np.full(self.law.levels, np.nan)
        for level in range(self.law.levels):
            mine = np.flatnonzero(self.aside.levels == level)
            if self.left >= EXAM_ANSWERS:
                asked = mine[self.answering.integers(len(mine), size=EXAM_ANSWERS)]
                losses[level] = 1 - float(np.mean(self.answering.random(EXAM_ANSWERS) < p[asked]))
                self.spent += EXAM_ANSWERS
        self.examined.examined(losses, self.progress)

    # ---- repairs -----------------------------------------------------------------------------------------------------------------------

    @property
    def progress(self) -> float:
        """Share of the budget that has been spent."""
        return self.spent / self.budget

    @property
    def cut(self) -> bool:
        """Whether no further group can be paid."""
        return self.left < self._cost

    def ask(self, count: int) -> list[Group]:
        """Generate further groups: what a repair's workshop does."""
        count = min(count, self.left // self._cost)
        return self._groups(self._generate(*self._pick(count), self.samples)) if count else []

    def answer(self, questions: Sequence[Question], samples: int, begun: Sequence[str] | None = None) -> list[Group]:
        """Generate answers to given prompts; there is nothing that they could begin with."""
        cost = samples + self._cost - self.samples
        items = np.array([int(question.text) for question in questions[: self.left // cost]], np.int64)
        if not len(items):
            self.spent = self.budget
            return []
        arms = self.pool.levels[items] if self.over == "categories" else items
        return self._groups(self._generate(arms, items, samples), questions)

    def easier(self, group: Group) -> Question | None:
        """Return a prompt of the level below; None at the lowest."""
        from outlay.prompts.base import Question

        level = int(self.pool.levels[int(group.question.text)])
        if not level:
            return None
        mine = self.members[level - 1]
        return Question(str(mine[self.drawing.integers(len(mine))]), kind=f"level/{level - 1}")

    def _groups(self, answers: _Answers, questions: Sequence[Question] | None = None) -> list[Group]:
        """Return answers as repairs see them; a completion's request tells which group of this step they are."""
        from outlay.prompts.base import Question
        from outlay.repairs.base import Attempt, Group
        from outlay.rollout.base import Completion

        start = sum(len(part) for part in self.generated) - len(answers)
        groups = []
        for i, item in enumerate(answers.items.tolist()):
            question = questions[i] if questions is not None else Question(str(item), kind=f"level/{self.pool.levels[item]}")
            blank = Completion(start + i, 0, (), (), "end")
            values = answers.rewards[answers.first[i] : answers.first[i + 1]].tolist()
            groups.append(Group(question, [Attempt((), blank, value, judged=True) for value in values], int(answers.arms[i])))
        return groups

    def _mended(self, answers: _Answers) -> _Answers:
        """Return the answers that a repair leaves."""
        groups = self.mending.mend(self._groups(answers), len(answers), self)  # type: ignore[union-attr, arg-type]
        return _Answers.joined(self.generated).take([group.attempts[0].completion.request for group in groups])
