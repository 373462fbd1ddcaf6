"""The catalog: every method by name, and plain values into objects and back."""

from __future__ import annotations

import json
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

import outlay
from outlay import InputError, make
from outlay.budget import Budget
from outlay.catalog import FAMILIES, Field, build, build_dataclass, describe, listing, methods_of
from outlay.controllers import Plateau
from outlay.errors import MissingExtra, Problem
from outlay.schedules import Constant, Cosine, Linear, Product, Rex, Sampled, Schedule, Sequence, Warmup, WarmupStableDecay
from outlay.testing import check_controller, check_schedule, record

KNOBS = [entry for family in ("schedules", "controllers") for entry in listing(family)]
#: fields that have no default, with a value to be built from
GIVEN: dict[str, dict[str, Any]] = {
    "schedules/linear_scaling": {"batch": {"linear": {"start": 0.5, "end": 2.0}}},
    "schedules/square_root_scaling": {"batch": {"linear": {"start": 0.5, "end": 2.0}}},
    "schedules/refined": {"norms": [3, 1, 2.5, 1]},
    "schedules/product": {"factors": ["rex", {"linear": {"end": 0.5}}]},
    "schedules/sequence": {"pieces": ["rex", {"schedules/cosine": {"floor": 0.1}}], "shares": [1, 3]},
}


