"""Catalog: every method by name, and the one builder that turns a recipe's plain values into objects.

A method is written ``name`` (all defaults) or ``{name: {field: value}}``. The object is the config: its fields, types and ranges are
what is checked, and every problem is collected before anything is refused.
"""

from __future__ import annotations

import dataclasses
import importlib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from outlay.budget import Budget
from outlay.errors import InputError, MissingExtra, Problem, nearest


@dataclass(frozen=True)
class Paper:
    """Where a method was published.

    Args:
        arxiv: arXiv id such as ``2107.04197``; empty when it is not there.
        title: the paper's title.
        year: year of first publication.
    """

    arxiv: str
    title: str
    year: int


#: family -> the seam (class name of its Protocol) that a recipe's field is annotated with
FAMILIES: dict[str, str] = {
    "schedules": "Schedule",
    "controllers": "Schedule",
    "models": "ModelSpec",
    "adapters": "Adapter",
    "sources": "Source",
    "objectives": "Objective",
    "optim": "OptimizerSpec",
    "evaluations": "Exam",
    "open_ended": "OpenSchedule",
    "prompts": "PromptSource",
    "rollout": "Engine",
    "rewards": "Reward",
    "advantages": "Advantage",
    "denominators": "Denominator",
    "likelihoods": "Likelihood",
    "stabilisers": "Stabiliser",
    "anchors": "Anchor",
    "estimators": "Estimator",
    "teachers": "Teacher",
    "allocators": "Allocator",
    "repairs": "Repair",
    "projectors": "Projector",
    "inner_rules": "InnerRule",
    "residuals": "Residual",
    "formats": "Format",
}


@dataclass(frozen=True)
class Field:
    """One hyper-parameter of a method: its name, its type as written, and its default (None with ``required``)."""

    name: str
    type: str
    default: Any
    required: bool


@dataclass(frozen=True)
class Entry:
    """A method as the catalog shows it."""

    name: str
    family: str
    title: str
    paper: Paper | None
    summary: str
    fields: tuple[Field, ...]


def methods_of(family: str) -> dict[str, type]:
    """Return a family's literal dict of catalog name -> class."""
    if family not in FAMILIES:
        raise InputError(f"there is no family {family!r}{nearest(family, FAMILIES)}")
    methods: dict[str, type] = importlib.import_module(f"outlay.{family}").METHODS
    return methods


def listing(family: str | None = None) -> list[Entry]:
    """Return the catalog, one entry a method, in the order of the families' faces."""
    families = [family] if family else list(FAMILIES)
    return [_entry(name, one, cls) for one in families for name, cls in methods_of(one).items()]


def _entry(name: str, family: str, cls: type) -> Entry:
    shown = [
        Field(f.name, str(f.type), None if _required(f) else _plain_default(f), _required(f)) for f in dataclasses.fields(cls) if f.init
    ]
    summary = (cls.__doc__ or "").strip().split("\n")[0]
    return Entry(f"{family}/{name}", family, getattr(cls, "title", name), getattr(cls, "paper", None), summary, tuple(shown))


def _plain_default(entry: dataclasses.Field[Any]) -> Any:
    if entry.default_factory is not dataclasses.MISSING:
        return describe(entry.default_factory())
    return describe(entry.default)


def make(name: str, /, **fields: Any) -> Any:
    """Build any method by its catalog name: ``make("schedules/rex", beta=0.5)``. Field values may be objects or plain values.

    Raises:
        InputError: for a name that is not in the catalog, an unknown or missing field, or a value of a wrong type or range.
    """
    family, _, short = name.partition("/")
    if not short:
        raise InputError(f"a catalog name reads family/method, found {name!r}; families: {', '.join(FAMILIES)}")
    methods = methods_of(family)
    if short not in methods:
        raise InputError(f"there is no method {name!r}{nearest(short, [f'{family}/{known}' for known in methods])}")
    problems: list[Problem] = []
    built = build_dataclass(methods[short], fields, name, problems)
    if problems:
        raise InputError(problems)
    return built


# ---- plain values -> objects -------------------------------------------------------------------------------------------------------


