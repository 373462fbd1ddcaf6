"""Rollouts: the model answers fresh prompts, judges say what the answers are worth, and groups of them are what is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from outlay.allocators import Allocator
from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.estimators import Estimator, Windowed
from outlay.prompts.base import PromptSource, Question, Questions
from outlay.record import Record
from outlay.repairs.base import Attempt, Group, Repair, Replays
from outlay.rewards.base import Reward
from outlay.rewards.panel import Panel
from outlay.rng import numpy_generator
from outlay.rollout.base import Completion, Engine, Generator, Sampling
from outlay.rollout.local import Local
from outlay.schedules.base import require
from outlay.sources.answering import encode
from outlay.sources.base import IGNORED, Acted, Actor, Batch, Examples
from outlay.sources.choosing import Choosing
from outlay.sources.layout import Row, lay_out
from outlay.sources.pairs import trimmed
from outlay.sources.prompts import tokenizer_of
from outlay.sources.telling import by_kind, detail, divided, statistics
from outlay.sources.workshop import Generation, outcomes
from outlay.teachers import Teacher, Uniform

#: what the names of tensors that a repair keeps begin with
KEPT = "repair/"
#: questions looked at when a run begins, to learn how long prompts are
LOOKED_AT = 256


@dataclass(frozen=True)
class Rollouts:
    """Answers that the model being trained gives to fresh prompts, in groups of the same question.

    A stage's ``batch_size`` counts answers an update, so it must be a multiple of ``samples``. One generation serves ``minibatches`` updates an
    epoch for ``epochs`` epochs: 1 and 1 train on policy. Generation is charged to the account ``rollout`` (rollouts, prompt tokens and
    new tokens, FLOPs, seconds), judging to ``reward``. When the budget ends inside a generation, whole groups that are done are used if they
    fill an update; the rest is on the books, and lost.

    Knobs: ``temperature``, ``top_p``, ``token_limit`` (new tokens an answer), and ``reward_<name>``, the weight of each reward.

    Args:
        prompts: where questions come from.
        rewards: name -> reward; an answer's worth is the sum of their values times the knobs ``reward_<name>``, 1 each unless told otherwise.
            An answer that a reward with weight cannot judge is masked: it teaches nothing and enters no group's mean.
        samples: answers to a question, > 0.
        new_tokens: longest answer in tokens, end mark included, > 0; the default of the knob ``token_limit``.
        temperature: that answers are sampled at, > 0; the default of the knob.
        top_p: keep the likeliest tokens up to this probability, in (0, 1]; the default of the knob.
        top_k: keep this many likeliest tokens, >= 0; 0 keeps all.
        stop: strings that end an answer.
        engine: who generates.
        minibatches: updates that share out the answers of one generation, > 0.
        epochs: times that a generation is gone through, > 0.
        teacher: who chooses what is asked; the prompts must have arms. None keeps to their own order.
        estimator: how likely an answer is right before it is generated; teacher and allocator go by it.
        allocator: how the answers of a generation, ``samples`` times its questions, are divided among them; None for the same number each.
            Without a teacher arms are then chosen uniformly.
        least: answers that an allocator gives a question at least, >= 0.
        most: answers that it gives one at most, >= ``samples``; None for no bound.
        repair: what becomes of groups whose answers are all worth the same, which teach nothing. None trains on them as they are.
        watch: evaluations of this name are told to a teacher that learns from them, an arm's being ``<watch>/<arm>``.
    """

    title: ClassVar[str] = "Rollouts with rewards"
    paper: ClassVar[Paper | None] = None
    units: ClassVar[tuple[str, ...]] = ("examples", "tokens", "rollouts", "new_tokens", "labels")

    prompts: PromptSource
    rewards: dict[str, Reward]
    samples: int = 8
    new_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    engine: Engine = field(default_factory=Local)
    minibatches: int = 1
    epochs: int = 1
    teacher: Teacher | None = None
    estimator: Estimator = field(default_factory=Windowed)
    allocator: Allocator | None = None
    least: int = 0
    most: int | None = None
    repair: Repair | None = None
    watch: str = "exact_match"

    def __post_init__(self) -> None:
        require(0 <= self.least <= self.samples, f"least must lie in [0, samples], found {self.least}")
        require(self.most is None or self.most >= self.samples, f"most must be >= samples, found {self.most}")
        for name in ("samples", "new_tokens", "minibatches", "epochs"):
            require(getattr(self, name) > 0, f"{name} must be > 0, found {getattr(self, name)}")
        require(self.temperature > 0, f"temperature must be > 0, since samples are what is learnt from, found {self.temperature}")
        require(bool(self.rewards), "rewards must name at least one reward, such as {right: exact}")
        Sampling(self.temperature, self.top_p, self.top_k, tuple(self.stop))

    @property
    def knobs(self) -> dict[str, float]:
        """The knobs that generation and judging read, with their defaults."""
        own = {"temperature": self.temperature, "top_p": self.top_p, "token_limit": float(self.new_tokens)}
        return own | {f"reward_{name}": 1.0 for name in self.rewards}

    def open(self, context: Context) -> RolloutStream:
        """Return the stream.

        Raises:
            InputError: when the model reads no text, prompts or rewards cannot be opened, or the run has several processes.
            MissingExtra: when an optional package is needed.
        """
        if context.world > 1:
            raise InputError("sources/rollouts works in one process; give an engine with devices of its own (rollout/vllm) more of them")
        return RolloutStream(self, context, self.prompts.open(context), Panel(self.rewards, context))

    def held_out(self, context: Context) -> Examples:
        """Rollouts keep nothing back.

        Raises:
            InputError: always.
        """
        raise InputError("sources/rollouts keeps no examples back; measure with an exam that asks its own questions, such as exact_match")


@dataclass
class _Buffer:
    """Answers that have been generated and not yet used up.

    Args:
        batch: prepared, whole groups one after the other.
        place: of the first question.
        questions: asked for it, dropped ones included.
        seen: what was seen of them.
        used: updates done on it.
        per_epoch: updates an epoch: fewer than wanted where groups were dropped or cut.
        arms: of what was looked at for it; None without a teacher.
    """

    batch: Batch
    place: int
    questions: int
    seen: dict[str, float]
    per_epoch: int
    used: int = 0
    arms: list[int] | None = None


class RolloutStream:
    """Rollouts being made and read. Its cursor is that of the questions and of the updates on what was generated last."""

    def __init__(self, spec: Rollouts, context: Context, questions: Questions, panel: Panel) -> None:
        self._spec, self._context, self._questions, self._panel = spec, context, questions, panel
        self._tokenizer = tokenizer_of(context, "sources/rollouts")
        self._place = 0
        self._buffer: _Buffer | None = None
        self._generator: Generator | None = None
        self._longest = max(len(prompt) for prompt in encode(questions.draw(LOOKED_AT), self._tokenizer))
        self._choosing: Choosing | None = None
        if spec.teacher is not None or spec.allocator is not None:
            self._choosing = Choosing(questions, spec.teacher or Uniform(), spec.estimator, spec.allocator, context)
        self._repair = spec.repair.open(context) if spec.repair is not None else None

    @property
    def updates(self) -> int:
        """Updates that share out a generation."""
        return self._spec.minibatches

    # ---- as a stream --------------------------------------------------------------------------------------------------------------------

    def draw(self, count: int) -> Batch:
        """Return the next mini-batch; before anything was generated, ``outline``."""
        buffer = self._buffer
        if buffer is None:
            return self.outline(count)
        epoch, turn = divmod(buffer.used, buffer.per_epoch)
        groups, sizes = torch.unique(buffer.batch["group"], return_counts=True)
        order = numpy_generator(self._context.seed, f"sources/rollouts/{buffer.place}", epoch).permutation(len(groups))
        edges = _edges(sizes.numpy()[order], buffer.per_epoch)
        mine = groups[order[edges[turn] : edges[turn + 1]]]
        return trimmed({name: column[torch.isin(buffer.batch["group"], mine)] for name, column in buffer.batch.items()})

    def advance(self, count: int) -> None:
        """Move on to the next mini-batch; after the last, past the questions."""
        buffer = self._buffer
        if buffer is None:
            raise RuntimeError("there is nothing to move past: nothing has been generated")
        buffer.used += 1
        if buffer.used == buffer.per_epoch * self._spec.epochs:
            self._drop(buffer.questions, buffer.arms)

    def ready(self) -> bool:
        """Return whether a mini-batch is there."""
        return self._buffer is not None

    def seen(self) -> dict[str, float]:
        """Return what was seen of the answers that are being trained on."""
        return dict(self._buffer.seen) if self._buffer is not None else {}

    def observe(self, record: Record) -> None:
        """Tell a teacher that learns from evaluations of one."""
        if self._choosing is not None and record.kind == "evaluation":
            self._choosing.examined(record.metrics, self._spec.watch, record.progress)

    def state_dict(self) -> dict[str, Any]:
        """Return the cursor, and what teacher, estimator and repair know."""
        buffer = self._buffer
        kept = None
        if buffer is not None:
            kept = {name: getattr(buffer, name) for name in ("place", "questions", "seen", "used", "per_epoch", "arms")}
        state = {"place": self._place, "questions": self._questions.state_dict(), "buffer": kept}
        if self._choosing is not None:
            state["choosing"] = self._choosing.state_dict()
        if self._repair is not None:
            state["repair"] = self._repair.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved cursor; the answers come with ``load_tensors``."""
        self._place = int(state["place"])
        self._questions.load_state_dict(state["questions"])
        self._buffer = _Buffer(batch={}, **state["buffer"]) if state["buffer"] else None
        if self._choosing is not None:
            self._choosing.load_state_dict(state["choosing"])
        if self._repair is not None:
            self._repair.load_state_dict(state["repair"])

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the answers that have not been used up, and those that a repair keeps."""
        found = dict(self._buffer.batch) if self._buffer is not None else {}
        if isinstance(self._repair, Replays):
            found |= {f"{KEPT}{name}": tensor for name, tensor in self._repair.tensors().items()}
        return found

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up saved answers."""
        if self._buffer is not None:
            self._buffer.batch = {name: tensor for name, tensor in tensors.items() if not name.startswith(KEPT)}
        if isinstance(self._repair, Replays):
            self._repair.load_tensors({name.removeprefix(KEPT): tensor for name, tensor in tensors.items() if name.startswith(KEPT)})

    def outline(self, count: int) -> Batch:
        """Return ``count`` answers as long as they may become to prompts as long as they were seen, worth 0 and 1 in turns.

        Raises:
            InputError: when ``count`` is no multiple of ``samples``.
        """
        self._check(count)
        length = self._spec.new_tokens
        tokens, logprobs = (self._tokenizer.pad_token_id,) * length, (-1.0,) * length
        prompt = (self._tokenizer.pad_token_id,) * self._longest
        groups = []
        for _ in range(0, count, self._spec.samples):
            written = [Completion(0, row, tokens, logprobs, "limit") for row in range(self._spec.samples)]
            attempts = [Attempt(prompt, one, float(row % 2), True) for row, one in enumerate(written)]
            groups.append(Group(Question(""), attempts, greedy=Attempt(prompt, written[0], 0.0, True)))
        return self._assemble(groups, {}, greedy=True, demonstrations=False)

    # ---- acting -------------------------------------------------------------------------------------------------------------------------

    def act(self, count: int, actor: Actor) -> Acted:
        """Ask questions until there are answers for the next updates of ``count`` answers each, or the budget ends that.

        Raises:
            InputError: when ``count`` is no multiple of ``samples``, or a prompt is longer than the model takes.
        """
        self._check(count)
        spec = self._spec
        if self._generator is None:
            self._generator = spec.engine.open(actor.model, actor.context)
        wanted = count // spec.samples * spec.minibatches
        work = Generation(
            spec, self._questions, self._choosing, self._panel, self._generator, self._tokenizer, self._context.seed, actor, self._place
        )
        kept = work.ask(wanted)
        if self._repair is not None and not work.cut:
            kept = self._repair.mend(kept, wanted, work)
        cut = work.cut
        per_epoch = min(spec.minibatches, len(kept))
        if cut:
            per_epoch = min(spec.minibatches, sum(len(group.attempts) for group in kept) // count)
            kept = _within(kept, per_epoch * count)
        acted = self._acted(work, kept, actor)
        arms = list(work.looked) if self._choosing is not None else None
        if per_epoch == 0:  # nothing to learn from: the questions have been used all the same, unless the budget ended
            if not cut:
                self._learn(work, {})
                self._drop(work.asked, arms)
            return acted
        batch = self._assemble(kept, actor.knobs, actor.needs_greedy, actor.needs_demonstrations)
        made = actor.prepare(batch)
        self._learn(work, _advantages(kept, batch, made))
        if isinstance(self._repair, Replays):
            silent = _silent(made)
            made = self._repair.replay(made, self._tokenizer.pad_token_id, work.rng)
            acted.seen["replayed"] = silent - _silent(made)
        self._buffer = _Buffer(made, acted.place, work.asked, acted.seen, per_epoch, arms=arms)
        return acted

    def _check(self, count: int) -> None:
        if count % self._spec.samples:
            raise InputError(
                f"an update of {count} answers cannot be made of groups of {self._spec.samples}; make batch_size a multiple of samples"
            )

    def _learn(self, work: Generation, advantages: dict[int, tuple[float, ...]]) -> None:
        if self._choosing is not None:
            self._choosing.learn(work.chosen, outcomes(work, advantages))

    def _drop(self, questions: int, arms: Sequence[int] | None) -> None:
        if self._choosing is not None and arms is not None:
            self._choosing.use(arms)
        else:
            self._questions.advance(questions)
        self._place += questions
        self._buffer = None

    def _assemble(self, groups: Sequence[Group], knobs: Mapping[str, float], greedy: bool, demonstrations: bool) -> Batch:
        """Lay the groups out as a batch."""
        rows: list[Row] = []
        temperature = knobs.get("temperature", self._spec.temperature)
        limit = knobs.get("token_limit", float(self._spec.new_tokens))
        for number, group in enumerate(groups):
            likeliest = group.greedy.value if group.greedy is not None else 0.0
            for one in group.attempts:
                written = one.completion
                ended = written.ended in ("end", "stop")
                rows.append(Row(one.prompt, written.tokens, written.logprobs, number, one.value, one.judged, ended, likeliest, False))
            if demonstrations:
                if not group.question.reference:
                    raise InputError(
                        f"the question {group.question.text[:60]!r} has no reference, which its objective wants as a demonstration"
                    )
                answer = (*self._tokenizer(group.question.reference, add_special_tokens=False)["input_ids"], self._tokenizer.eos_token_id)
                rows.append(Row(group.attempts[0].prompt, answer, (0.0,) * len(answer), number, 0.0, True, True, likeliest, True))
        batch = lay_out(rows, self._tokenizer.pad_token_id)
        batch["temperature"] = torch.full((len(rows),), temperature)
        batch["limit"] = torch.full((len(rows),), round(limit), dtype=torch.long)
        if greedy:
            batch["greedy_reward"] = torch.tensor([row.greedy_value for row in rows])
        if demonstrations:
            batch["demonstration"] = torch.tensor([row.demonstration for row in rows])
        return batch

    # ---- what was seen ------------------------------------------------------------------------------------------------------------------

    def _acted(self, work: Generation, kept: Sequence[Group], actor: Actor) -> Acted:
        shares = self._choosing.shares(work.place, actor.progress) if self._choosing is not None else {}
        seen = statistics(work, kept, self._repair is not None)
        return Acted(work.place, work.asked, work.cut, seen, detail(work.every), by_kind(work.every), divided(work.every), shares)


def _silent(batch: Batch) -> float:
    """Return how many rows have no advantage on any token."""
    return float((batch["advantage"] == 0).all(1).sum()) if "advantage" in batch else 0.0


def _edges(sizes: NDArray[np.int64], parts: int) -> list[int]:
    """Return where groups of these sizes are cut into ``parts`` of about as many answers, none of them empty; ``len(sizes)`` >= ``parts``."""
    ends, edges = np.cumsum(sizes), [0]
    for part in range(1, parts):
        fair = int(np.searchsorted(ends, ends[-1] * part // parts, side="right"))
        edges.append(min(max(fair, edges[-1] + 1), len(sizes) - (parts - part)))
    return [*edges, len(sizes)]


def _within(groups: Sequence[Group], answers: int) -> list[Group]:
    """Return the first groups that hold so many answers at most."""
    found: list[Group] = []
    for group in groups:
        answers -= len(group.attempts)
        if answers < 0:
            break
        found.append(group)
    return found


def _advantages(groups: Sequence[Group], before: Batch, made: Batch) -> dict[int, tuple[float, ...]]:
    """Return the advantages of each group's judged answers, the mean over an answer's tokens, by the group's ``id``; nothing where the objective
    knows none, or has dropped rows."""
    if "advantage" not in made or len(made["labels"]) != len(before["labels"]):
        return {}
    mask = made["labels"] != IGNORED
    of_rows = ((made["advantage"] * mask).sum(1) / mask.sum(1).clamp(min=1)).tolist()
    usual = before["demonstration"].logical_not() if "demonstration" in before else torch.ones(len(mask), dtype=torch.bool)
    found: dict[int, tuple[float, ...]] = {}
    for number, group in enumerate(groups):
        rows = torch.nonzero((before["group"] == number) & usual & before["judged"]).squeeze(1).tolist()
        found[id(group)] = tuple(of_rows[row] for row in rows)
    return found
