"""Combining: several rewards of the same answers become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from outlay.rewards.base import Verdict
from outlay.schedules.base import require


def combine(verdicts: Mapping[str, Sequence[Verdict]], weights: Mapping[str, float]) -> tuple[list[float], list[bool]]:
    """Return the weighted sum of every answer's values, and whether it may teach.

    An answer counts as judged when every reward whose weight is not 0 has judged it; otherwise its value is 0 and without meaning. Where all
    weights are 0 everything is judged and worth 0.

    Args:
        verdicts: by the reward's name, one an answer, all of the same length.
        weights: by the same names, finite.

    Raises:
        ValueError: when a weight is missing or belongs to no reward, or the lengths differ.
    """
    require(
        set(verdicts) == set(weights),
        f"every reward needs a weight and every weight a reward, found {sorted(verdicts)} and {sorted(weights)}",
    )
    counts = {name: len(found) for name, found in verdicts.items()}
    require(len(set(counts.values())) <= 1, f"every reward must judge all answers, found numbers of verdicts {counts}")
    asked = [name for name in verdicts if weights[name] != 0]
    rows = list(zip(*(verdicts[name] for name in asked), strict=True)) if asked else [()] * max(counts.values(), default=0)
    judged = [all(verdict.outcome != "unjudged" for verdict in row) for row in rows]
    sums = [sum(weights[name] * verdict.value for name, verdict in zip(asked, row, strict=True)) for row in rows]
    return [float(value) if known else 0.0 for value, known in zip(sums, judged, strict=True)], judged


def passed_shares(verdicts: Mapping[str, Sequence[Verdict]]) -> dict[str, float]:
    """Return by name the share of passed among judged answers; a reward that judged none is left out."""
    outcomes = {name: [verdict.outcome for verdict in found if verdict.outcome != "unjudged"] for name, found in verdicts.items()}
    return {name: found.count("passed") / len(found) for name, found in outcomes.items() if found}


def unjudged_shares(verdicts: Mapping[str, Sequence[Verdict]]) -> dict[str, float]:
    """Return by name the share of answers that could not be judged; a reward that was asked nothing is left out."""
    outcomes = {name: [verdict.outcome for verdict in found] for name, found in verdicts.items()}
    return {name: found.count("unjudged") / len(found) for name, found in outcomes.items() if found}
