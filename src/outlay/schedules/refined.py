"""Refined: a schedule made from the gradient norms of an earlier run."""

from __future__ import annotations

import json
import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, Literal

from outlay.catalog import Paper
from outlay.errors import InputError
from outlay.schedules.base import require


@dataclass(frozen=True)
class Refined:
    """A frozen schedule that is optimal for the gradient norms g_1 .. g_T seen in an earlier run of T steps.

    Norms are smoothed by a median filter; weights are w_t = g_t^-order; with the strict tail sum S_t = w_(t+1) + ... + w_T the multipliers
    are m_t = w_t S_t / S_0 for t < T and m_T = 0, divided by their largest. Step t of T reads m_t at progress (t - 1) / T; in between, and
    for another number of steps, the schedule goes in straight lines. Equal norms give linear decay, large norms at the start a warm-up.
    One round is meant: run with linear decay, make this, run again from the start; the first run is part of the cost.

    Args:
        norms: gradient norms of every step of the earlier run, at least one, finite and >= 0; or a file: ``.json`` with a list of numbers,
            or ``.jsonl`` as the ``journal.jsonl`` of a run directory, whose steps that withheld their update are left out. A file is read
            when the object is made, and the numbers are kept in its place.
        order: 2 for SGD, with L2 norms as the journal has them; 1 for Adam and its kin, with L1 norms. That the weights of Adam are 1 / g
            is less certain than the rest.
        tau: width of the median filter as a share of the run, in [0, 1]: 2 floor(tau T / 2) + 1 steps.
        metric: name of the norm in the lines of a journal: ``gradient_norm``, or one of the step's metrics, such as the ``gradient_l1`` that
            a stage's ``measure`` asks for.

    Raises:
        InputError: when a file cannot be read or does not hold one norm for every step.
    """

    title: ClassVar[str] = "Schedule refined from gradient norms"
    paper: ClassVar[Paper | None] = Paper("2310.07831", "When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement", 2023)

    norms: tuple[float, ...] | Path
    order: Literal[1, 2] = 2
    tau: float = 0.1
    metric: str = "gradient_norm"
    multipliers: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        norms = _read(Path(self.norms), self.metric) if isinstance(self.norms, str | Path) else self.norms
        object.__setattr__(self, "norms", tuple(norms))
        object.__setattr__(self, "multipliers", refine(norms, self.order, self.tau))

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        last = len(self.multipliers) - 1
        place = min(progress * len(self.multipliers), float(last))
        before = int(place)
        share = place - before
        return self.multipliers[before] * (1.0 - share) + self.multipliers[min(before + 1, last)] * share


def refine(norms: Sequence[float], order: Literal[1, 2] = 2, tau: float = 0.1) -> tuple[float, ...]:
    """Return the multipliers of ``Refined``, one a step: m_t = w_t S_t / max, w = smoothed norm^-order, S_t the sum of w after t.

    Norms below 1e-8 of the largest are raised to that, so that a norm of zero has a finite weight. One step gives (1.0,).

    Args:
        norms: at least one, finite and >= 0.
        order: 1 or 2.
        tau: share of the run that the median filter covers, in [0, 1].
    """
    require(order in (1, 2), f"order must be 1 or 2, found {order}")
    require(0 <= tau <= 1, f"tau must lie in [0, 1], found {tau}")
    require(len(norms) >= 1, "norms must hold at least one gradient norm, found none")
    wrong = next((t for t, norm in enumerate(norms) if not 0 <= norm < math.inf), None)
    require(wrong is None, f"norms must be finite and >= 0, found {norms[wrong or 0]} at step {(wrong or 0) + 1} of {len(norms)}")
    if len(norms) == 1:
        return (1.0,)
    smooth = _median(norms, int(tau * len(norms) / 2))
    largest = max(smooth) or 1.0
    weights = [max(norm / largest, 1e-8) ** -order for norm in smooth]
    tails = [*list(accumulate(reversed(weights)))[-2::-1], 0.0]
    products = [weight * tail for weight, tail in zip(weights, tails, strict=True)]
    return tuple(product / max(products) for product in products)


def _median(values: Sequence[float], half: int) -> list[float]:
    """Medians over 2 half + 1 values; before the start the first is repeated, after the end the values are mirrored at the last."""
    last = len(values) - 1
    padded = [*[values[0]] * half, *values, *[values[last - k] for k in range(1, half + 1)]]
    window = sorted(padded[: 2 * half + 1])
    medians = [window[half]]
    for t in range(1, len(values)):
        del window[bisect_left(window, padded[t - 1])]
        insort(window, padded[t + 2 * half])
        medians.append(window[half])
    return medians


def _read(path: Path, metric: str) -> list[float]:
    if path.suffix not in (".json", ".jsonl"):
        raise InputError(f"norms are read from .json or .jsonl files, found {str(path)!r}")
    if not path.is_file():
        raise InputError(f"there is no file {path}; relative paths start in {Path.cwd()}")
    text = path.read_text(encoding="utf-8", errors="replace")
    return _from_list(path, text) if path.suffix == ".json" else _from_journal(path, text, metric)


def _from_list(path: Path, text: str) -> list[float]:
    try:
        norms = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(norms, list) or not all(isinstance(norm, int | float) and not isinstance(norm, bool) for norm in norms):
        raise InputError(f"{path} must hold one list of numbers, found {text[:60]!r}")
    return [float(norm) for norm in norms]


def _from_journal(path: Path, text: str, metric: str) -> list[float]:
    history: list[dict[str, Any]] = []
    for line in text.split("\n"):
        try:
            entry = json.loads(line) if line.strip() else None
        except ValueError:
            continue  # torn by a kill
        if isinstance(entry, dict) and entry.get("kind") == "resume":  # what came after the checkpoint was undone
            history = [old for old in history if old["n"] < entry["from_line"]]
        elif isinstance(entry, dict) and entry.get("kind") == "step" and entry.get("outcome") != "skipped":
            history.append(entry)
    stages = sorted({entry["stage"] for entry in history})
    if len(stages) != 1:
        found = f"those of the stages {', '.join(stages)}; write the norms of one of them as a list" if stages else "none"
        raise InputError(f"{path} must hold the steps of one stage, found {found}")
    norms = [entry.get("gradient_norm") if metric == "gradient_norm" else entry.get("metrics", {}).get(metric) for entry in history]
    without = next((entry["step"] for entry, norm in zip(history, norms, strict=True) if norm is None), None)
    if without is not None:
        held = ", ".join(["gradient_norm", *sorted(history[0].get("metrics", {}))])
        raise InputError(f"step {without} in {path} holds no {metric!r}; its first step holds {held}")
    return [float(norm) for norm in norms if norm is not None]
