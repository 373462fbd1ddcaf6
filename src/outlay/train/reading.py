"""Reading recipes: YAML with line numbers, ``--set`` overrides, and the recipes that come with the package."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from outlay.catalog import build_dataclass, describe
from outlay.errors import InputError, Problem, nearest
from outlay.train.recipe import Recipe


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-3 is a number, and a key written twice is an error."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


#: what tells a pipeline of several runs from a recipe
_LEGS = re.compile(r"^legs\s*:", re.MULTILINE)


def bundled() -> dict[str, Path]:
    """Return the recipes that come with outlay: name -> file."""
    return {name: path for name, path in _bundled_files().items() if not _LEGS.search(path.read_text(encoding="utf-8"))}


def bundled_pipelines() -> dict[str, Path]:
    """Return the pipelines that come with outlay: name -> file."""
    return {name: path for name, path in _bundled_files().items() if _LEGS.search(path.read_text(encoding="utf-8"))}


def _bundled_files() -> dict[str, Path]:
    folder = Path(str(resources.files("outlay") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """Return the file of a recipe or pipeline given as a path or as the name of one that comes with outlay.

    Raises:
        InputError: when there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = _bundled_files()
    if name in known:
        return known[name]
    raise InputError(f"there is no recipe file {name!r} and none of that name comes with outlay{nearest(name, known)}")


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), budget: str | None = None) -> Recipe:
    """Read a recipe from a YAML file, from the name of a bundled one, or from plain values.

    Args:
        source: path, bundled name, or a mapping.
        overrides: ``key=value`` texts; the key is a path such as ``stages[0].knobs.lr.peak`` and the value is YAML.
        budget: replaces the recipe's budget.

    Raises:
        InputError: with every problem found, each with its path and line.
    """
    asked = read_asked(source, overrides, budget)
    if "legs" in asked.plain and "stages" not in asked.plain:
        raise InputError("holds a pipeline of several runs (legs) and not one recipe (stages); `outlay run` spends it", asked.name)
    recipe = build_dataclass(Recipe, asked.plain, "", asked.problems)
    if asked.problems or recipe is None:
        raise asked.error()
    return recipe  # type: ignore[no-any-return]


@dataclass
class Asked:
    """Plain values as they were asked for.

    Args:
        plain: the values, overrides put in.
        name: of the file they come from, if any.
        lines: path of a value -> its line in the file.
        problems: what was found wrong so far.
    """

    plain: dict[str, Any]
    name: str | None
    lines: dict[str, int]
    problems: list[Problem]

    def error(self) -> InputError:
        """Return the error that tells all problems with their lines."""
        return InputError([Problem(p.where, p.message, p.line or _line(p.where, self.lines)) for p in self.problems], self.name)


def read_asked(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), budget: str | None = None) -> Asked:
    """Return the plain values of a recipe or pipeline; arguments as of ``load_recipe``.

    Raises:
        InputError: when there is no mapping to be read.
    """
    lines: dict[str, int] = {}
    name = None
    if isinstance(source, Mapping):
        plain: Any = _copy(source)
    else:
        path = find_recipe(str(source))
        name = str(path)
        plain = _read_yaml(path, lines)
    if not isinstance(plain, dict):
        raise InputError(f"a recipe is a mapping with budget, model and stages, found {type(plain).__name__}", name)
    problems: list[Problem] = []
    for override in overrides:
        _override(plain, override, problems)
    if budget is not None:
        plain["budget"] = budget
    return Asked(plain, name, lines, problems)


def holds_pipeline(source: str | Path) -> bool:
    """Return whether a file, or what comes with outlay under that name, is a pipeline of several runs.

    Raises:
        InputError: when there is neither, or it cannot be read.
    """
    plain = _read_yaml(find_recipe(str(source)), {})
    return isinstance(plain, dict) and "legs" in plain and "stages" not in plain


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML from which ``load_recipe`` makes the same one."""
    return yaml.safe_dump(describe(recipe), sort_keys=False, allow_unicode=True, width=110)


def _read_yaml(path: Path, lines: dict[str, int]) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            _note_lines(node, "", lines)
        # an alias is a value of its own, so that replacing it replaces nothing else
        return _copy(yaml.load(text, Loader=_Loader))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", str(path)) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, InputError) as error:  # an anchor may hold itself
        raise InputError(f"cannot be read as YAML: {error}", str(path)) from error


def _note_lines(node: yaml.Node, where: str, lines: dict[str, int]) -> None:
    """Remember the line of every path, and refuse keys written twice."""
    lines[where] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"a key is a name, found a list or a mapping (line {key.start_mark.line + 1})")
            if key.value in seen:
                raise InputError(f"the key {key.value!r} is written twice (line {key.start_mark.line + 1}); keep one")
            seen.add(key.value)
            inner = f"{where}.{key.value}" if where else str(key.value)
            _note_lines(value, inner, lines)
            lines[inner] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _note_lines(value, f"{where}[{i}]", lines)


def _line(where: str, lines: Mapping[str, int]) -> int | None:
    while where and where not in lines:
        cut = max(where.rfind("."), where.rfind("["))
        where = where[:cut] if cut > 0 else ""
    return lines.get(where) if where else None


def _override(plain: dict[str, Any], text: str, problems: list[Problem]) -> None:
    key, sign, value = text.partition("=")
    if not sign or not _steps(key):
        problems.append(Problem("", f"--set takes key=value, such as stages[0].knobs.lr=0.001, found {text!r}"))
        return
    try:
        set_value(plain, key, yaml.load(value, Loader=_Loader))
    except yaml.YAMLError as error:
        problems.append(Problem(key, f"--set {text}: the value is not YAML: {error}"))
    except InputError as error:
        problems.append(Problem(key, f"--set {text}: {error}"))


def set_value(plain: dict[str, Any], path: str, value: Any) -> None:
    """Put a plain value at a path such as ``stages[0].knobs.lr.peak`` of a recipe's plain values; mappings on the way are made.

    Raises:
        InputError: when the recipe has no such place.
    """
    steps = _steps(path)
    place: Any = plain
    for step in steps[:-1]:
        inside = _step_into(place, step)
        if inside is None:
            raise InputError(f"the recipe has nothing at {step!r} to set into")
        place = inside
    last = steps[-1]
    if isinstance(place, list) and isinstance(last, int) and last < len(place):
        place[last] = value
    elif isinstance(place, dict):
        place[str(last)] = value
    else:
        raise InputError(f"there is no place {last!r} in {place!r}")


def _steps(path: str) -> list[str | int]:
    return [int(i) if i else name for name, i in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path)]


def _step_into(place: Any, step: str | int) -> Any:
    if isinstance(place, list) and isinstance(step, int):
        return place[step] if step < len(place) else None
    if isinstance(place, dict):
        if place.get(str(step)) is None:
            place[str(step)] = {}
        return place[str(step)] if isinstance(place[str(step)], dict | list) else None
    return None


def _copy(plain: Any) -> Any:
    if isinstance(plain, Mapping):
        return {str(key): _copy(value) for key, value in plain.items()}
    return [_copy(value) for value in plain] if isinstance(plain, list | tuple) else plain
