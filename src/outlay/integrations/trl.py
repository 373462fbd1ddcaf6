"""Teachers in TRL's GRPOTrainer and RLOOTrainer: what is generated for next is chosen among the rows of their own dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch.utils.data import Sampler

from outlay.arms import Arm, Outcome
from outlay.context import Context
from outlay.errors import InputError, MissingExtra, nearest
from outlay.estimators.base import Estimator
from outlay.estimators.features import text_features
from outlay.estimators.windowed import Windowed
from outlay.prompts.base import Question
from outlay.prompts.file import Cycled
from outlay.prompts.pool import PoolPrompts
from outlay.sources.base import Actor
from outlay.sources.choosing import Choosing
from outlay.teachers.base import Examined, Teacher

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_callback import ExportableState
except ImportError:
    raise MissingExtra("transformers", "hf") from None

from outlay.integrations.transformers import BudgetCallback

#: column that is added to the dataset: the number of each row, so that rewards find back to what was chosen
ROW = "outlay_row"
#: what is used of TRL's trainers; from 1.0.0 to 1.16.0 they have it
_SEAMS = (
    "_get_train_sampler",
    "_calculate_rewards",
    "_generate_and_score_completions",
    "num_generations",
    "num_iterations",
    "reward_weights",
)


class TeacherSampler(Sampler[int]):
    """Gives out rows in the order of TRL's ``RepeatSampler``, but asks which ones as late as it can: when the first of a generation is read.

    A generation's rows come ``repeats`` times in a row, each of them ``answers`` times at a stretch. An epoch has as many questions as there
    are rows, rounded down to whole generations, but one generation at least: it is a length, not a pass through all rows.

    Args:
        choose: returns the rows that the next so many questions are about.
        rows: of the dataset.
        questions: different questions of a generation, > 0.
        answers: to each question, > 0.
        repeats: how often a generation is read, > 0.
    """

    def __init__(self, choose: Callable[[int], Sequence[int]], rows: int, questions: int, answers: int, repeats: int) -> None:
        self._choose, self._questions, self._answers, self._repeats = choose, questions, answers, repeats
        self._generations = max(rows // questions, 1)
        #: rows that have been chosen in this epoch
        self.chosen: list[int] = []
        self._again: list[int] = []

    def __iter__(self) -> Iterator[int]:
        again, self._again, self.chosen = self._again, [], []
        for at in range(0, self._generations * self._questions, self._questions):
            rows = again[at : at + self._questions] or list(self._choose(self._questions))
            self.chosen += rows
            for _ in range(self._repeats):
                for row in rows:
                    for _ in range(self._answers):
                        yield row

    def __len__(self) -> int:
        return self._generations * self._questions * self._repeats * self._answers

    def begin_with(self, chosen: Sequence[int]) -> None:
        """Let the next epoch begin with what had been chosen when a checkpoint was made; the trainer skips what it has been through."""
        self._again = [int(row) for row in chosen]


class TeacherCallback(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Lets a teacher choose what TRL's ``GRPOTrainer`` or ``RLOOTrainer`` generates for, and learn from the rewards.

        teacher = TeacherCallback(Sec(), category="kind").attach(trainer)
        trainer.train()
        print(teacher.asked)

    ``attach`` makes the rows of the trainer's dataset into arms and puts a ``TeacherSampler`` in the place of its sampler. After every
    generation the estimator and the teacher are told each question's rewards, weighted and summed as the trainer does it, and the advantages
    that it worked out. A choice rests on what was known when the trainer read it, which is one generation before with TRL's defaults.

    Args:
        teacher: who chooses.
        estimator: how likely an answer is right, for teachers that go by it; None for the mean of the latest answers. One that reads what
            the model makes of a question is refused.
        category: column by whose values rows are sorted into arms, each with an order of its own; None makes every row an arm.
        difficulty: column of numbers, larger is harder; an arm of several rows is as difficult as they are on average.
        by: ``question`` makes every row an arm although it has a category. None: ``kind`` where there is a category.
        progress: returns the share of the run that is over, in [0, 1]. None: what a ``BudgetCallback`` of the trainer says, else steps taken /
            steps in all.
    """

    def __init__(
        self,
        teacher: Teacher,
        estimator: Estimator | None = None,
        *,
        category: str | None = None,
        difficulty: str | None = None,
        by: Literal["question", "kind"] | None = None,
        progress: Callable[[], float] | None = None,
    ) -> None:
        self._teacher, self._estimator = teacher, estimator or Windowed()
        self._category, self._difficulty, self._told_progress = category, difficulty, progress
        self._by: Literal["question", "kind"] = by or ("question" if category is None else "kind")
        if self._by == "kind" and category is None:
            raise InputError("by='kind' sorts rows by category; say in which column it is, or leave by out")
        if self._estimator.reads == "model":
            raise InputError(
                f"{type(self._estimator).__name__} reads what the model makes of a question, whose passes are not on this trainer's books; "
                "take reads='text' or an estimator that reads nothing"
            )
        self._trainer: Any = None
        self._place = 0
        self._rewards: torch.Tensor | None = None

    def attach(self, trainer: Any) -> TeacherCallback:
        """Join a trainer before it trains; return the callback.

        Raises:
            InputError: when the trainer, its dataset or its arguments do not allow it, or the arms lack what the teacher goes by.
        """
        _check(trainer)
        data, args = trainer.train_dataset, trainer.args
        asked = self._read(data)
        context = Context(args.seed, getattr(trainer, "processing_class", None), trainer.accelerator.device)
        self._questions = PoolPrompts(_Rows(asked), len(asked), self._by).open(context)
        self._choosing = Choosing(self._questions, self._teacher, self._estimator, None, context)
        if isinstance(self._choosing.lessons, Examined):
            raise InputError(f"{type(self._teacher).__name__} learns from evaluations of every arm, which TRL's trainers do not make")
        self._actor = Actor(trainer.accelerator.unwrap_model(trainer.model), context, {}, lambda work: True, lambda account: nullcontext(),
                            lambda batch: batch)  # fmt: skip
        self._texts = [question.text for question in asked]
        places = {arm.name: place for place, arm in enumerate(self._choosing.arms)}
        self._arm_of = [places[question.kind if self._by == "kind" else str(row)] for row, question in enumerate(asked)]
        self._asked = [0] * len(places)
        self.sampler = TeacherSampler(
            self._choose, len(data), args.generation_batch_size // trainer.num_generations, trainer.num_generations,
            trainer.num_iterations * args.steps_per_generation,
        )  # fmt: skip

        rewards, generate = trainer._calculate_rewards, trainer._generate_and_score_completions

        def _calculate_rewards(*arguments: Any, **named: Any) -> torch.Tensor:
            self._rewards = rewards(*arguments, **named)
            return self._rewards

        def _generate_and_score_completions(inputs: list[dict[str, Any]]) -> Any:
            output = generate(inputs)
            if trainer.model.training:
                self._learn([int(row[ROW]) for row in inputs], output["advantages"])
            return output

        trainer.train_dataset = data.add_column(ROW, list(range(len(data))))
        trainer._get_train_sampler = lambda dataset=None: self.sampler
        trainer._calculate_rewards, trainer._generate_and_score_completions = _calculate_rewards, _generate_and_score_completions
        trainer.add_callback(self)
        self._trainer = trainer
        return self

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What the teacher chooses among."""
        return self._choosing.arms

    @property
    def asked(self) -> dict[str, int]:
        """How many questions of each category have been generated for; those of rows without a category are under the empty name."""
        found: dict[str, int] = {}
        for arm, count in zip(self.arms, self._asked, strict=True):
            found[arm.category] = found.get(arm.category, 0) + count
        return found

    @property
    def shares(self) -> dict[str, float]:
        """The share of the next questions that each category is expected to get."""
        return self._choosing.shares(self._place, self._progress())

    def _read(self, data: Any) -> list[Question]:
        """Return every row as a question, in the rows' order."""
        names = [name for name in (self._category, self._difficulty) if name is not None]
        for name in names:
            if name not in data.column_names:
                raise InputError(f"the dataset has no column {name!r}{nearest(name, data.column_names)}")
        kinds = list(map(str, data[self._category])) if self._category is not None else [""] * len(data)
        hard = list(data[self._difficulty]) if self._difficulty is not None else [None] * len(data)
        rows = enumerate(zip(data["prompt"], kinds, hard, strict=True))
        return [Question(_text(prompt), place=row, kind=kind, extra={"difficulty": told, ROW: row}) for row, (prompt, kind, told) in rows]

    def _progress(self) -> float:
        if self._told_progress is not None:
            return self._told_progress()
        for callback in self._trainer.callback_handler.callbacks if self._trainer is not None else ():
            if isinstance(callback, BudgetCallback) and callback.run is not None:
                return callback.run.progress
        state = self._trainer.state if self._trainer is not None else None
        return min(state.global_step / state.max_steps, 1.0) if state is not None and state.max_steps > 0 else 0.0

    def _choose(self, count: int) -> list[int]:
        self._actor = replace(self._actor, progress=self._progress())
        chosen, looked = self._choosing.choose(count, self._place, (), self._actor)
        assert chosen is not None  # no pass is ever refused
        self._choosing.use(looked)
        self._place += len(looked)
        return [int(question.extra[ROW]) for question in chosen.questions]

    def _learn(self, rows: Sequence[int], advantages: torch.Tensor) -> None:
        """Tell what came of a generation: ``rows`` and ``advantages`` are those of its answers, (answers,)."""
        assert self._rewards is not None
        found, self._rewards = self._rewards, None
        judged = (~found.isnan().all(1)).tolist()
        worth = (found * self._trainer.reward_weights.to(found.device)).nansum(1).tolist()
        signals, size = advantages.tolist(), self._trainer.num_generations
        features = text_features([self._texts[row] for row in rows[::size]]) if self._estimator.reads == "text" else None
        outcomes = []
        for i, start in enumerate(range(0, len(rows), size)):
            kept = [at for at in range(start, start + size) if judged[at]]
            arm = self._arm_of[rows[start]]
            self._asked[arm] += 1
            outcomes.append(Outcome(arm, tuple(worth[at] for at in kept), tuple(signals[at] for at in kept),
                                    features=features[i] if features is not None else None))  # fmt: skip
        self._choosing.learn([one.arm for one in outcomes], outcomes)

    # ---- resuming -----------------------------------------------------------------------------------------------------------------------

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Go on from the checkpoint that the trainer goes on from."""
        if self._trainer is None:
            raise InputError("the teacher has no trainer; call TeacherCallback(...).attach(trainer) in place of callbacks=[...]")
        saved = state.stateful_callbacks.get(type(self).__name__)
        if state.global_step and isinstance(saved, Mapping):
            self.load_state_dict(saved["attributes"]["_saved"])
            if args.ignore_data_skip:
                self.sampler.begin_with(())
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())  # a checkpoint made without this callback lacks the place

    def state(self) -> dict[str, Any]:
        """Return what the trainer writes into its checkpoint's ``trainer_state.json``."""
        return {"args": {}, "attributes": {"_saved": self.state_dict() if self._trainer is not None else None}}

    def state_dict(self) -> dict[str, Any]:
        """Return what teacher and estimator know, the rows that have been chosen in an epoch that goes on, and what has been asked."""
        ended = float(self._trainer.state.epoch or 0.0).is_integer()
        chosen = [] if ended else list(self.sampler.chosen)
        return {
            "questions": self._questions.state_dict(), "choosing": self._choosing.state_dict(), "place": self._place, "chosen": chosen,
            "asked": list(self._asked),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state.

        Raises:
            InputError: when the dataset has another number of rows or arms than it had.
        """
        if len(state["asked"]) != len(self.arms):
            raise InputError(f"there are {len(self.arms)} arms, but {len(state['asked'])} when the run was saved; restore the dataset")
        self._questions.load_state_dict(state["questions"])
        self._choosing.load_state_dict(state["choosing"])
        self._place, self._asked = int(state["place"]), [int(count) for count in state["asked"]]
        self.sampler.begin_with(state["chosen"])


@dataclass(frozen=True)
class _Rows:
    """The rows of a dataset, as a source of prompts."""

    asked: list[Question]

    def open(self, context: Context) -> _InOrder:
        return _InOrder(self.asked, context.seed, "integrations/trl")


class _InOrder(Cycled):
    def draw(self, count: int) -> list[Question]:
        return self._asked[:count]


def _text(prompt: Any) -> str:
    """Return a prompt as text; of a conversation, what its messages say."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message["content"] for message in prompt if isinstance(message.get("content"), str))


def _check(trainer: Any) -> None:
    """Refuse a trainer in which rows and rewards could not be told apart."""
    lacking = [name for name in _SEAMS if not hasattr(trainer, name)]
    if lacking:
        raise InputError(f"{type(trainer).__name__} has no {lacking[0]}; give a GRPOTrainer or RLOOTrainer of TRL 1.0 or newer")
    data, args = trainer.train_dataset, trainer.args
    if not hasattr(data, "add_column") or not hasattr(data, "__len__"):
        raise InputError(f"a teacher chooses rows by number, found {type(data).__name__}; give a datasets.Dataset")
    if len(data) == 0 or ROW in data.column_names:
        raise InputError(
            "the dataset has no rows" if len(data) == 0 else f"the dataset has a column {ROW!r}, as if it had a teacher already"
        )
    if trainer.accelerator.num_processes > 1 or args.n_gpu > 1:
        raise InputError(
            f"a teacher chooses for one process on one device, found {trainer.accelerator.num_processes} processes and {args.n_gpu} devices; "
            "start one process, with CUDA_VISIBLE_DEVICES naming one device"
        )
    for name in ("dataloader_num_workers", "remove_unused_columns", "restore_callback_states_from_checkpoint"):
        if getattr(args, name):
            raise InputError(f"{name} must be {0 if name.endswith('workers') else False} with a teacher, found {getattr(args, name)!r}")