def build_dataclass(cls: type, values: Mapping[str, Any], where: str, problems: list[Problem]) -> Any:
    """Build ``cls`` from plain field values; what is wrong is added to ``problems`` under the path ``where`` and None returned."""
    before = len(problems)
    hints = typing.get_type_hints(cls)
    accepted = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in values:
        if key not in accepted:
            problems.append(Problem(_join(where, key), f"unknown field {key!r}{nearest(str(key), accepted)}"))
    for missing in [f.name for f in accepted.values() if _required(f) and f.name not in values]:
        problems.append(Problem(where, f"the field {missing!r} is missing; it takes {_type_name(hints[missing])}"))
    built = {key: build(hints[key], value, _join(where, key), problems) for key, value in values.items() if key in accepted}
    if len(problems) > before:
        return None
    try:
        return cls(**built)
    except InputError as error:
        problems.extend(Problem(_join(where, inner.where) if inner.where else where, inner.message) for inner in error.problems)
    except MissingExtra as error:
        problems.append(Problem(where, str(error)))
    except ValueError as error:
        problems.append(Problem(where, str(error)))
    return None


def build(annotation: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    """Turn a plain value into what ``annotation`` asks for; problems are collected, never raised."""
    origin = get_origin(annotation)
    if annotation is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _build_union(get_args(annotation), value, where, problems)
    if origin is Literal:
        if value in get_args(annotation):
            return value
        choices = [str(choice) for choice in get_args(annotation)]
        problems.append(Problem(where, f"found {value!r}; accepted: {', '.join(choices)}{_hint(value, choices)}"))
        return None
    if _seam(annotation):
        return _build_method(annotation.__name__, value, where, problems)
    if annotation is Budget:
        return _build_budget(value, where, problems)
    if dataclasses.is_dataclass(annotation):
        return _build_part(annotation, value, where, problems)
    if origin in (list, tuple, Sequence):
        return _build_sequence(annotation, origin, value, where, problems)
    if origin in (dict, Mapping):
        return _build_mapping(annotation, value, where, problems)
    return _build_leaf(annotation, value, where, problems)


def _build_union(choices: tuple[Any, ...], value: Any, where: str, problems: list[Problem]) -> Any:
    if value is None and type(None) in choices:
        return None
    trials: list[list[Problem]] = []
    for choice in [c for c in choices if c is not type(None)]:
        found: list[Problem] = []
        built = build(choice, value, where, found)
        if not found:
            return built
        trials.append(found)
    # the choice that got deepest into the value is the one that was meant
    problems.extend(max(trials, key=lambda found: max(len(problem.where) for problem in found)))
    return None


def _build_method(seam: str, value: Any, where: str, problems: list[Problem]) -> Any:
    families = [family for family, its in FAMILIES.items() if its == seam]
    if isinstance(value, Mapping) and len(value) == 1:
        name, fields = next(iter(value.items()))
        fields = {} if fields is None else fields
    elif isinstance(value, str):
        name, fields = value, {}
    elif isinstance(value, Mapping | int | float | list | type(None)):
        problems.append(Problem(where, f"a method of {' or '.join(families)} is written name or {{name: {{fields}}}}, found {value!r}"))
        return None
    else:
        return value  # an object built in Python: its class is the user's own business
    known = {key: cls for family in families for short, cls in methods_of(family).items() for key in (short, f"{family}/{short}")}
    if name not in known:
        shown = [f"{family}/{short}" for family in families for short in methods_of(family)]
        elsewhere = [f"{family}/{name}" for family in FAMILIES if name in methods_of(family)]
        hint = f"; {elsewhere[0]} is one, for fields that take it" if elsewhere else nearest(str(name), shown)
        problems.append(Problem(where, f"there is no method {name!r} among {' and '.join(families)}{hint}"))
        return None
    if not isinstance(fields, Mapping):
        problems.append(Problem(_join(where, name), f"fields are written as a mapping, found {fields!r}"))
        return None
    return build_dataclass(known[name], fields, _join(where, name), problems)


def _build_part(cls: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    if isinstance(value, cls):
        return value
    shorthand = getattr(cls, "from_plain", None)
    if shorthand is not None and not isinstance(value, Mapping):
        value = shorthand(value)
    if not isinstance(value, Mapping):
        problems.append(
            Problem(where, f"expected a mapping with the fields {', '.join(f.name for f in dataclasses.fields(cls))}, found {value!r}")
        )
        return None
    return build_dataclass(cls, value, where, problems)


def _build_budget(value: Any, where: str, problems: list[Problem]) -> Any:
    if isinstance(value, Budget):
        return value
    try:
        return Budget.parse(value)
    except InputError as error:
        problems.extend(Problem(where, inner.message) for inner in error.problems)
        return None


def _build_sequence(annotation: Any, origin: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    if not isinstance(value, list | tuple):
        problems.append(Problem(where, f"expected a list of {_type_name(get_args(annotation)[0])}, found {value!r}"))
        return None
    inner = get_args(annotation)
    if origin is tuple and Ellipsis not in inner:
        if len(value) != len(inner):
            problems.append(Problem(where, f"expected {len(inner)} values, found {len(value)}"))
            return None
        return tuple(build(one, item, f"{where}[{i}]", problems) for i, (one, item) in enumerate(zip(inner, value, strict=True)))
    built = [build(inner[0], item, f"{where}[{i}]", problems) for i, item in enumerate(value)]
    return tuple(built) if origin is tuple else built


def _build_mapping(annotation: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    if not isinstance(value, Mapping):
        problems.append(Problem(where, f"expected a mapping, found {value!r}"))
        return None
    inner = get_args(annotation)[1]
    return {str(key): build(inner, item, _join(where, str(key)), problems) for key, item in value.items()}


def _build_leaf(annotation: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    if annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if annotation is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if annotation is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if annotation is Path and isinstance(value, str | Path):
        return Path(value)
    if annotation in (bool, str) and isinstance(value, annotation):
        return value
    if annotation not in (float, int, bool, str, Path) and (not isinstance(annotation, type) or isinstance(value, annotation)):
        return value
    problems.append(Problem(where, f"expected {_type_name(annotation)}, found {value!r}"))
    return None


def _seam(annotation: Any) -> bool:
    return isinstance(annotation, type) and annotation.__name__ in FAMILIES.values() and getattr(annotation, "_is_protocol", False)


def _required(entry: dataclasses.Field[Any]) -> bool:
    return entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else str(key)


def _hint(value: Any, choices: Iterable[str]) -> str:
    close = nearest(str(value), choices)
    return close if "did you mean" in close else ""


def _type_name(annotation: Any) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        Path: "a path",
        Budget: "a budget such as '30m'",
    }
    if annotation in names:
        return names[annotation]
    if _seam(annotation):
        return f"a method ({' or '.join(family for family, its in FAMILIES.items() if its == annotation.__name__)})"
    return getattr(annotation, "__name__", str(annotation)).replace("typing.", "")


# ---- objects -> plain values -------------------------------------------------------------------------------------------------------


def describe(thing: Any) -> Any:
    """Return the plain values from which ``build`` makes the same object; methods become ``{family/name: {fields}}``.

    An object that is not from the catalog and not a dataclass is shown as ``<module.Class>``: such a recipe was written in Python and
    cannot be repeated from its YAML.
    """
    if isinstance(thing, Budget):
        return str(thing)
    if isinstance(thing, Mapping):
        return {str(key): describe(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [describe(value) for value in thing]
    if isinstance(thing, Path):
        return str(thing)
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        plain = {f.name: describe(getattr(thing, f.name)) for f in dataclasses.fields(thing) if f.init}
        name = _catalog_name(type(thing))
        return {name: plain} if name else plain
    return f"<{type(thing).__module__}.{type(thing).__qualname__}>"


def _catalog_name(cls: type) -> str | None:
    parts = cls.__module__.split(".")
    if len(parts) < 2 or parts[0] != "outlay" or parts[1] not in FAMILIES:
        return None
    return next((f"{parts[1]}/{name}" for name, known in methods_of(parts[1]).items() if known is cls), None)
