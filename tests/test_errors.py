"""Messages: what was found, what is accepted, what to do."""

from __future__ import annotations

import pytest

from outlay.errors import CheckpointError, InputError, MissingExtra, OutlayError, Problem, nearest


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("stages[0].knobs.lr", "expected a number"), "stages[0].knobs.lr: expected a number"),
        (Problem("budget", "cannot read '3x'", 7), "budget (line 7): cannot read '3x'"),
        (Problem("", "nothing was found"), "nothing was found"),
        (Problem("", "nothing was found", 2), " (line 2): nothing was found"),
    ],
)
def test_a_problem_names_its_place(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_one_message_is_one_problem() -> None:
    error = InputError("the budget is empty")
    assert str(error) == "the budget is empty"
    assert error.problems == (Problem("", "the budget is empty"),)
    assert error.source is None


def test_one_problem_is_written_on_one_line_behind_its_file() -> None:
    error = InputError([Problem("budget", "cannot read '3x'", 7)], "tiny.yaml")
    assert str(error) == "tiny.yaml: budget (line 7): cannot read '3x'"
    assert error.source == "tiny.yaml"


def test_all_problems_are_shown_together() -> None:
    problems = [Problem("budget", "cannot read '3x'"), Problem("model", "there is no method 'gtp'")]
    error = InputError(problems)
    assert str(error) == "2 problems\n  - budget: cannot read '3x'\n  - model: there is no method 'gtp'"
    assert str(InputError(problems, "tiny.yaml")).startswith("tiny.yaml: 2 problems\n  - budget")
    assert error.problems == tuple(problems)


def test_what_is_caught_as_what() -> None:
    assert isinstance(InputError("x"), OutlayError) and isinstance(InputError("x"), ValueError)
    assert isinstance(MissingExtra("peft", "hf"), OutlayError) and isinstance(MissingExtra("peft", "hf"), ImportError)
    assert isinstance(CheckpointError("x"), OutlayError) and not isinstance(CheckpointError("x"), ValueError)


def test_a_missing_package_says_what_to_install() -> None:
    assert str(MissingExtra("peft", "hf")) == "this needs the package 'peft', which is not installed; run: pip install 'outlay[hf]'"


@pytest.mark.parametrize(
    ("name", "accepted", "hint"),
    [
        ("linaer", ["schedules/linear", "schedules/rex"], "; did you mean 'schedules/linear'?"),
        ("schedules/linaer", ["schedules/linear", "schedules/rex"], "; did you mean 'schedules/linear'?"),
        ("LINEAR", ["linear", "rex"], "; did you mean 'linear'?"),
        ("flor", {"floor": 1, "beta": 2}, "; did you mean 'floor'?"),
        ("zzz", ["rex", "linear"], "; accepted: linear, rex"),
        ("zzz", [], ""),
    ],
)
def test_the_nearest_name(name: str, accepted: list[str], hint: str) -> None:
    assert nearest(name, accepted) == hint
