"""Rollouts: the model answers fresh prompts, judges say what the answers are worth, and groups of them are what is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.prompts.base import PromptSource, Question, Questions
from outlay.rewards.base import Reward, Verdict
from outlay.rewards.combining import combine
from outlay.rewards.panel import Panel
from outlay.rng import derive, numpy_generator
from outlay.rollout.base import Completion, Engine, Generator, Request, Sampling
from outlay.rollout.local import Local
from outlay.schedules.base import require
from outlay.sources.answering import answer_of, encode
from outlay.sources.base import Acted, Actor, Batch, Examples
from outlay.sources.layout import Row, lay_out
from outlay.sources.pairs import trimmed
from outlay.sources.prompts import tokenizer_of

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
        keep: ``varied`` drops groups whose answers are all worth the same, as they teach nothing, and asks further questions in
            their place; what was dropped stays charged. ``all`` keeps them.
        rounds: generations at most until enough groups vary, > 0.
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
    keep: Literal["all", "varied"] = "all"
    rounds: int = 3

    def __post_init__(self) -> None:
        for name in ("samples", "new_tokens", "minibatches", "epochs", "rounds"):
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
    """

    batch: Batch
    place: int
    questions: int
    seen: dict[str, float]
    per_epoch: int
    used: int = 0


@dataclass
class _Group:
    question: Question
    prompt: tuple[int, ...]
    completions: list[Completion]
    greedy: Completion | None
    values: list[float] = field(default_factory=list)
    judged: list[bool] = field(default_factory=list)
    greedy_value: float = 0.0

    @property
    def varied(self) -> bool:
        return len({value for value, told in zip(self.values, self.judged, strict=True) if told}) > 1