def problems_of(name: str, /, **fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(InputError) as caught:
        make(name, **fields)
    return [(problem.where, problem.message) for problem in caught.value.problems]


# ---- by name -------------------------------------------------------------------------------------------------------------------------


def test_makes_by_name_with_defaults_and_fields() -> None:
    assert make("schedules/rex") == Rex()
    assert make("schedules/rex", beta=2, floor=0.5) == Rex(2.0, 0.5)
    assert make("controllers/plateau", patience=3) == Plateau(patience=3)
    assert outlay.methods is listing


def test_refuses_names_with_the_nearest_one() -> None:
    for name, message in {
        "rex": "a catalog name reads family/method, found 'rex'; families: schedules, controllers, models",
        "shcedules/rex": "there is no family 'shcedules'; did you mean 'schedules'?",
        "schedules/rexx": "there is no method 'schedules/rexx'; did you mean 'schedules/rex'?",
        "schedules/zzzzzz": "there is no method 'schedules/zzzzzz'; accepted: schedules/constant, schedules/cosine, ",
        "schedules/": "a catalog name reads family/method",
        "controllers/rex": "there is no method 'controllers/rex'; accepted: controllers/",
    }.items():
        with pytest.raises(InputError) as caught:
            make(name)
        assert str(caught.value).startswith(message)


def test_a_field_may_be_called_name() -> None:
    assert problems_of("schedules/rex", name="x") == [("schedules/rex.name", "unknown field 'name'; accepted: beta, floor")]


@pytest.mark.parametrize("entry", KNOBS, ids=lambda entry: entry.name)
def test_every_knob_is_built_described_and_built_again(entry: Any) -> None:
    made = make(entry.name, **GIVEN.get(entry.name, {}))
    plain = json.loads(json.dumps(describe(made)))
    assert list(plain) == [entry.name]
    assert list(plain[entry.name]) == [each.name for each in entry.fields]
    problems: list[Problem] = []
    assert build(Schedule, plain, "", problems) == made
    assert problems == []
    if entry.family == "schedules":
        check_schedule(made)
    else:
        check_controller(lambda: make(entry.name), [record(step, 1.0) for step in range(30)])


@pytest.mark.parametrize("entry", KNOBS, ids=lambda entry: entry.name)
def test_every_knob_says_what_it_is(entry: Any) -> None:
    family, short = entry.name.split("/")
    cls = methods_of(family)[short]
    assert entry.family == family
    assert entry.title == cls.title and entry.title != short
    assert entry.summary and cls.__doc__ and cls.__doc__.startswith(entry.summary)
    assert all(f"{each.name}:" in cls.__doc__ for each in entry.fields), "every field is documented"
    if entry.paper is not None:
        year, _, number = entry.paper.arxiv.partition(".")
        assert year.isdigit() and number.isdigit() and len(year) == 4
        assert entry.paper.title and abs(entry.paper.year - 2000 - int(year[:2])) <= 1


def test_an_entry_shows_fields_as_plain_values() -> None:
    entries = {entry.name: entry for entry in KNOBS}
    warmup = entries["schedules/warmup"]
    assert warmup.paper is not None and warmup.paper.arxiv == "1706.02677"
    assert warmup.fields == (
        Field("fraction", "float", 0.05, False),
        Field("then", "Schedule", {"schedules/linear": {"start": 1.0, "end": 0.0}}, False),
        Field("initial", "float", 0.0, False),
    )
    assert entries["schedules/product"].fields == (Field("factors", "tuple[Schedule, ...]", None, True),)
    assert "_state" not in [each.name for each in entries["controllers/plateau"].fields]


def test_the_listing_keeps_the_order_of_the_faces() -> None:
    assert [entry.name for entry in listing("schedules")] == [f"schedules/{short}" for short in methods_of("schedules")]
    with pytest.raises(InputError, match="there is no family 'schedule'; did you mean 'schedules'"):
        listing("schedule")


# ---- plain values -> objects ---------------------------------------------------------------------------------------------------------


def test_all_problems_are_told_together_each_with_its_path() -> None:
    found = problems_of(
        "schedules/sequence",
        pieces=["linear", {"rex": {"bta": 1, "floor": "x"}}, "cosin", {"warmup": {"then": {"rex": {"beta": -1}}}}],
        shars=3,
    )
    assert found == [
        ("schedules/sequence.shars", "unknown field 'shars'; did you mean 'shares'?"),
        ("schedules/sequence.pieces[1].rex.bta", "unknown field 'bta'; did you mean 'beta'?"),
        ("schedules/sequence.pieces[1].rex.floor", "expected a number, found 'x'"),
        ("schedules/sequence.pieces[2]", "there is no method 'cosin' among schedules and controllers; did you mean 'schedules/cosine'?"),
        ("schedules/sequence.pieces[3].warmup.then.rex", "beta must be finite and > 0, found -1.0"),
    ]


def test_a_missing_field_is_named_with_what_it_takes() -> None:
    ((where, message),) = problems_of("schedules/product")
    assert where == "schedules/product"
    assert message.startswith("the field 'factors' is missing; it takes ")


def test_methods_nest_by_name_mapping_or_object() -> None:
    own = Cosine(0.25)
    made = make(
        "schedules/product", factors=["rex", {"linear": None}, {"controllers/plateau": {"patience": 2}}, {"warmup": {"then": own}}, own]
    )
    assert made == Product((Rex(), Linear(), Plateau(patience=2), Warmup(then=own), own))
    assert made.factors[4] is own


class Own:
    """A schedule written by a user: the catalog does not know it."""

    def value(self, progress: float) -> float:
        return 0.5


def test_a_users_own_object_passes_through() -> None:
    own = Own()
    made = make("schedules/warmup", then=own)
    assert made.then is own
    assert describe(made)["schedules/warmup"]["then"] == f"<{__name__}.Own>"


@pytest.mark.parametrize(
    ("value", "where", "message"),
    [
        (0.5, "x", "a method of schedules or controllers is written name or {name: {fields}}, found 0.5"),
        (None, "x", "a method of schedules or controllers is written name or {name: {fields}}, found None"),
        (["rex"], "x", "a method of schedules or controllers is written name or {name: {fields}}, found ['rex']"),
        ({"rex": {}, "linear": {}}, "x", "a method of schedules or controllers is written name or {name: {fields}}, found"),
        ({"rex": 0.5}, "x.rex", "fields are written as a mapping, found 0.5"),
        ("models/rex", "x", "there is no method 'models/rex' among schedules and controllers; did you mean 'schedules/rex'?"),
    ],
)
def test_refuses_what_is_not_a_method(value: Any, where: str, message: str) -> None:
    problems: list[Problem] = []
    assert build(Schedule, value, "x", problems) is None
    assert [problem.where for problem in problems] == [where]
    assert problems[0].message.startswith(message)


def refuse() -> None:
    raise MissingExtra("peft", "hf")


@dataclass(frozen=True)
class Part:
    size: int = 1


@dataclass(frozen=True)
class Everything:
    """One field of every kind that a recipe may hold."""

    whole: int = 1
    real: float = 1.0
    flag: bool = False
    text: str = ""
    path: Path = Path()
    choice: Literal["one", "two", 3] = "one"
    budget: Budget | None = None
    part: Part = field(default_factory=Part)
    either: int | str | None = None
    deep: Part | tuple[Part, ...] = ()
    pair: tuple[int, str] = (1, "a")
    row: list[float] = field(default_factory=list)
    few: AbstractSequence[int] = field(default_factory=list)
    table: dict[str, Part] = field(default_factory=dict)
    anything: Any = None
    refused: bool = False

    def __post_init__(self) -> None:
        if self.refused:
            refuse()
        if self.whole < 0:
            raise InputError([Problem("whole", "must be >= 0"), Problem("", "and more")])


def build_everything(**values: Any) -> tuple[Any, list[Problem]]:
    problems: list[Problem] = []
    return build_dataclass(Everything, values, "e", problems), problems


@pytest.mark.parametrize(
    ("name", "value", "built"),
    [
        ("whole", 3, 3),
        ("whole", 3.0, 3),
        ("real", 3, 3.0),
        ("flag", True, True),
        ("text", "x", "x"),
        ("path", "a/b", Path("a/b")),
        ("path", Path("a/b"), Path("a/b")),
        ("choice", "two", "two"),
        ("choice", 3, 3),
        ("budget", "30m", Budget({"seconds": 1800})),
        ("budget", Budget({"steps": 3}), Budget({"steps": 3})),
        ("budget", None, None),
        ("part", {"size": 2}, Part(2)),
        ("part", Part(2), Part(2)),
        ("either", 3, 3),
        ("either", "x", "x"),
        ("either", None, None),
        ("deep", {"size": 2}, Part(2)),
        ("deep", [{"size": 2}, {}], (Part(2), Part(1))),
        ("pair", [2, "b"], (2, "b")),
        ("row", [1, 2.5], [1.0, 2.5]),
        ("row", (1, 2), [1.0, 2.0]),
        ("few", [1, 2], [1, 2]),
        ("table", {"a": {"size": 2}, 1: {}}, {"a": Part(2), "1": Part(1)}),
        ("anything", {"a": [1, None]}, {"a": [1, None]}),
    ],
)
def test_builds_every_kind_of_field(name: str, value: Any, built: Any) -> None:
    made, problems = build_everything(**{name: value})
    assert problems == []
    assert getattr(made, name) == built
    assert type(getattr(made, name)) is type(built)
    problems = []
    assert build_dataclass(Everything, json.loads(json.dumps(describe(made))), "", problems) == made, problems


@pytest.mark.parametrize(
    ("name", "value", "where", "message"),
    [
        ("whole", 3.5, "e.whole", "expected a whole number, found 3.5"),
        ("whole", True, "e.whole", "expected a whole number, found True"),
        ("whole", float("inf"), "e.whole", "expected a whole number, found inf"),
        ("whole", float("nan"), "e.whole", "expected a whole number, found nan"),
        ("whole", "3", "e.whole", "expected a whole number, found '3'"),
        ("real", True, "e.real", "expected a number, found True"),
        ("real", "1.0", "e.real", "expected a number, found '1.0'"),
        ("real", None, "e.real", "expected a number, found None"),
        ("flag", 1, "e.flag", "expected true or false, found 1"),
        ("text", 1, "e.text", "expected a text, found 1"),
        ("path", 1, "e.path", "expected a path, found 1"),
        ("choice", "tow", "e.choice", "found 'tow'; accepted: one, two, 3; did you mean 'two'?"),
        ("choice", "zzzz", "e.choice", "found 'zzzz'; accepted: one, two, 3"),
        ("budget", "30x", "e.budget", "cannot read '30x' in the budget '30x'"),
        ("budget", 30, "e.budget", "a budget is a text such as '30m', found 30"),
        ("part", 3, "e.part", "expected a mapping with the fields size, found 3"),
        ("part", {"siz": 3}, "e.part.siz", "unknown field 'siz'; did you mean 'size'?"),
        ("either", 3.5, "e.either", "expected a whole number, found 3.5"),
        ("deep", [{"size": 1}, {"size": "x"}], "e.deep[1].size", "expected a whole number, found 'x'"),
        ("deep", {"size": "x"}, "e.deep.size", "expected a whole number, found 'x'"),
        ("pair", [1], "e.pair", "expected 2 values, found 1"),
        ("pair", [1, 2], "e.pair[1]", "expected a text, found 2"),
        ("row", 1.0, "e.row", "expected a list of a number, found 1.0"),
        ("row", [1.0, "x"], "e.row[1]", "expected a number, found 'x'"),
        ("table", [1], "e.table", "expected a mapping, found [1]"),
        ("table", {"a": {"size": "x"}}, "e.table.a.size", "expected a whole number, found 'x'"),
        ("refused", True, "e", "this needs the package 'peft', which is not installed; run: pip install 'outlay[hf]'"),
    ],
)
def test_refuses_with_the_path_what_was_found_and_what_is_accepted(name: str, value: Any, where: str, message: str) -> None:
    made, problems = build_everything(**{name: value})
    assert made is None
    assert [problem.where for problem in problems] == [where]
    assert problems[0].message.startswith(message)


def test_what_a_constructor_refuses_keeps_the_path_of_the_field() -> None:
    _, problems = build_everything(whole=-1)
    assert problems == [Problem("e.whole", "must be >= 0"), Problem("e", "and more")]
    assert problems_of("schedules/sampled", times=0) == [("schedules/sampled", "times must be >= 1, found 0")]


def test_a_wrong_field_stops_the_constructor_so_that_nothing_is_told_twice() -> None:
    _, problems = build_everything(whole=-1, real="x")
    assert problems == [Problem("e.real", "expected a number, found 'x'")]


# ---- objects -> plain values ---------------------------------------------------------------------------------------------------------


def test_describes_in_plain_values() -> None:
    assert describe(Sampled(Rex(0.25), 4, (0.5,))) == {
        "schedules/sampled": {"profile": {"schedules/rex": {"beta": 0.25, "floor": 0.0}}, "times": 4, "at": [0.5]}
    }
    assert describe(Sequence((Constant(2.0),))) == {
        "schedules/sequence": {"pieces": [{"schedules/constant": {"level": 2.0}}], "shares": []}
    }
    assert describe({"budget": Budget.parse("10m, 24GiB"), 1: Path("a/b"), "n": None}) == {"budget": "10m, 24GiB", "1": "a/b", "n": None}
    assert describe(Part(3)) == {"size": 3}  # a dataclass that is no method
    assert describe(object()) == "<builtins.object>"


def test_a_stateful_method_is_described_by_its_fields_alone() -> None:
    plateau = Plateau(patience=0)
    plateau.observe(record(1, 1.0))
    plateau.observe(record(2, 1.0))
    assert plateau.value(0.5) == 0.1
    assert describe(plateau) == describe(Plateau(patience=0))


def test_every_family_has_a_seam() -> None:
    assert set(FAMILIES) >= {"schedules", "controllers", "models", "adapters", "sources", "objectives", "optim", "evaluations"}
    assert FAMILIES["schedules"] == FAMILIES["controllers"] == Schedule.__name__


def test_wsd_keeps_its_choice_over_a_round_trip() -> None:
    made = make("schedules/warmup_stable_decay", shape="cosine", warmup=0, decay=1)
    assert made == WarmupStableDecay(0.0, 1.0, "cosine")
    assert problems_of("schedules/warmup_stable_decay", shape="cosin") == [
        (
            "schedules/warmup_stable_decay.shape",
            "found 'cosin'; accepted: linear, one_minus_sqrt, one_minus_square, cosine, inverse_linear, exponential; did you mean 'cosine'?",
        )
    ]


def test_a_method_of_another_kind_is_named_with_its_family() -> None:
    problems: list[Problem] = []
    assert build(Schedule, "hold", "lr", problems) is None
    assert (
        str(problems[0]) == "lr: there is no method 'hold' among schedules and controllers; open_ended/hold is one, for fields that take it"
    )
