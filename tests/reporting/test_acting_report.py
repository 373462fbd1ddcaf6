"""What was asked over a stage's progress: exact sums, parts of the progress, what a kill undid, journals from before kinds were told."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import Made
from test_html import EVIL, Page
from test_summary import printed

from outlay.reporting.acting import BINS, MOST_KINDS, MOST_PIECES, OTHERS, Acting, ActingFold, Tally, coarser, in_order
from outlay.reporting.html import charts, render
from outlay.reporting.maps import MOST_ROWS, asked_map, courses, divided_map, maps, rows_of, signal_map, success_map, use_text
from outlay.reporting.read import RunRecord, read_run
from outlay.reporting.tables import Table

Make = Callable[..., Made]


def asked(questions: float, success: float = 0.0, answers: float = 4.0, varied: float = 0.5) -> dict[str, float]:
    return {"asked": questions, "answers": questions * answers, "success": success, "varied": varied}


def rollout(n: int, progress: float | None, kinds: dict[str, Any] | None = None, **entries: Any) -> dict[str, Any]:
    line: dict[str, Any] = {
        "n": n,
        "kind": "rollout",
        "stage": "rewards",
        "questions": sum(kind["asked"] for kind in (kinds or {}).values()),
    }
    return line | ({} if progress is None else {"progress": progress}) | ({} if kinds is None else {"kinds": kinds}) | entries


def folded(lines: Iterable[dict[str, Any]]) -> Acting:
    fold = ActingFold()
    for line in lines:
        fold.take(line, "rewards", 0.0)
    (acting,) = fold.finished()
    return acting


def shares_down(table: Table) -> list[float | None]:
    """Sum of every column; None for a column in which nothing was asked."""
    columns = zip(*([cell.value for cell in row.cells] for row in table.rows), strict=True)
    return [None if all(value is None for value in column) else math.fsum(value or 0.0 for value in column) for column in columns]


def values(table: Table, head: str) -> list[float | None]:
    return next([cell.value for cell in row.cells] for row in table.rows if row.head == head)


# ---- adding up ----------------------------------------------------------------------------------------------------------------------


def test_generations_are_added_up_in_the_parts_they_fall_into() -> None:
    acting = folded(rollout(i, i / BINS, {"gcd/1": asked(i + 1.0, 0.5), "gcd/2": asked(1.0)}) for i in range(BINS))
    assert len(acting.bins) == BINS and acting.edges() == pytest.approx([i / BINS for i in range(BINS)])
    assert [part and part.kinds["gcd/1"].asked for part in acting.bins] == [
        i + 1 for i in range(BINS)
    ]  # 0.15 * 20 and the like are not rounded down
    assert acting.whole.generations == BINS and acting.whole.asked == BINS * (BINS + 1) / 2 + BINS
    assert acting.whole.kinds["gcd/1"].success == pytest.approx(0.5 * BINS * (BINS + 1) / 2)


def test_the_end_of_a_stage_is_in_its_last_part() -> None:
    lines = [rollout(i, i / 40, {"a/1": asked(1.0)}) for i in range(41)]
    acting = folded(lines)
    assert [part.generations for part in acting.bins if part] == [2] * 19 + [3]


def test_success_is_the_mean_over_questions_not_over_generations() -> None:
    acting = folded(
        [rollout(0, 0.0, {"a/1": asked(1.0, 1.0), "b/1": asked(9.0)}), rollout(1, 0.0, {"a/1": asked(3.0, 0.2), "b/1": asked(1.0)})]
    )
    table = success_map(acting)
    assert table is not None and values(table, "a/1") == [pytest.approx(1.6 / 4), None, pytest.approx(1.6 / 4)]
    shares = asked_map(acting)
    assert shares is not None and values(shares, "a/1") == [pytest.approx(4 / 14, abs=1e-6), None, pytest.approx(4 / 14, abs=1e-6)]


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.dictionaries(st.sampled_from(["a/1", "a/2", "b/10", "c"]), st.integers(1, 9), min_size=1)), min_size=1
    )
)
def test_shares_sum_to_one_in_every_part_in_which_something_was_asked(generations: list[tuple[float, dict[str, int]]]) -> None:
    acting = folded(rollout(i, at, {kind: asked(float(n)) for kind, n in kinds.items()}) for i, (at, kinds) in enumerate(generations))
    table = asked_map(acting)
    assert (table is None) == (len(acting.whole.kinds) < 2)
    if table is not None:
        for total, part in zip(shares_down(table), [*acting.bins, acting.whole], strict=True):
            assert total == (None if part is None else pytest.approx(1.0, abs=1e-5))
    assert sum(part.generations for part in acting.bins if part) == len(generations)
    assert sum(part.asked for part in acting.bins if part) == acting.whole.asked == sum(sum(kinds.values()) for _, kinds in generations)


def test_short_runs_have_wide_parts() -> None:
    few = folded(rollout(i, i / 4, {"a/1": asked(1.0), "a/2": asked(1.0)}) for i in range(4))
    assert len(few.bins) == 4 and None not in few.bins
    assert len(folded([rollout(0, 0.95, {"a/1": asked(1.0)})]).bins) == 1
    begun = folded(rollout(i, i / 500, {"a/1": asked(1.0)}) for i in range(50))
    assert len(begun.bins) == BINS and [part is not None for part in begun.bins] == [True] * 2 + [False] * 18  # a run that has just begun
    assert BINS == 20 and len(folded(rollout(i, i / 5, {"a/1": asked(1.0)}) for i in range(5)).bins) == 5


@given(st.lists(st.integers(0, 3), min_size=BINS, max_size=BINS))
def test_parts_are_no_more_than_generations_and_mostly_filled(held: list[int]) -> None:
    wide = coarser([Tally(generations=one) if one else None for one in held])
    places = [i for i, part in enumerate(wide) if part is not None]
    assert BINS % len(wide) == 0 and sum(part.generations for part in wide if part) == sum(held)
    assert len(wide) <= max(1, sum(held))
    assert not places or len(places) >= 0.75 * (places[-1] - places[0] + 1)


def test_what_a_resumption_undoes_is_taken_back_exactly() -> None:
    rng = random.Random(3)
    lines = [rollout(n, n / 40, {"a/1": asked(float(rng.randint(1, 9)), rng.random()), "b/1": asked(2.0)}) for n in range(0, 40, 2)]
    fold = ActingFold()
    for line in lines:
        fold.take(line, "rewards", 0.0)
        if line["n"] % 10 == 4:
            fold.checkpoint()  # stands at the odd numbers 5, 15, 25, 35
    fold.undo(25)
    again = [line for line in lines if line["n"] < 25]
    assert fold.finished() == (folded(again),)
    fold.take(lines[13], "rewards", 0.0)
    assert fold.finished() == (folded([*again, lines[13]]),)
    fold.undo(0.0)
    assert fold.finished() == ()


def test_branches_are_no_part_of_the_course() -> None:
    fold = ActingFold()
    kinds = {"a/1": asked(1.0)}
    fold.take(rollout(0, 0.0, kinds), "rewards", 0.0)
    fold.branch({"n": 1, "what": "refused"})
    fold.take(rollout(2, 0.1, kinds), "rewards", 0.0)
    fold.branch({"n": 3, "what": "begun"})
    fold.take(rollout(4, 0.1, kinds), "rewards", 0.0)
    fold.checkpoint()
    fold.branch({"n": 5, "what": "landed"})
    fold.take(rollout(6, 0.1, kinds), "rewards", 0.0)
    assert fold.finished()[0].whole.generations == 3
    fold.undo(5)  # back into the branch
    fold.take(rollout(7, 0.1, kinds), "rewards", 0.0)
    assert fold.finished()[0].whole.generations == 2


def test_memory_is_bounded_however_long_the_run() -> None:
    fold = ActingFold()
    for n in range(10_000):
        fold.take(rollout(n, n / 10_000, {f"task_{n % 700}/1": asked(1.0), "a/1": asked(1.0)}), "rewards", 0.0)
        fold.checkpoint()
    assert len(fold._pieces) <= MOST_PIECES + 1
    (acting,) = fold.finished()
    assert acting.whole.generations == 10_000 and acting.whole.asked == 20_000
    assert len(acting.whole.kinds) == MOST_KINDS + 1 and acting.whole.kinds[OTHERS].asked > 0
    assert [part.generations for part in acting.bins if part] == [500] * BINS
    table = asked_map(acting)
    assert table is not None and len(table.rows) == MOST_ROWS and table.rows[-1].head == OTHERS
    assert shares_down(table) == pytest.approx([1.0] * (BINS + 1), abs=1e-4)
    fold.undo(9_999)
    assert fold.finished()[0].whole.generations == 9_999


# ---- maps ---------------------------------------------------------------------------------------------------------------------------


def test_levels_of_one_task_lie_together_in_their_order() -> None:
    assert in_order(["sort/1", "gcd/10", "gcd/2", "plain", "gcd/1", "a/b/2", "gcd"]) == [
        "a/b/2",
        "gcd",
        "gcd/1",
        "gcd/2",
        "gcd/10",
        "plain",
        "sort/1",
    ]
    acting = folded([rollout(0, 0.0, {kind: asked(1.0) for kind in ("sort/1", "gcd/10", "gcd/2")})])
    table = asked_map(acting)
    assert table is not None
    assert [(row.head, row.begins) for row in table.rows] == [("gcd/2", False), ("gcd/10", False), ("sort/1", True)]


def test_shading_is_scaled_to_the_largest_share_and_success_is_not() -> None:
    acting = folded(
        [rollout(0, 0.0, {"a/1": asked(3.0, 0.5), "a/2": asked(1.0, 0.25)}), rollout(1, 0.5, {"a/2": asked(2.0, 0.75), "b/1": asked(2.0)})]
    )
    shares, success = asked_map(acting), success_map(acting)
    assert shares is not None and success is not None
    assert shares.columns == ["kind", "0", "50", "all"] and shares.caption.endswith("darkest at 75%")
    heats = {row.head: [cell.heat for cell in row.cells] for row in shares.rows}
    assert heats == {
        "a/1": [1.0, 0.0, None],
        "a/2": [pytest.approx(1 / 3), pytest.approx(2 / 3), None],
        "b/1": [0.0, pytest.approx(2 / 3), None],
    }
    assert [cell.text for cell in shares.rows[0].cells] == ["75", "0", "38"] and shares.rows[0].cells[0].title == "75% of 4 questions"
    assert [cell.title for cell in success.rows[1].cells] == ["25% over 1 question", "75% over 2 questions", ""]
    assert [[cell.text for cell in row.cells] for row in success.rows] == [["50", "", "50"], ["25", "75", "58"], ["", "0", "0"]]
    assert success.rows[0].cells[0].heat == 0.5 and success.rows[0].cells[1].heat is None  # not asked is not 0


def test_what_the_teacher_expects_next_is_told_with_kinds_never_asked() -> None:
    lines = [rollout(i, i / 2, {"a/1": asked(1.0)}, shares={"a/1": 0.5 - i / 4, "a/2": 0.5 + i / 4}) for i in range(2)]
    acting = folded(lines)
    table = asked_map(acting)
    assert table is not None and table.columns[-2:] == ["all", "next"]
    assert [row.cells[-1].value for row in table.rows] == [0.25, 0.75] and values(table, "a/2") == [0.0, 0.0, 0.0, 0.75]
    assert [len(row.cells) for row in [*table.rows, table.total] if row] == [4, 4, 4]
    success = success_map(acting)
    assert success is not None and [row.head for row in success.rows] == ["a/1"]


def test_one_kind_has_no_shares_but_its_success() -> None:
    acting = folded([rollout(0, 0.0, {"": asked(4.0, 0.5)})])
    assert asked_map(acting) is None
    assert [(key, [row.head for row in table.rows]) for key, table in maps(acting)] == [("success", ["no name"])]


def test_kinds_beyond_the_rows_share_the_last() -> None:
    acting = folded([rollout(0, 0.0, {f"a/{i}": asked(float(1 + i), i / 100) for i in range(MOST_ROWS + 5)})])
    rows = rows_of(acting)
    assert len(rows) == MOST_ROWS and rows[-1] == ("6 other kinds", tuple(f"a/{i}" for i in range(6)))
    success = success_map(acting)
    assert success is not None
    assert values(success, "6 other kinds")[0] == pytest.approx(sum((1 + i) * i / 100 for i in range(6)) / 21, abs=1e-6)
    assert len(rows_of(folded([rollout(0, 0.0, {f"a/{i}": asked(1.0) for i in range(MOST_ROWS)})]))) == MOST_ROWS


def test_answers_to_a_question_are_shown_where_an_allocator_made_them_differ() -> None:
    kinds = {"a/1": asked(4.0)}
    even = folded([rollout(0, 0.0, kinds, divided={"4": 4}), rollout(1, 0.5, kinds, divided={"8": 2})])
    assert divided_map(even) is None  # a repair or another stage of the recipe, but no allocator
    table = divided_map(folded([rollout(0, 0.0, kinds, divided={"2": 3, "10": 1}), rollout(1, 0.5, kinds, divided={"4": 4})]))
    assert table is not None and [row.head for row in table.rows] == ["10", "4", "2"]
    assert [[cell.value for cell in row.cells] for row in table.rows] == [[0.25, 0.0, 0.125], [0.0, 1.0, 0.5], [0.75, 0.0, 0.375]]
    assert table.total is not None and [cell.value for cell in table.total.cells] == [4.0, 4.0, 4.0]


def test_many_numbers_of_answers_share_rows() -> None:
    table = divided_map(folded([rollout(0, 0.0, {"a/1": asked(40.0)}, divided={str(n): 1 for n in range(40)})]))
    assert table is not None and [row.head for row in table.rows] == ["33–64", "17–32", "9–16", "5–8", "3–4", "2", "1", "0"]
    assert [row.cells[-1].value for row in table.rows] == pytest.approx([n / 40 for n in (7, 16, 8, 4, 2, 1, 1, 1)])


def test_signal_before_and_after_a_repair_and_what_was_trained_on() -> None:
    before = {
        "varied": 0.25,
        "varied_after_repair": 1.0,
        "rollouts_generated": 32.0,
        "rollouts_trained": 8.0,
        "hinted": 0.0,
        "unjudged": 0.0,
    }
    after = {
        "varied": 0.5,
        "varied_after_repair": 0.75,
        "rollouts_generated": 16.0,
        "rollouts_trained": 24.0,
        "hinted": 0.5,
        "unjudged": 3.0,
    }
    acting = folded([rollout(0, 0.0, seen=before, questions=8), rollout(1, 0.5, seen=after, questions=99, divided={"4": 4})])
    table = signal_map(acting)
    assert table is not None
    assert values(table, "with signal") == [0.25, 0.5, pytest.approx((0.25 * 8 + 0.5 * 4) / 12, abs=1e-6)]  # a group counts once
    assert values(table, "with signal, repaired") == [1.0, 0.75, pytest.approx((8 + 18) / 32, abs=1e-6)]
    assert values(table, "helped by a hint") == [0.0, 0.5, pytest.approx(12 / 32)]
    assert (
        values(table, "answers") == [32, 16, 48] and values(table, "trained on") == [8, 24, 32] and values(table, "not judged") == [0, 3, 3]
    )
    assert use_text(acting) == "48 answers, 32 trained (67%); signal in 33% of groups, 81% after repair"


def test_a_generation_that_was_cut_before_its_first_group_has_no_signal_to_tell_of() -> None:
    seen = {"varied": 0.0, "rollouts_generated": 3.0, "rollouts_trained": 0.0}
    acting = folded(
        [rollout(0, 0.0, {"a/1": asked(2.0)}, seen={**seen, "varied": 1.0}), rollout(1, 0.0, {}, seen=seen, questions=4, divided={}, cut=7)]
    )
    assert acting.whole.signal("varied") == 1.0 and acting.whole.counts["generated"] == 6


# ---- journals, pages, terminals -----------------------------------------------------------------------------------------------------


def with_rollouts(made: Made, change: Callable[[dict[str, Any]], dict[str, Any]] = dict, every: int = 4) -> RunRecord:
    """Write a line of kind ``rollout`` before every few steps of a made run, and read it."""
    lines: list[dict[str, Any]] = []
    for raw in made.book.lines:
        line = json.loads(raw)
        if line["kind"] == "step" and line["step"] % every == 0:
            kinds = {"gcd/1": asked(3.0, 0.5), "gcd/2": asked(1.0, line["progress"]), "sort/1": asked(4.0 * line["progress"] // 1, 0.25)}
            told = {
                "kind": "rollout", "n": line["n"], "stage": line["stage"], "progress": line["progress"], "questions": 4, "kinds": kinds,
                "seen": {"varied": 0.5, "varied_after_repair": 1.0, "rollouts_generated": 16.0, "rollouts_trained": 8.0},
                "divided": {"2": 2, "6": 2}, "shares": {"gcd/1": 0.75, "gcd/2": 0.25, "sort/1": 0.0},
            }  # fmt: skip
            lines.append(change(told))
        lines.append(line)
    (made.path / "journal.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return read_run(made.path)


def test_each_stage_has_its_maps_and_the_page_holds_their_values(make: Make) -> None:
    run = with_rollouts(make(steps=160))
    assert [acting.stage for acting in run.acting] == ["sft", "polish"] and sum(acting.whole.generations for acting in run.acting) == 40
    assert not run.of("rollout")  # thousands of lines are not kept
    page = Page(render([run]))
    for acting in run.acting:
        rows = page.rows(f"asked-{acting.stage}")
        total = rows.pop("questions")
        assert sum(count or 0 for count in total[: len(acting.bins)]) == acting.whole.asked
        columns = list(zip(*rows.values(), strict=True))
        for part, column in zip([*acting.bins, acting.whole], columns, strict=False):
            assert (sum(share or 0.0 for share in column) == pytest.approx(1.0, abs=1e-5)) if part else set(column) == {None}
        assert [row[-1] for row in rows.values()] == [0.75, 0.25] + [0.0] * (len(rows) - 2)
        assert {f"{key}-{acting.stage}" for key in ("success", "divided", "signal")} <= page.tables.keys()
    assert "80 answers" in page.text and "signal in 50% of groups, 100% after repair" in page.text
    text = printed(run)
    assert "gcd/1" in text and "sft: 480 answers, 240 trained (50%)" in text and "0.5 → 0.5" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_generations_that_a_kill_undid_are_not_counted_twice(make: Make) -> None:
    killed, whole = with_rollouts(make("a", steps=160, killed_at=(95, 101))), with_rollouts(make("b", steps=160))
    assert killed.acting == whole.acting


def test_journals_that_do_not_tell_kinds_or_progress(make: Make) -> None:
    def old(line: dict[str, Any]) -> dict[str, Any]:
        return {key: line[key] for key in ("kind", "n", "stage", "questions")} | {"seen": {"reward": 0.5, "rollouts_generated": 16.0}}

    run = with_rollouts(make(steps=160), old)
    assert [[key for key, _ in maps(acting)] for acting in run.acting] == [["signal"], ["signal"]]
    assert sum(part is not None for part in run.acting[0].bins) == BINS  # the steps tell the progress
    page = Page(render([run]))
    assert "signal-sft" in page.tables and "asked-sft" not in page.tables
    assert "gcd/1" not in printed(run)

    def bare(line: dict[str, Any]) -> dict[str, Any]:
        return {"kind": "rollout", "n": line["n"], "kinds": [1], "seen": None, "divided": {"x": 1, "2": "y"}}

    run = with_rollouts(make("bare", steps=160), bare)
    assert [maps(acting) for acting in run.acting] == [[], []] and render([run]) and printed(run)


def test_nothing_is_shown_where_nothing_was_generated(make: Make) -> None:
    run = read_run(make(steps=30).path)
    assert run.acting == ()
    text = render([run])
    assert 'id="asked' not in text and "What was asked" not in text and 'class="map"' not in text
    assert "asked" not in printed(run)


def test_names_of_kinds_and_stages_are_escaped(make: Make) -> None:
    def evil(line: dict[str, Any]) -> dict[str, Any]:
        kinds = {f"{EVIL}/1": asked(1.0), f"{EVIL}/2": asked(2.0), "[red]/1": asked(1.0)}
        return {**line, "stage": EVIL, "kinds": kinds, "shares": {f"{EVIL}/1": 1.0}}

    run = with_rollouts(make(steps=40), evil)
    page = Page(render([run]))
    assert [tag for tag, _ in page.elements].count("script") == 2 and "img" not in {tag for tag, _ in page.elements}
    assert f"asked-{EVIL}" in page.tables and page.text.count("alert(1)") >= 4
    assert "[red]/1" in printed(run, 120)


def test_the_page_of_ten_thousand_generations_is_small_and_quickly_read(make: Make, tmp_path: Path) -> None:
    rng = random.Random(0)
    names = [f"task_{t}/{level}" for t in range(12) for level in (1, 2, 3)]
    made = make(steps=8)
    lines = [json.loads(line) for line in made.book.lines]
    many = [
        rollout(100 + n, n / 10_000, {name: asked(float(rng.randint(1, 9)), rng.random()) for name in names}, divided={"2": 3, "7": 9},
                shares=dict.fromkeys(names, 1 / 36), seen={"varied": 0.5, "rollouts_generated": 99.0, "rollouts_trained": 50.0})
        for n in range(10_000)
    ]  # fmt: skip
    fold = ActingFold()
    began = time.process_time()
    for line in many:
        fold.take(line, "rewards", 0.0)
    assert time.process_time() - began < 4.0
    small = len(render([read_run(made.path)]))
    lines[-1:-1] = many[:20]
    (made.path / "journal.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    record = read_run(made.path)
    page = render([replace(record, acting=fold.finished())])
    assert 40_000 < len(page) - small < 250_000


def test_courses_tell_where_a_kind_began_and_ended() -> None:
    first_part, second_part = {"a/1": asked(4.0, 0.1)}, {"a/1": asked(2.0, 0.3), "a/2": asked(2.0, 0.9)}
    lines = [rollout(0, 0.0, first_part), rollout(1, 0.25, second_part), rollout(2, 0.5, {"a/2": asked(8.0, 0.7)}), rollout(3, 0.75, {})]
    first, second = courses(folded(lines))
    assert (first.kind, first.marks, first.asked, first.before, first.after) == ("a/1", "█▅▁ ", 6.0, 0.1, 0.3)
    assert (second.kind, second.marks, second.share, second.before, second.after) == ("a/2", "▁▅█ ", pytest.approx(10 / 16), 0.9, 0.7)


def test_curves_of_signal_stand_beside_what_they_were_before_repair(make: Make) -> None:
    run = read_run(make(steps=30, metric_names=("varied", "varied_after_repair", "rollouts_generated", "rollouts_trained")).path)
    pairs = [(one["choices"], one["other"]) for one in charts([run]) if one["group"] == "answers"]
    assert pairs == [(["metrics/varied_after_repair"], "metrics/varied"), (["metrics/rollouts_trained"], "metrics/rollouts_generated")]
    figures = [attributes for tag, attributes in Page(render([run])).elements if tag == "figure" and "data-other" in attributes]
    assert [figure["data-other"] for figure in figures] == ["metrics/varied", "metrics/rollouts_generated"]
    plain = read_run(make("plain", steps=30, metric_names=("varied",)).path)
    (one,) = [one for one in charts([plain]) if one["group"] == "answers"]
    assert one["choices"] == ["metrics/varied"] and "other" not in one
