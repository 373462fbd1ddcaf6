"""Pipeline: several runs under one budget, each of which may begin with what earlier ones left."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from outlay.budget import Budget, format_amount
from outlay.catalog import build_dataclass, describe
from outlay.errors import InputError, OutlayError, Problem, nearest
from outlay.train.answers import FILE, UNITS, Answers
from outlay.train.finishing import MODEL
from outlay.train.reading import read_asked
from outlay.train.recipe import ALWAYS_SPENT, Recipe, Stage, shape_problems

ASKED = "pipeline.yaml"
#: what a pipeline does between its legs, in its accounts beside theirs
OWN = "pipeline"
#: seconds kept back for what a pipeline does between its legs, and the largest share of what is left that this may be
OWN_SECONDS, OWN_SHARE = 0.05, 0.01
#: ``$teacher`` is the folder of the model that the leg teacher exported, ``$asked.file`` the file that the leg asked wrote
_STANDS = re.compile(r"\$([A-Za-z][\w-]*)(\.file)?")
_NAME = re.compile(r"[A-Za-z][\w-]*")


class PipelineFailed(OutlayError):
    """A leg could not be begun or left nothing to go on with. What was spent is on the books; the same call goes on with that leg."""


@dataclass(frozen=True)
class Leg:
    """One run of a pipeline: a recipe, or answers of a model. Exactly one of the two is given, as plain values.

    In them the text ``$name`` stands for the folder of the model that the leg of that name exported, and ``$name.file`` for the file that a leg of
    answers wrote; both must come earlier.

    Args:
        name: unique within the pipeline; names the leg's folder.
        share: part of the budget relative to the other legs', > 0; what a leg leaves rolls over to those after it.
        recipe: the recipe's plain values, without ``budget``; ``name`` and ``seed`` are the leg's and the pipeline's unless given.
        answers: fields of ``outlay.train.answers.Answers``; ``seed`` is the pipeline's unless given.
    """

    name: str
    share: float = 1.0
    recipe: dict[str, Any] | None = None
    answers: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        problems = []
        if not _NAME.fullmatch(self.name) or self.name == OWN:
            problems.append(Problem("name", f"is letters, digits, - and _, a letter first, and not {OWN!r}; found {self.name!r}"))
        if not (self.share > 0 and math.isfinite(self.share)):
            problems.append(Problem("share", f"must be a finite number > 0, found {self.share}"))
        if (self.recipe is None) == (self.answers is None):
            found = "neither" if self.recipe is None else "both"
            problems.append(Problem("", f"a leg has either a recipe or answers, found {found}"))
        if self.recipe is not None and "budget" in self.recipe:
            problems.append(Problem("recipe.budget", "a leg's budget is its share of the pipeline's; leave it out"))
        if problems:
            raise InputError(problems)

    @property
    def kind(self) -> str:
        """``recipe`` or ``answers``."""
        return "answers" if self.recipe is None else "recipe"

    @property
    def plain(self) -> dict[str, Any]:
        """The plain values of either."""
        return (self.answers if self.recipe is None else self.recipe) or {}


@dataclass(frozen=True)
class Pipeline:
    """Several runs under one budget.

    Every limited unit is divided by the legs' shares, among the legs that spend it, and divided anew when a leg begins: what those before it left
    rolls over. Labels are bought and not spent over time, so that they are not divided: a leg may buy all that are left. Ceilings hold for
    every leg.

    Args:
        budget: what may be spent in all, as a ``Budget`` or as text.
        legs: one or more, spent in order.
        name: names the folder.
        seed: root of all random streams, >= 0, for legs that have no seed of their own.
    """

    budget: Budget
    legs: tuple[Leg, ...]
    name: str = "pipeline"
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.budget, str):
            object.__setattr__(self, "budget", Budget.parse(self.budget))
        object.__setattr__(self, "legs", tuple(self.legs))
        problems = shape_problems("pipeline", self.name, "leg", [leg.name for leg in self.legs], self.seed) + self._reference_problems()
        if not problems:
            for number, leg in enumerate(self.legs):
                built_leg(self, leg, Path(), _NOMINAL, f"legs[{number}].{leg.kind}", problems)
        if not problems:
            problems += self._budget_problems()
        if problems:
            raise InputError(problems)

    def _reference_problems(self) -> list[Problem]:
        kinds = {leg.name: leg.kind for leg in self.legs}
        problems, earlier = [], set[str]()
        for number, leg in enumerate(self.legs):
            for where, name, file in _references(leg.plain, f"legs[{number}].{leg.kind}"):
                if name not in kinds:
                    problems.append(Problem(where, f"${name} stands for no leg{nearest(name, kinds)}"))
                elif name not in earlier:
                    told = "is this very leg" if name == leg.name else "comes later"
                    problems.append(Problem(where, f"the leg {name!r} {told}; a leg can begin with what earlier ones left"))
                elif file and kinds[name] == "recipe":
                    problems.append(
                        Problem(where, f"the leg {name!r} is a recipe and leaves a model, ${name}; files come from legs of answers")
                    )
                elif not file and kinds[name] == "answers":
                    problems.append(
                        Problem(where, f"the leg {name!r} is one of answers and leaves a file, ${name}.file; models come from recipes")
                    )
            earlier.add(leg.name)
        return problems

    def _budget_problems(self) -> list[Problem]:
        limits = set(self.budget.limits) - {"labels"}
        if not limits:
            return [Problem("budget", "limits nothing that is used up, so the run would never end; add a time or a count, such as '30m'")]
        problems = []
        spends = {leg.name: self.spends(leg) for leg in self.legs}
        for unit in self.budget.limits:
            if not any(unit in each for each in spends.values()):
                problems.append(Problem("budget", f"limits {unit}, but no leg spends any"))
        for number, leg in enumerate(self.legs):
            if leg.kind == "recipe" and not limits & spends[leg.name]:
                named = ", ".join(sorted(limits))
                problems.append(
                    Problem(f"legs[{number}]", f"spends no {named}, so that it would never end; limit something that every recipe spends")
                )
        if not problems:
            try:
                self.part(0, dict.fromkeys(self.budget.limits, 0.0))
            except InputError as error:
                problems += [Problem("budget", problem.message) for problem in error.problems]
        return problems

    def spends(self, leg: Leg) -> frozenset[str]:
        """Return the units that a leg spends."""
        if leg.kind == "answers":
            units = set(UNITS)
        else:
            stages: Sequence[Stage] = built_leg(self, leg, Path(), _NOMINAL, "", []).stages
            units = {*ALWAYS_SPENT, *(unit for stage in stages for unit in stage.source.units)} - {"labels"}
            units |= {"labels"} if any(_buys_labels(stage) for stage in stages) else set()
        price = self.budget.price
        return frozenset(units - ({"usd"} if price and price.per not in units else set()))

    def part(self, number: int, spent: Mapping[str, float]) -> Budget:
        """Return the budget of a leg when so much of every limited unit has been spent before it.

        Raises:
            InputError: when a unit that the leg spends is used up, or there are fewer whole units than legs to come.
        """
        leg, to_come = self.legs[number], self.legs[number:]
        limits = {}
        for unit, limit in self.budget.limits.items():
            if unit not in self.spends(leg):
                continue
            left = limit - spent.get(unit, 0.0)
            if unit == "seconds":
                left -= min(OWN_SECONDS * len(to_come), OWN_SHARE * left)
            if left <= 0:
                raise InputError(f"nothing is left of the {format_amount(unit, limit)} for the leg {leg.name!r}")
            shares = [other.share for other in to_come if unit in self.spends(other)]
            price = self.budget.price if unit == "usd" else None
            limits[unit] = left if unit == "labels" else Budget({unit: left}, price=price).split(shares)[0].limits[unit]
        return Budget(limits, self.budget.ceilings, self.budget.price if "usd" in limits else None)


def _buys_labels(stage: Stage) -> bool:
    acts = "rollouts" in stage.source.units
    return "labels" in stage.source.units and (not acts or bool(getattr(stage.objective, "needs_demonstrations", False)))


#: stands in for a leg's budget until it is known
_NOMINAL = Budget({"steps": 1.0})


def _references(plain: Any, where: str) -> Iterator[tuple[str, str, bool]]:
    """Yield (path, name of a leg, whether its file is meant) of everything in plain values that stands for what a leg left."""
    if isinstance(plain, Mapping):
        for key, value in plain.items():
            yield from _references(value, f"{where}.{key}")
    elif isinstance(plain, list | tuple):
        for i, value in enumerate(plain):
            yield from _references(value, f"{where}[{i}]")
    elif isinstance(plain, str) and (found := _STANDS.fullmatch(plain)):
        yield where, found[1], bool(found[2])


def _filled(plain: Any, folder: Path) -> Any:
    """Return plain values with the paths that stand for what legs left in the pipeline's folder."""
    if isinstance(plain, Mapping):
        return {key: _filled(value, folder) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [_filled(value, folder) for value in plain]
    if isinstance(plain, str) and (found := _STANDS.fullmatch(plain)):
        return str(folder / found[1] / (FILE if found[2] else MODEL))
    return plain


def built_leg(pipeline: Pipeline, leg: Leg, folder: Path, budget: Budget, where: str, problems: list[Problem]) -> Any:
    """Return a leg's ``Recipe`` or ``Answers``; what is wrong is added to ``problems`` and None returned."""
    plain = {"seed": pipeline.seed, **_filled(leg.plain, folder)}
    if leg.kind == "answers":
        return build_dataclass(Answers, plain, where, problems)
    return build_dataclass(Recipe, {"name": leg.name, **plain, "budget": budget}, where, problems)


def load_pipeline(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), budget: str | None = None) -> Pipeline:
    """Read a pipeline from a YAML file, from the name of a bundled one, or from plain values; arguments as of ``load_recipe``.

    Raises:
        InputError: with every problem found, each with its path and line.
    """
    asked = read_asked(source, overrides, budget)
    made = build_dataclass(Pipeline, asked.plain, "", asked.problems)
    if asked.problems or made is None:
        raise asked.error()
    return made  # type: ignore[no-any-return]


def dump_pipeline(pipeline: Pipeline) -> str:
    """Return the pipeline as YAML from which ``load_pipeline`` makes the same one."""
    plain = describe(pipeline)
    for leg in plain["legs"]:
        leg.pop("recipe" if leg["recipe"] is None else "answers")
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110)
