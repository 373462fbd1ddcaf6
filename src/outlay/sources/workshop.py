"""Workshop: one generation under way. Questions are asked, answered, judged and, by a repair, answered again; all of it is charged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from outlay.arms import FloatArray, Outcome
from outlay.prompts.base import Question, Questions
from outlay.repairs.base import Attempt, Group
from outlay.rewards.base import Answer, Verdict
from outlay.rewards.combining import combine
from outlay.rewards.panel import Panel
from outlay.rng import derive, numpy_generator
from outlay.rollout.base import Completion, Generator, Request, Sampling
from outlay.rollout.cache import longest_sequence
from outlay.sources.answering import answer_of, encode
from outlay.sources.base import Actor
from outlay.sources.choosing import Choosing, Chosen
from outlay.sources.layout import Row, lay_out
from outlay.sources.looking import gradient_norms

if TYPE_CHECKING:
    from outlay.sources.rollouts import Rollouts

#: numbers of random streams that one question's answers of one phase may take; phases follow each other
PHASE = 2**40
#: the account that pays for what an allocator asks of the model
ALLOCATOR = "allocator"


@dataclass
class Generation:
    """A generation under way; it is what a repair works in, see ``outlay.repairs.base.Workshop``.

    Args:
        spec: how rollouts are made.
        questions: where they come from.
        choosing: teacher, estimator and allocator; None where the source's own order is followed.
        panel: the judges.
        generator: the engine, opened.
        tokenizer: transformers' tokenizer.
        seed: the run's.
        actor: the model, the knobs, and who pays.
        place: number of the first question.
    """

    spec: Rollouts
    questions: Questions
    choosing: Choosing | None
    panel: Panel
    generator: Generator
    tokenizer: Any
    seed: int
    actor: Actor
    place: int
    #: whether the budget has ended
    cut: bool = False
    #: groups of questions that were asked, whole ones
    every: list[Group] = field(default_factory=list)
    #: verdicts on their answers, by reward
    told: dict[str, list[Verdict]] = field(default_factory=dict)
    #: arms of all that was looked at, and of what was asked; empty without a teacher
    looked: list[int] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    #: questions used up, and answers generated
    asked: int = 0
    generated: int = 0
    #: questions that help made too long to be asked
    too_long: int = 0
    #: what the estimator read of each question that was asked, by its place
    features: dict[int, FloatArray] = field(default_factory=dict)
    _phase: int = 0
    #: the arm of each question by its place
    _arms: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.told = {name: [] for name in self.spec.rewards}
        self.rng = numpy_generator(self.seed, "sources/rollouts/repair", self.place)

    # ---- what a repair may do -------------------------------------------------------------------------------------------------------

    @property
    def progress(self) -> float:
        """Share of the stage's budget that had been spent when acting began."""
        return self.actor.progress

    @property
    def samples(self) -> int:
        """Answers that a question gets unless somebody says otherwise."""
        return self.spec.samples

    @property
    def limit(self) -> int:
        """New tokens that an answer may have."""
        return max(1, round(self.actor.knobs.get("token_limit", self.spec.new_tokens)))

    def encode(self, text: str) -> tuple[int, ...]:
        """Return a text's tokens."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""
        return str(self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))

    def ask(self, count: int) -> list[Group]:
        """Return judged groups of the next ``count`` questions; those that the budget cut off are missing."""
        if self.cut or count == 0:
            return []
        if self.choosing is None:
            questions = self.questions.draw(self.asked + count)[self.asked :]
            self.asked += count
            groups = self._written(questions, [self.spec.samples] * count, greedy=True)
        else:
            chosen, looked = self.choosing.choose(count, self.place, self.looked, self.actor)
            if chosen is None:
                self.cut = True
                return []
            self.looked += looked
            self.asked += len(looked)
            self.chosen += chosen.arms.tolist()
            self._arms |= {question.place: int(arm) for question, arm in zip(chosen.questions, chosen.arms, strict=True)}
            if chosen.features is not None:
                self.features |= {question.place: row for question, row in zip(chosen.questions, chosen.features, strict=True)}
            groups = self._divided(chosen)
        for name, verdicts in self._judge(groups).items():
            self.told[name] += verdicts
        self.every += groups
        return groups

    def answer(self, questions: Sequence[Question], samples: int, begun: Sequence[str] | None = None) -> list[Group]:
        """Return judged groups of new answers to questions as they are given here; those that help has made longer than the model reads are left
        out and counted."""
        texts = begun if begun is not None else [""] * len(questions)
        room = longest_sequence(self.actor.model)
        fitting = [
            (question, text) for question, text in zip(questions, texts, strict=True)
            if room is None or len(self.encode(question.text)) + len(self.encode(text)) + self.limit - 1 <= room
        ]  # fmt: skip
        self.too_long += len(questions) - len(fitting)
        if self.cut or not fitting:
            return []
        questions, begun = [question for question, _ in fitting], [text for _, text in fitting] if begun is not None else None
        arms = [self._arms.get(question.place, -1) for question in questions]
        groups = self._written(questions, [samples] * len(questions), greedy=True, arms=arms, begun=begun)
        self._judge(groups)
        for group in groups:
            group.hinted = 1.0
        return groups

    def write(self, prompts: Sequence[tuple[int, ...]], samples: int, limit: int) -> list[list[Completion]]:
        """Return completions of bare tokens; empty when the budget has ended."""
        if self.cut or not prompts:
            return []
        requests = [Request(prompt, samples, limit, self.place + i) for i, prompt in enumerate(prompts)]
        written = self._generate(requests)
        if any(one.ended == "cut" for one in written):
            self.cut = True
            return []
        return [written[i * samples : (i + 1) * samples] for i in range(len(prompts))]

    def judge(self, question: Question, texts: Sequence[str]) -> list[tuple[float, bool]]:
        """Return what texts are worth as answers, and whether that could be judged."""
        answers = [Answer(question, text, len(self.encode(text)), True, self.limit, question.place) for text in texts]
        values, judged = self._worth(answers)[:2]
        return list(zip(values, judged, strict=True))

    def easier(self, group: Group) -> Question | None:
        """Return a question of the same kind that is easier by one step; None where there is none."""
        arm = self.choosing.easier(group.arm) if self.choosing is not None and group.arm >= 0 else None
        if self.choosing is None or arm is None:
            return None
        self.looked.append(arm)
        self.asked += 1
        question = self.choosing.pick(self.looked)[-1]
        self._arms[question.place] = arm
        return question

    # ---- asking ---------------------------------------------------------------------------------------------------------------------

    def _divided(self, chosen: Chosen) -> list[Group]:
        """Return the groups of chosen questions, each with as many answers as the allocator gives it."""
        assert self.choosing is not None
        allocator, count = self.choosing.allocator, len(chosen.questions)
        arms = chosen.arms.tolist()
        if allocator is None:
            return self._written(chosen.questions, [self.spec.samples] * count, greedy=True, arms=arms)
        total = count * self.spec.samples
        probe = min(allocator.probe, self.spec.samples)
        probed: list[Group | None] = [None] * count
        known: list[Outcome | None] = [None] * count
        if probe:
            first = self._written(chosen.questions, [probe] * count, greedy=False, arms=arms)
            if self.cut:
                return []
            self._judge(first)
            norms = self._norms(first) if allocator.needs_norms else None
            if self.cut:
                return []
            probed, known = list(first), [_outcome(group, norms[i] if norms else ()) for i, group in enumerate(first)]
        high = self.spec.most if self.spec.most is not None else total
        counts = self.choosing.counts(chosen, total, max(self.spec.least, probe), max(high, probe), known).tolist()
        asked = [i for i in range(count) if counts[i] > 0]
        rest = self._written(
            [chosen.questions[i] for i in asked], [counts[i] - probe for i in asked], greedy=True, arms=[arms[i] for i in asked]
        )
        before = {group.question.place: group.attempts for group in probed if group is not None}
        for group in rest:
            group.attempts = [*before.get(group.question.place, ()), *group.attempts]
        return rest

    def _norms(self, groups: Sequence[Group]) -> list[tuple[float, ...]] | None:
        """Return the norms of every judged answer's gradient, by group; sets ``cut`` when the budget bears no more."""
        rows = [
            Row(one.prompt, one.completion.tokens, one.completion.logprobs, number, one.value, one.judged, True, 0.0, False)
            for number, group in enumerate(groups)
            for one in group.attempts
        ]
        found = gradient_norms(self.actor, lay_out(rows, self.tokenizer.pad_token_id), ALLOCATOR)
        if found is None:
            self.cut = True
            return None
        return [
            tuple(norm for row, norm in zip(rows, found.tolist(), strict=True) if row.group == number and row.judged)
            for number in range(len(groups))
        ]

    def _written(
        self, questions: Sequence[Question], counts: Sequence[int], *, greedy: bool, arms: Sequence[int] | None = None,
        begun: Sequence[str] | None = None,
    ) -> list[Group]:  # fmt: skip
        """Return the groups whose answers are all there; sets ``cut`` when some are not."""
        prompts = encode(questions, self.tokenizer)
        if begun is not None:
            prompts = [prompt + self.encode(text) for prompt, text in zip(prompts, begun, strict=True)]
        wanted = [i for i, count in enumerate(counts) if count > 0]
        requests = [Request(prompts[i], counts[i], self.limit, questions[i].place) for i in wanted]
        written = self._generate(requests)
        likeliest: list[Completion | None] = [None] * len(questions)
        if greedy and self.actor.needs_greedy:
            likeliest = list(
                self._generate([Request(prompt, 1, self.limit, q.place) for prompt, q in zip(prompts, questions, strict=True)], 0.0)
            )
        mine: list[list[Completion]] = [[] for _ in questions]
        for one in written:
            mine[wanted[one.request]].append(one)
        groups = []
        for i, question in enumerate(questions):
            best = likeliest[i]
            if all(one.ended != "cut" for one in [*mine[i], *([best] if best else [])]):
                attempts = [Attempt(prompts[i], one) for one in mine[i]]
                arm, likely = arms[i] if arms is not None else -1, Attempt(prompts[i], best) if best else None
                groups.append(Group(question, attempts, arm, likely, begun=begun[i] if begun is not None else ""))
        self.cut = self.cut or len(groups) < len(questions)
        return groups

    def _generate(self, requests: Sequence[Request], temperature: float | None = None) -> list[Completion]:
        spec, knobs = self.spec, self.actor.knobs
        if not requests:
            return []
        warm = knobs.get("temperature", spec.temperature) if temperature is None else temperature
        sampling = Sampling(warm, knobs.get("top_p", spec.top_p), spec.top_k, tuple(spec.stop))
        # later answers to the same question come from other random streams, and so do those of a question that is asked several times at once
        times, moved = Counter[int](), []
        for request in requests:
            moved.append(replace(request, stream=request.stream + (self._phase + times[request.stream]) * PHASE))
            times[request.stream] += 1
        if temperature is None:
            self._phase += max(times.values())
        with self.actor.spend("rollout"):
            written = self.generator.generate(moved, sampling, seed=derive(self.seed, "sources/rollouts"), leave=self.actor.leave)
        if temperature is None:
            self.generated += sum(one.ended != "cut" or bool(one.tokens) for one in written)
        return list(written)

    # ---- judging --------------------------------------------------------------------------------------------------------------------

    def _judge(self, groups: Sequence[Group]) -> dict[str, list[Verdict]]:
        """Set the answers' values and return all verdicts on samples, by reward."""
        attempts = [one for group in groups for one in group.attempts]
        answers = [self._answer(group, one) for group in groups for one in group.attempts]
        values, judged, told = self._worth(answers)
        for one, value, known in zip(attempts, values, judged, strict=True):
            one.value, one.judged = value, known
        likeliest = [(group, group.greedy) for group in groups if group.greedy is not None]
        found, known_too, _ = self._worth([self._answer(group, one) for group, one in likeliest])
        for (group, one), value, known in zip(likeliest, found, known_too, strict=True):
            one.value, one.judged = value, known
            if not known:  # nothing to compare with
                for attempt in group.attempts:
                    attempt.judged = False
        return told

    def _answer(self, group: Group, one: Attempt) -> Answer:
        answer = answer_of(group.question, one.completion, self.tokenizer, self.limit)
        return replace(answer, text=group.begun + answer.text) if group.begun else answer

    def _worth(self, answers: Sequence[Answer]) -> tuple[list[float], list[bool], dict[str, list[Verdict]]]:
        weights = {name: self.actor.knobs.get(f"reward_{name}", 1.0) for name in self.spec.rewards}
        if not answers:
            return [], [], {name: [] for name in weights}
        with self.actor.spend("reward"):
            told = self.panel.verdicts(answers)
        values, judged = combine(told, weights)
        return list(values), list(judged), told


def outcomes(generation: Generation, advantages: dict[int, tuple[float, ...]]) -> list[Outcome]:
    """Return what came of the questions that were asked.

    Args:
        generation: it, finished.
        advantages: of the judged answers of groups that are trained on as they were generated, by the group's ``id``.
    """
    return [_outcome(group, (), advantages.get(id(group), ()), generation.features.get(group.question.place)) for group in generation.every]


def _outcome(group: Group, norms: tuple[float, ...], advantages: tuple[float, ...] = (), features: FloatArray | None = None) -> Outcome:
    return Outcome(group.arm, tuple(group.values), advantages, norms, features)
