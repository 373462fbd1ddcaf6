"""Panel: several rewards, opened, asked about the same answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from outlay.context import Context
from outlay.rewards.base import Answer, Reward, Verdict
from outlay.rewards.guarding import judge_guarded
from outlay.rewards.isolated import open_judge


class Panel:
    """Judges of several rewards. One that fails on some answers costs these their verdict, and no other answer and no other judge anything.

    Args:
        rewards: by name.
        context: seed, tokenizer, device.

    Raises:
        InputError: when a reward lacks something that it needs.
        MissingExtra: when an optional package is needed.
    """

    def __init__(self, rewards: Mapping[str, Reward], context: Context) -> None:
        self._judges = {name: (open_judge(reward, context), reward.bounds) for name, reward in rewards.items()}

    def verdicts(self, answers: Sequence[Answer]) -> dict[str, list[Verdict]]:
        """Return by the reward's name a verdict an answer, in order; answers of a group must lie together."""
        return {name: judge_guarded(judge, answers, bounds) for name, (judge, bounds) in self._judges.items()}
