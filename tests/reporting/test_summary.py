"""The closing words on a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from made_runs import Made
from rich.console import Console

from outlay.reporting.format import duration
from outlay.reporting.read import RunRecord, read_run
from outlay.reporting.summary import budget_lines, print_summary

Make = Callable[..., Made]


def printed(run: RunRecord, width: int = 80) -> str:
    stream = io.StringIO()
    print_summary(run, Console(file=stream, width=width))
    return stream.getvalue()


def test_every_account_is_told_with_its_amount(make: Make) -> None:
    made = make(steps=80, killed_at=(31,))
    text = printed(read_run(made.path))
    assert "\x1b" not in text
    rows = {words[0]: line for line in text.splitlines() if (words := line.split())}
    for account, book in made.book.accounts.items():
        assert duration(book["seconds"]) in rows[account], account
    assert duration(made.book.spent("seconds")) in rows["all"] and f"{made.book.spent('tokens'):,.0f}" in rows["all"]
    assert rows["train"].count("█") == round(16 * made.book.accounts["train"]["seconds"] / made.book.spent("seconds"))
    assert f"lost work: {duration(made.lost['seconds'])}" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_metrics_before_and_after(make: Make) -> None:
    run = read_run(make(steps=30).path)
    row = next(line.split() for line in printed(run).splitlines() if line.split()[:1] == ["exact_match"])
    assert [float(word) for word in row[1:]] == pytest.approx(
        [
            run.metrics_start["exact_match"],
            run.metrics_end["exact_match"],
            run.metrics_end["exact_match"] - run.metrics_start["exact_match"],
        ],
        rel=1e-3,
    )


def test_budget_kept_or_not(make: Make) -> None:
    run = read_run(make(steps=30, tokens=200_000.0).path)
    spent = run.spent["tokens"]
    assert budget_lines(run) == [
        f"{spent:,.0f} of 200,000 tokens spent ({100 * spent / 200_000:.0f}%), kept, {200_000 - spent:,.0f} tokens unused"
    ]
    over = replace(run, spent={**run.spent, "tokens": 200_500.0})
    assert budget_lines(over) == ["200,500 of 200,000 tokens spent (100.2%), over by 500 tokens"]
    assert budget_lines(replace(run, head={})) == ["no limit was declared"]


def test_shares_are_of_a_unit_that_is_divided(make: Make) -> None:
    run = read_run(make(steps=30).path)
    by_steps = replace(run, head={**run.head, "limits": {"steps": 30.0}})
    rows = {words[0]: words for line in printed(by_steps).splitlines() if (words := line.split())}
    assert rows["account"][-2:] == ["of", "time"]  # all steps went to training, which tells nothing
    by_tokens = replace(run, head={**run.head, "limits": {"tokens": 1e6}})
    assert "% of tokens" in printed(replace(by_tokens, result={**(run.result or {}), "ended_by": "tokens"}, events=()))


def test_names_are_not_markup(make: Make) -> None:
    text = printed(read_run(make(steps=12, name="[red]run[/red]").path))
    assert text.startswith("[red]run[/red]  ended on its budget of time")


def test_unfinished_run(make: Make) -> None:
    assert "has not ended" in printed(read_run(make(steps=12, finished=False).path))
