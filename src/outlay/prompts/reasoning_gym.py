"""Reasoning-gym: the questions of any of its datasets, without end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from outlay import rng
from outlay.arms import Arm
from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError, MissingExtra, nearest
from outlay.prompts.base import Question
from outlay.schedules.base import require


@dataclass(frozen=True)
class ReasoningGymPrompts:
    """Questions of reasoning-gym datasets as they are written there, in turns; the reward ``reasoning_gym`` scores their answers.

    Questions are functions of the seed and their place, so every place is reached at once. Nothing is held out: measure on another seed, and
    mind that small datasets repeat themselves.

    Args:
        datasets: name -> fields of its configuration, such as ``{countdown: {}, chain_sum: {max_digits: 2}}``.
        chat: put the question into the tokenizer's chat template as the user's message.
    """

    title: ClassVar[str] = "Questions of reasoning-gym"
    paper: ClassVar[Paper | None] = Paper("2505.24760", "REASONING GYM: Reasoning Environments for RL with Verifiable Rewards", 2025)

    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    chat: bool = False

    def __post_init__(self) -> None:
        require(bool(self.datasets), "datasets must name at least one, such as {chain_sum: {}}")

    def open(self, context: Context) -> _Entries:
        """Return the questions of the stream (seed, "prompts/reasoning_gym").

        Raises:
            MissingExtra: without reasoning-gym.
            InputError: for a dataset or a field that it does not have.
        """
        from outlay.sources.prompts import tokenizer_of

        try:
            import reasoning_gym
            from reasoning_gym.factory import DATASETS
        except ImportError:
            raise MissingExtra("reasoning-gym", "rl") from None
        opened = []
        for name, fields in self.datasets.items():
            if name not in DATASETS:
                raise InputError(f"reasoning-gym has no dataset {name!r}{nearest(name, DATASETS)}")
            seed = rng.derive(context.seed, f"prompts/reasoning_gym/{name}")
            try:
                opened.append(reasoning_gym.create_dataset(name, size=2**40, seed=seed, **fields))
            except (TypeError, AssertionError, ValueError) as error:
                raise InputError(f"reasoning-gym's {name} does not take {fields}: {error}") from error
        return _Entries(self, list(self.datasets), opened, tokenizer_of(context, "prompts/reasoning_gym"))


class _Entries:
    """Question p is of dataset number p modulo their count, unless datasets are picked."""

    def __init__(self, spec: ReasoningGymPrompts, names: list[str], datasets: list[Any], tokenizer: Any) -> None:
        self._spec, self._names, self._datasets, self._tokenizer, self._place = spec, names, datasets, tokenizer, 0
        self._next = [0] * len(names)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """One arm a dataset; nobody says how difficult they are."""
        return tuple(Arm(name, name) for name in self._names)

    def draw(self, count: int) -> list[Question]:
        """Return the next ``count`` questions."""
        return self.pick(self._turns(count))

    def advance(self, count: int) -> None:
        """Move the cursor past ``count`` questions."""
        self.use(self._turns(count))

    def pick(self, arms: Sequence[int]) -> list[Question]:
        """Return the next questions of these datasets."""
        used, found = Counter[int](), []
        for i, which in enumerate(arms):
            found.append(self._question(which, self._next[which] + used[which], self._place + i))
            used[which] += 1
        return found

    def use(self, arms: Sequence[int]) -> None:
        """Move the cursors past these datasets' questions."""
        for which in arms:
            self._next[which] += 1
        self._place += len(arms)

    def state_dict(self) -> dict[str, Any]:
        """Return the cursors."""
        return {"place": self._place, "next": list(self._next)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to saved cursors."""
        self._place, self._next = int(state["place"]), [int(index) for index in state["next"]]

    def _turns(self, count: int) -> list[int]:
        return [place % len(self._names) for place in range(self._place, self._place + count)]

    def _question(self, which: int, index: int, place: int) -> Question:
        from outlay.sources.prompts import as_prompts

        entry = self._datasets[which][index]
        text = as_prompts([entry["question"]], self._tokenizer, self._spec.chat)[0]
        name = self._names[which]
        return Question(text, str(entry["answer"] or ""), place, name, {"task": name, "entry": entry})