class RolloutStream:
    """Rollouts being made and read. Its cursor is that of the questions and of the updates on what was generated last."""

    def __init__(self, spec: Rollouts, context: Context, questions: Questions, panel: Panel) -> None:
        self._spec, self._context, self._questions, self._panel = spec, context, questions, panel
        self._tokenizer = tokenizer_of(context, "sources/rollouts")
        self._place = 0
        self._buffer: _Buffer | None = None
        self._generator: Generator | None = None
        self._longest = max(len(prompt) for prompt in encode(questions.draw(LOOKED_AT), self._tokenizer))

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
        groups = torch.unique(buffer.batch["group"])
        order = numpy_generator(self._context.seed, f"sources/rollouts/{buffer.place}", epoch).permutation(len(groups))
        mine = groups[order[len(groups) * turn // buffer.per_epoch : len(groups) * (turn + 1) // buffer.per_epoch]]
        return trimmed({name: column[torch.isin(buffer.batch["group"], mine)] for name, column in buffer.batch.items()})

    def advance(self, count: int) -> None:
        """Move on to the next mini-batch; after the last, past the questions."""
        buffer = self._buffer
        if buffer is None:
            raise RuntimeError("there is nothing to move past: nothing has been generated")
        buffer.used += 1
        if buffer.used == buffer.per_epoch * self._spec.epochs:
            self._drop(buffer.questions)

    def ready(self) -> bool:
        """Return whether a mini-batch is there."""
        return self._buffer is not None

    def seen(self) -> dict[str, float]:
        """Return what was seen of the answers that are being trained on."""
        return dict(self._buffer.seen) if self._buffer is not None else {}

    def state_dict(self) -> dict[str, Any]:
        """Return the cursor."""
        buffer = self._buffer
        kept = None
        if buffer is not None:
            kept = {name: getattr(buffer, name) for name in ("place", "questions", "seen", "used", "per_epoch")}
        return {"place": self._place, "questions": self._questions.state_dict(), "buffer": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved cursor; the answers come with ``load_tensors``."""
        self._place = int(state["place"])
        self._questions.load_state_dict(state["questions"])
        self._buffer = _Buffer(batch={}, **state["buffer"]) if state["buffer"] else None

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the answers that have not been used up."""
        return dict(self._buffer.batch) if self._buffer is not None else {}

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up saved answers."""
        if self._buffer is not None:
            self._buffer.batch = dict(tensors)

    def outline(self, count: int) -> Batch:
        """Return ``count`` answers as long as they may become to prompts as long as they were seen, worth 0 and 1 in turns."""
        length = self._spec.new_tokens
        tokens, logprobs = (self._tokenizer.pad_token_id,) * length, (-1.0,) * length
        prompt = (self._tokenizer.pad_token_id,) * self._longest
        groups = []
        for start in range(0, count, self._spec.samples):
            rows = range(min(self._spec.samples, count - start))
            written = [Completion(0, row, tokens, logprobs, "limit") for row in rows]
            groups.append(_Group(Question(""), prompt, written, None, [float(row % 2) for row in rows], [True for _ in rows]))
        return self._assemble(groups, {}, greedy=True, demonstrations=False)

    # ---- acting -------------------------------------------------------------------------------------------------------------------------

    def act(self, count: int, actor: Actor) -> Acted:
        """Ask questions until there are answers for the next updates of ``count`` answers each, or the budget ends that.

        Raises:
            InputError: when ``count`` is no multiple of ``samples``, or a prompt is longer than the model takes.
        """
        spec = self._spec
        if count % spec.samples:
            raise InputError(
                f"an update of {count} answers cannot be made of groups of {spec.samples}; make batch_size a multiple of samples"
            )
        place, asked, cut = self._place, 0, False
        kept: list[_Group] = []
        every: list[_Group] = []
        told: dict[str, list[Verdict]] = {name: [] for name in spec.rewards}
        wanted = count // spec.samples * spec.minibatches
        for _ in range(spec.rounds):
            questions = self._questions.draw(asked + wanted - len(kept))[asked:]
            groups, cut = self._generate(questions, place + asked, actor)
            asked += len(questions)
            with actor.spend("reward"):
                for name, verdicts in self._judge(groups, actor).items():
                    told[name] += verdicts
            every += groups
            kept += [group for group in groups if spec.keep == "all" or group.varied]
            if cut or len(kept) == wanted:
                break
        seen = self._statistics(every, kept, told)
        per_epoch = min(spec.minibatches, len(kept) * spec.samples // count) if cut else min(spec.minibatches, len(kept))
        if cut:
            kept = kept[: per_epoch * count // spec.samples]
        detail = self._detail(every)
        if per_epoch == 0:  # nothing to learn from: the questions have been used all the same, unless the budget ended
            if not cut:
                self._drop(asked)
            return Acted(place, asked, cut, seen, detail)
        batch = self._assemble(kept, actor.knobs, actor.needs_greedy, actor.needs_demonstrations)
        self._buffer = _Buffer(actor.prepare(batch), place, asked, seen, per_epoch)
        return Acted(place, asked, cut, seen, detail)

    def _drop(self, questions: int) -> None:
        self._questions.advance(questions)
        self._place += questions
        self._buffer = None

    def _generate(self, questions: Sequence[Question], place: int, actor: Actor) -> tuple[list[_Group], bool]:
        """Return the groups whose answers are all there, and whether the budget cut the others off."""
        spec, knobs = self._spec, actor.knobs
        if self._generator is None:
            self._generator = spec.engine.open(actor.model, actor.context)
        prompts = encode(questions, self._tokenizer)
        limit = max(1, round(knobs.get("token_limit", spec.new_tokens)))
        sampling = Sampling(knobs.get("temperature", spec.temperature), knobs.get("top_p", spec.top_p), spec.top_k, tuple(spec.stop))
        seed = derive(self._context.seed, "sources/rollouts")
        requests = [Request(prompt, spec.samples, limit, place + i) for i, prompt in enumerate(prompts)]
        with actor.spend("rollout"):
            written = self._generator.generate(requests, sampling, seed=seed, leave=actor.leave)
            likeliest: list[Completion | None] = [None] * len(requests)
            if actor.needs_greedy:
                once = [replace(request, samples=1) for request in requests]
                likeliest = list(self._generator.generate(once, replace(sampling, temperature=0.0), seed=seed, leave=actor.leave))
        groups = [
            _Group(question, prompt, written[i * spec.samples : (i + 1) * spec.samples], likeliest[i])
            for i, (question, prompt) in enumerate(zip(questions, prompts, strict=True))
        ]
        whole = [
            group for group in groups if all(one.ended != "cut" for one in [*group.completions, *([group.greedy] if group.greedy else [])])
        ]
        return whole, len(whole) < len(groups)

    def _judge(self, groups: Sequence[_Group], actor: Actor) -> dict[str, list[Verdict]]:
        """Set the groups' values and return all verdicts on samples, by reward."""
        limit = max(1, round(actor.knobs.get("token_limit", self._spec.new_tokens)))
        weights = {name: actor.knobs.get(f"reward_{name}", 1.0) for name in self._spec.rewards}
        answers = [answer_of(group.question, one, self._tokenizer, limit) for group in groups for one in group.completions]
        told = self._panel.verdicts(answers)
        values, judged = combine(told, weights)
        for i, group in enumerate(groups):
            mine = slice(i * self._spec.samples, (i + 1) * self._spec.samples)
            group.values, group.judged = list(values[mine]), list(judged[mine])
        if actor.needs_greedy and groups:
            likeliest = [answer_of(group.question, group.greedy, self._tokenizer, limit) for group in groups if group.greedy is not None]
            found, known = combine(self._panel.verdicts(likeliest), weights)
            for group, value, was_judged in zip(groups, found, known, strict=True):
                group.greedy_value = value
                if not was_judged:  # nothing to compare with
                    group.judged = [False] * len(group.judged)
        return told

    def _assemble(self, groups: Sequence[_Group], knobs: Mapping[str, float], greedy: bool, demonstrations: bool) -> Batch:
        """Lay the groups out as a batch."""
        rows: list[Row] = []
        temperature = knobs.get("temperature", self._spec.temperature)
        limit = knobs.get("token_limit", float(self._spec.new_tokens))
        for number, group in enumerate(groups):
            for one, value, told in zip(group.completions, group.values, group.judged, strict=True):
                ended = one.ended in ("end", "stop")
                rows.append(Row(group.prompt, one.tokens, one.logprobs, number, value, told, ended, group.greedy_value, False))
            if demonstrations:
                if not group.question.reference:
                    raise InputError(
                        f"the question {group.question.text[:60]!r} has no reference, which its objective wants as a demonstration"
                    )
                answer = (*self._tokenizer(group.question.reference, add_special_tokens=False)["input_ids"], self._tokenizer.eos_token_id)
                rows.append(Row(group.prompt, answer, (0.0,) * len(answer), number, 0.0, True, True, group.greedy_value, True))
        batch = lay_out(rows, self._tokenizer.pad_token_id)
        batch["temperature"] = torch.full((len(rows),), temperature)
        batch["limit"] = torch.full((len(rows),), round(limit), dtype=torch.long)
        if greedy:
            batch["greedy_reward"] = torch.tensor([row.greedy_value for row in rows])
        if demonstrations:
            batch["demonstration"] = torch.tensor([row.demonstration for row in rows])
        return batch

    # ---- what was seen ------------------------------------------------------------------------------------------------------------------

    def _statistics(self, every: Sequence[_Group], kept: Sequence[_Group], told: Mapping[str, Sequence[Verdict]]) -> dict[str, float]:
        values = [value for group in every for value, known in zip(group.values, group.judged, strict=True) if known]
        written = [one for group in every for one in group.completions]
        seen = {
            "reward": _mean(values), "unjudged": float(sum(not known for group in every for known in group.judged)),
            "length": _mean([float(len(one.tokens)) for one in written]), "ended": _mean([float(one.ended != "limit") for one in written]),
            "varied": _mean([float(group.varied) for group in every]),
            "rollouts_generated": float(len(written)), "rollouts_trained": float(sum(len(group.completions) for group in kept)),
        }  # fmt: skip
        for name, verdicts in told.items():
            judged = [verdict for verdict in verdicts if verdict.outcome != "unjudged"]
            seen[f"passed/{name}"] = _mean([float(verdict.outcome == "passed") for verdict in judged])
            if len(told) > 1:
                seen[f"reward/{name}"] = _mean([verdict.value for verdict in judged])
        return seen

    def _detail(self, every: Sequence[_Group]) -> dict[str, torch.Tensor]:
        rows = [(group, i) for group in every for i in range(len(group.completions))]
        return {
            "place": torch.tensor([group.question.place for group, _ in rows], dtype=torch.long),
            "reward": torch.tensor([group.values[i] for group, i in rows]),
            "judged": torch.tensor([group.judged[i] for group, i in rows], dtype=torch.bool),
            "length": torch.tensor([len(group.completions[i].tokens) for group, i in rows], dtype=torch.long),
        }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
