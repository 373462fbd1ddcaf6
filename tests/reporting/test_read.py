"""Reading a run directory: sums, curves, kills, torn lines, runs that have not ended."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_runs import Made, make_run

from outlay.errors import InputError
from outlay.reporting.fold import AFTER, BEFORE
from outlay.reporting.read import RunRecord, read_run

Make = Callable[..., Made]


def assert_same_books(found: Any, wanted: Any) -> None:
    """Books agree account by account and unit by unit; what was taken back in full may stand as a zero."""
    for account in {*found, *wanted}:
        units = {*found.get(account, {}), *wanted.get(account, {})}
        for unit in units:
            assert found.get(account, {}).get(unit, 0.0) == pytest.approx(wanted.get(account, {}).get(unit, 0.0), rel=1e-9, abs=1e-9), (
                account,
                unit,
            )


def check_sums(run: RunRecord, made: Made) -> None:
    assert_same_books(run.accounts, made.book.accounts)
    for stage in {*run.by_stage, *made.book.by_stage}:
        assert_same_books(run.by_stage.get(stage, {}), made.book.by_stage.get(stage, {}))
    for unit, amount in run.spent.items():
        assert amount == pytest.approx(math.fsum(book.get(unit, 0.0) for book in run.accounts.values()), rel=1e-9)
        assert amount == pytest.approx(made.book.spent(unit), rel=1e-9)


def test_accounts_and_stages_sum_to_the_journal(make: Make) -> None:
    made = make(steps=120)
    run = read_run(made.path)
    check_sums(run, made)
    assert list(run.by_stage) == [BEFORE, "sft", "polish", AFTER]
    assert run.by_stage[BEFORE]["eval"]["seconds"] == pytest.approx(1.5)
    assert run.by_stage[AFTER]["eval"]["seconds"] == pytest.approx(1.6)
    assert run.after_last_step["seconds"] == pytest.approx(0.21 + 1.6 + 0.2)
    assert run.notes == ()


def test_series_are_rebuilt_from_charges(make: Make) -> None:
    made = make(steps=120)
    run = read_run(made.path)
    lines = [json.loads(line) for line in made.book.lines]
    spent: dict[str, float] = {}
    at = 0
    for line in lines:
        for book in line.get("charged", {}).values():
            for unit, amount in book.items():
                spent[unit] = spent.get(unit, 0.0) + amount
        if line["kind"] == "step":
            assert run.steps.step[at] == line["step"] == at + 1
            assert run.steps.loss[at] == line["loss"]
            assert run.steps.gradient_norm[at] == line["gradient_norm"]
            assert run.steps.knobs["lr"][at] == line["knobs"]["lr"]
            assert run.steps.metrics["accuracy"][at] == line["metrics"]["accuracy"]
            assert run.steps.skipped[at] == (line["outcome"] == "skipped")
            assert {unit: column[at] for unit, column in run.steps.spent.items()} == pytest.approx(spent)
            assert run.steps.share[at] == pytest.approx(min(1.0, spent["seconds"] / made.limits["seconds"]))
            at += 1
    assert at == len(run.steps) == 120


def test_share_is_the_largest_over_the_limits(make: Make) -> None:
    run = read_run(make(steps=40, seconds=1000.0, tokens=120_000.0).path)
    expected = [max(s / 1000, t / 120_000) for s, t in zip(run.steps.spent["seconds"], run.steps.spent["tokens"], strict=True)]
    assert run.steps.share == pytest.approx(expected)
    assert expected[-1] > 0.5 > run.steps.spent["seconds"][-1] / 1000


@pytest.mark.parametrize("killed_at", [(95,), (95, 101), (95, 120, 151), (7,), (7, 9, 95)])
def test_lost_work_is_taken_off_the_curves_and_booked_once(make: Make, killed_at: tuple[int, ...]) -> None:
    made = make(steps=160, killed_at=killed_at)
    run = read_run(made.path)
    check_sums(run, made)
    assert run.notes == ()
    assert run.steps.step == list(range(1, 161))
    for unit in ("seconds", "tokens", "flops"):
        column = run.steps.spent[unit]
        assert all(a < b for a, b in pairwise(column))
    assert run.lost == pytest.approx(made.lost)
    assert run.accounts["train"]["steps"] == 160
    assert len(run.of("resume")) == len(killed_at)


def test_losses_of_an_unfinished_run_come_from_the_journal(make: Make) -> None:
    killed_twice_after_one_checkpoint = make(steps=160, killed_at=(95, 101), finished=False)
    run = read_run(killed_twice_after_one_checkpoint.path)
    assert run.result is None
    assert run.lost == pytest.approx(killed_twice_after_one_checkpoint.lost)
    assert run.lost["seconds"] == pytest.approx(run.accounts["lost"]["seconds"])


def test_stage_that_was_undone_begins_once(make: Make) -> None:
    run = read_run(make(steps=160, killed_at=(125,)).path)  # polish began at 121, the checkpoint is at 120
    assert [event.line["stage"] for event in run.stages] == ["sft", "polish"]
    assert run.steps.stage.count("polish") == 40


def test_money_follows_from_its_price(make: Make) -> None:
    run = read_run(make(steps=30, price={"usd": 0.01, "per": "tokens"}).path)
    assert run.spent["usd"] == pytest.approx(0.01 * run.spent["tokens"])
    assert run.accounts["eval"]["usd"] == pytest.approx(0.01 * run.accounts["eval"]["tokens"])
    assert "usd" not in run.accounts["checkpoint"]
    assert run.steps.spent["usd"] == pytest.approx([0.01 * tokens for tokens in run.steps.spent["tokens"]])


def test_metrics_before_and_after(make: Make) -> None:
    made = make(steps=40)
    run = read_run(made.path)
    result = json.loads((made.path / "result.json").read_text())
    assert run.metrics_start == result["metrics_start"]
    assert run.metrics_end == result["metrics"]
    (made.path / "result.json").unlink()
    again = read_run(made.path)
    evaluations = [json.loads(line) for line in made.book.lines if '"evaluation"' in line]
    assert again.metrics_start == evaluations[0]["metrics"]
    assert again.metrics_end == evaluations[-1]["metrics"]
    assert again.ended_by == "seconds"  # the journal's end tells it as well


def test_a_run_stopped_before_it_was_measured_again_has_no_metrics_after(make: Make) -> None:
    """Its result repeats the evaluation before training as the last one, and that is no change of nothing."""
    made = make(steps=40)
    lines = [json.loads(line) for line in (made.path / "journal.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["kind"] != "evaluation" or line["when"] == "start"]
    (made.path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    result = json.loads((made.path / "result.json").read_text())
    (made.path / "result.json").write_text(json.dumps({**result, "ended_by": "signal", "metrics": result["metrics_start"]}))
    run = read_run(made.path)
    assert run.metrics_start and run.metrics_end == {}


def test_unfinished_run(make: Make) -> None:
    made = make(steps=40, finished=False)
    run = read_run(made.path)
    check_sums(run, made)
    assert run.ended_by is None and run.result is None
    assert run.metrics_end == run.evaluations[-1].metrics and run.evaluations[-1].when == "during"
    assert run.plan is not None and run.plan["basis"] == "probe"


def test_result_of_an_earlier_stop_is_not_believed_after_a_resumption(make: Make) -> None:
    made = make(steps=40)
    with (made.path / "journal.jsonl").open("a") as journal:
        journal.write(
            json.dumps({"n": len(made.book.lines), "kind": "resume", "at": 1.0, "from_step": 40, "from_line": 10_000, "lost": {}}) + "\n"
        )
    run = read_run(made.path)
    assert run.result is None and run.ended_by is None


def test_torn_last_line_is_passed_over(make: Make) -> None:
    made = make(steps=40, finished=False)
    with (made.path / "journal.jsonl").open("a") as journal:
        journal.write('{"n": 99, "kind": "step", "charged": {"train": {"secon')
    run = read_run(made.path)
    check_sums(run, made)
    assert run.notes == ()


def test_unreadable_line_in_the_middle_is_noted(make: Make) -> None:
    made = make(steps=40)
    text = (made.path / "journal.jsonl").read_text().splitlines()
    text[20] = text[20][:30]
    (made.path / "journal.jsonl").write_text("\n".join(text) + "\n")
    run = read_run(made.path)
    assert any("first is line 21" in note for note in run.notes)


def test_line_torn_by_the_kill_before_a_resumption_is_normal(make: Make) -> None:
    made = make(steps=160, killed_at=(95,))
    lines = (made.path / "journal.jsonl").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if '"resume"' in line)
    (made.path / "journal.jsonl").write_text("\n".join([*lines[:at], '{"n": 123, "ki', *lines[at:]]) + "\n")
    assert read_run(made.path).notes == ()


def test_sums_that_disagree_with_the_result_are_noted(make: Make) -> None:
    made = make(steps=40)
    result = json.loads((made.path / "result.json").read_text())
    result["spent"]["tokens"] *= 1.01
    (made.path / "result.json").write_text(json.dumps(result))
    notes = read_run(made.path).notes
    assert len(notes) == 1 and "tokens" in notes[0] and f"{result['spent']['tokens']:.12g}" in notes[0]


def test_torn_result_is_noted_and_left_out(make: Make) -> None:
    made = make(steps=40)
    (made.path / "result.json").write_text('{"name": "x", "spe')
    run = read_run(made.path)
    assert run.result is None and any("result.json" in note for note in run.notes)


def test_numbers_that_are_not_finite_are_gaps(make: Make) -> None:
    made = make(steps=12)
    lines = [json.loads(line) for line in made.book.lines]
    steps = [line for line in lines if line["kind"] == "step"]
    steps[3]["loss"], steps[4]["gradient_norm"], steps[5]["knobs"]["lr"], steps[6]["loss"] = math.nan, math.inf, -math.inf, None
    del steps[7]["metrics"]["accuracy"]
    steps[8]["knobs"]["late"] = 3
    (made.path / "journal.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    run = read_run(made.path)
    assert [i for i, loss in enumerate(run.steps.loss) if loss is None] == [3, 6]
    assert run.steps.gradient_norm[4] is None and run.steps.knobs["lr"][5] is None and run.steps.metrics["accuracy"][7] is None
    assert run.steps.knobs["late"] == [None] * 8 + [3] + [None] * 3


def test_what_is_no_run_is_refused_by_name(make: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere is not a run directory: there is no such folder"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"it has no journal\.jsonl"):
        read_run(tmp_path / "empty")
    (tmp_path / "empty" / "journal.jsonl").write_text("")
    with pytest.raises(InputError, match="does not begin with a line of kind 'run'"):
        read_run(tmp_path / "empty")
    (tmp_path / "empty" / "journal.jsonl").write_text('{"kind": "step"}\n')
    with pytest.raises(InputError, match="found a line of kind 'step'"):
        read_run(tmp_path / "empty")
    (tmp_path / "empty" / "journal.jsonl").write_text('{"kind": "run", "format": 2}\n')
    with pytest.raises(InputError, match="format 2, this version of outlay reads up to 1"):
        read_run(tmp_path / "empty")


def test_run_without_its_side_files(make: Make) -> None:
    made = make(steps=12)
    for name in ("recipe.yaml", "plan.json", "result.json"):
        (made.path / name).unlink()
    run = read_run(made.path)
    assert json.loads(run.recipe_text)["name"] == "arithmetic-sft"
    assert run.plan is not None and run.plan["micro_batch"] == 32  # the journal holds the plan as well
    assert run.decisions == [("micro-batch 32", "memory ceiling 2 GiB: 64 would need 2.3 GiB")]
    assert run.warnings == ["step 37: the gradient was not finite; the update was skipped"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1))
def test_journal_cut_anywhere_reads_as_far_as_it_goes(tmp_path_factory: pytest.TempPathFactory, cut: float) -> None:
    made = _shared(tmp_path_factory)
    raw = "\n".join(made.book.lines).encode() + b"\n"
    first = len(made.book.lines[0]) + 1
    kept = raw[: first + round(cut * (len(raw) - first))]
    folder = tmp_path_factory.mktemp("cut")
    (folder / "journal.jsonl").write_bytes(kept)
    run = read_run(folder)
    whole = [json.loads(line) for line in kept.decode().splitlines() if line.endswith("}") and line in made.book.lines]
    seconds = math.fsum(book.get("seconds", 0.0) for line in whole for book in line.get("charged", {}).values())
    assert run.spent["seconds"] == pytest.approx(seconds)
    assert len(run.steps) == sum(line["kind"] == "step" for line in whole)


_made: list[Made] = []


def _shared(factory: pytest.TempPathFactory) -> Made:
    if not _made:
        _made.append(make_run(factory.mktemp("shared") / "run", steps=30))
    return _made[0]
