"""Refined: m_t = w_t S_t / max from the gradient norms of an earlier run."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from outlay import make, rng
from outlay.catalog import describe
from outlay.errors import InputError
from outlay.schedules import Linear, Refined
from outlay.schedules.refined import refine
from outlay.testing import check_schedule

norm_lists = st.lists(st.floats(min_value=1e-3, max_value=1e3), min_size=2, max_size=60)
orders = st.sampled_from([1, 2])
taus = st.floats(min_value=0, max_value=1)


def plainly(norms: list[float], order: int, tau: float) -> list[float]:
    """The paper's equations in numpy and scipy: pad the end by mirroring twice the width, repeat the first at the start, cut the pad."""
    steps = len(norms)
    width = 2 * math.floor(tau * steps / 2) + 1
    padded = np.pad(np.asarray(norms), (0, 2 * width), mode="reflect")
    weights = ndimage.median_filter(padded, size=width, mode="nearest")[:steps] ** -float(order)
    multipliers = np.array([weights[t] * weights[t + 1 :].sum() / weights.sum() for t in range(steps)])
    return list(multipliers / multipliers.max())


def test_by_hand() -> None:
    # order 1: w = 1/2, 1, 1/4; S = 5/4, 1/4, 0; w S = 5/8, 1/4, 0
    assert refine([2.0, 1.0, 4.0], 1, 0.0) == pytest.approx((1.0, 0.4, 0.0), rel=1e-14)
    # order 2: w = 1/4, 1, 1/16; S = 17/16, 1/16, 0; w S = 17/64, 4/64, 0
    assert refine([2.0, 1.0, 4.0], 2, 0.0) == pytest.approx((1.0, 4 / 17, 0.0), rel=1e-14)
    # a filter over three: the medians of (2, 2, 1), (2, 1, 4) and (1, 4, 1) are 2, 2, 1: w = 1/2, 1/2, 1; S = 3/2, 1, 0
    assert refine([2.0, 1.0, 4.0], 1, 0.7) == pytest.approx((1.0, 2 / 3, 0.0), rel=1e-14)


@given(norm_lists, orders, taus)
def test_agrees_with_the_equations(norms: list[float], order: Literal[1, 2], tau: float) -> None:
    assert refine(norms, order, tau) == pytest.approx(plainly(norms, order, tau), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("steps", [2, 3, 10, 1000])
@pytest.mark.parametrize("order", [1, 2])
def test_equal_norms_give_linear_decay(steps: int, order: Literal[1, 2]) -> None:
    multipliers = refine([0.37] * steps, order)
    assert multipliers == pytest.approx([(steps - t) / (steps - 1) for t in range(1, steps + 1)], rel=1e-9)
    assert multipliers[-1] == 0.0


@given(norm_lists, st.sampled_from([1e-30, 0.5, 1024.0, 1e30]), orders)
def test_the_unit_of_the_norms_does_not_matter(norms: list[float], scale: float, order: Literal[1, 2]) -> None:
    assert refine([norm * scale for norm in norms], order) == pytest.approx(refine(norms, order), rel=1e-9, abs=1e-12)


@given(norm_lists, orders, taus)
def test_the_peak_is_one_and_the_last_value_zero(norms: list[float], order: Literal[1, 2], tau: float) -> None:
    multipliers = refine(norms, order, tau)
    assert max(multipliers) == 1.0 and multipliers[-1] == 0.0 and min(multipliers) >= 0.0


def test_large_norms_at_the_start_give_a_warmup() -> None:
    norms = [4.0 - 3.0 * min(1.0, t / 20) for t in range(100)]
    multipliers = refine(norms)
    assert multipliers[0] < multipliers[5] < multipliers[10] < multipliers[15]
    assert max(multipliers) == max(multipliers[15:25])


def test_one_wild_step_is_filtered_out() -> None:
    norms = [1.0] * 100
    assert refine([*norms[:50], 1e6, *norms[51:]]) == refine(norms)
    assert refine([*norms[:50], 1e6, *norms[51:]], tau=0.0) != refine(norms)


def test_norms_of_zero() -> None:
    assert refine([0.0] * 5) == refine([1.0] * 5)
    clamped = refine([1.0, 0.0, 1.0], 1, 0.0)  # w = 1, 1e8, 1
    assert clamped == pytest.approx((1.0, 1e8 / (1e8 + 1), 0.0), rel=1e-14)
    assert refine([0.0]) == refine([7.0]) == (1.0,)


def test_a_long_run_with_a_wide_filter() -> None:
    draw = random.Random(rng.derive(0, "norms", 0))
    norms = [math.exp(draw.gauss(0, 1)) for _ in range(5000)]
    assert refine(norms) == pytest.approx(plainly(norms, 2, 0.1), rel=1e-9, abs=1e-12)


# ---- as a schedule -------------------------------------------------------------------------------------------------------------------


@given(norm_lists, orders)
def test_every_step_reads_its_own_multiplier(norms: list[float], order: Literal[1, 2]) -> None:
    schedule = Refined(tuple(norms), order)
    steps = len(norms)
    assert [schedule.value(t / steps) for t in range(steps)] == pytest.approx(schedule.multipliers, abs=1e-9)
    assert schedule.value(1.0) == 0.0


@given(st.floats(min_value=0, max_value=1))
def test_between_steps_it_goes_in_straight_lines(p: float) -> None:
    assert Refined((1.0,) * 11).value(10 / 11 * p) == pytest.approx(Linear().value(p), abs=1e-9)
    assert Refined((5.0,)).value(p) == 1.0


def test_what_it_was_given_is_kept_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "norms.json"
    path.write_text("[3, 1, 2.5]")
    made = make("schedules/refined", norms=str(path), order=1)
    assert made == Refined((3.0, 1.0, 2.5), 1) == Refined(path, 1)
    assert describe(made) == {"schedules/refined": {"norms": [3.0, 1.0, 2.5], "order": 1, "tau": 0.1, "metric": "gradient_norm"}}


# ---- from files ----------------------------------------------------------------------------------------------------------------------


def journal(tmp_path: Path, lines: list[dict[str, Any] | str]) -> Path:
    path = tmp_path / "journal.jsonl"
    texts = [line if isinstance(line, str) else json.dumps({"n": n, **line}) for n, line in enumerate(lines)]
    path.write_text("\n".join(texts))
    return path


def step(number: int, norm: float | None, stage: str = "train", outcome: str = "ok", **metrics: float) -> dict[str, Any]:
    return {"kind": "step", "step": number, "stage": stage, "gradient_norm": norm, "outcome": outcome, "metrics": metrics}


def test_reads_the_journal_of_a_run(tmp_path: Path) -> None:
    path = journal(
        tmp_path,
        [
            {"kind": "start"},
            step(1, 3.0, gradient_l1=30.0),
            {"kind": "checkpoint"},
            step(2, 1.0, gradient_l1=20.0),
            step(3, 2.0, gradient_l1=9),
        ],
    )
    assert Refined(path).norms == (3.0, 1.0, 2.0)
    assert Refined(path, 1, metric="gradient_l1").norms == (30.0, 20.0, 9.0)


def test_leaves_out_what_did_not_lead_to_the_weights(tmp_path: Path) -> None:
    """Steps undone by a kill, a line torn by it, and steps whose update was withheld."""
    lines: list[dict[str, Any] | str] = [
        step(1, 1.0),
        step(2, 2.0),
        step(3, 3.0),
        '{"n":3,"kind":"st',
        {"kind": "resume", "from_line": 2},
        step(3, 4.0),
    ]
    assert Refined(journal(tmp_path, [*lines, step(4, math.nan, outcome="skipped"), step(5, 5.0)])).norms == (1.0, 2.0, 4.0, 5.0)


def test_reads_a_real_journal_as_its_own_reader_does(tmp_path: Path) -> None:
    from outlay.budget import Budget
    from outlay.meter import Meter
    from outlay.train.journal import Journal, effective, read_journal

    book = Journal(tmp_path, Meter(Budget.parse("10 steps")))
    for number, norm in enumerate((0.5, 0.25, 4.0), 1):
        book.write("step", step=number, stage="train", loss=1.0, gradient_norm=norm, outcome="ok", metrics={})
    book.write("resume", from_line=2)
    book.write("step", step=3, stage="train", loss=1.0, gradient_norm=0.125, outcome="ok", metrics={})
    book.close()
    read = tuple(line["gradient_norm"] for line in effective(read_journal(tmp_path)) if line["kind"] == "step")
    assert Refined(tmp_path / "journal.jsonl").norms == read == (0.5, 0.25, 0.125)


def test_refuses_files_that_do_not_tell(tmp_path: Path) -> None:
    def refused(path: Path, metric: str = "gradient_norm") -> str:
        with pytest.raises(InputError) as caught:
            Refined(path, metric=metric)
        return str(caught.value)

    assert "norms are read from .json or .jsonl files, found" in refused(tmp_path / "norms.csv")
    assert "there is no file" in refused(tmp_path / "norms.json")
    (tmp_path / "norms.json").write_text('{"norms": [1]}')
    assert "must hold one list of numbers" in refused(tmp_path / "norms.json")
    (tmp_path / "norms.json").write_text("[1, ")
    assert "is not JSON" in refused(tmp_path / "norms.json")
    assert "must hold the steps of one stage, found none" in refused(journal(tmp_path, [{"kind": "start"}]))
    both = refused(journal(tmp_path, [step(1, 1.0, "a"), step(2, 1.0, "b")]))
    assert "found those of the stages a, b; write the norms of one of them as a list" in both
    missing = refused(journal(tmp_path, [step(1, 1.0, lag=2.0), step(2, 1.0)]), "gradient_l1")
    assert "step 1 in" in missing and "holds no 'gradient_l1'; its first step holds gradient_norm, lag" in missing


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norms": ()}, "norms must hold at least one gradient norm, found none"),
        ({"norms": (1.0, math.nan)}, "norms must be finite and >= 0, found nan at step 2 of 2"),
        ({"norms": (-1.0, 2.0)}, "norms must be finite and >= 0, found -1.0 at step 1 of 2"),
        ({"norms": (1.0, 2.0), "order": 3}, "order must be 1 or 2, found 3"),
        ({"norms": (1.0, 2.0), "tau": 1.1}, r"tau must lie in \[0, 1\], found 1.1"),
    ],
)
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Refined(**fields)


@pytest.mark.parametrize("schedule", [Refined((1.0, 5.0, 2.0, 0.0)), Refined((3.0,)), Refined((1e-300, 1e300, 5e-324), 1, 1.0)])
def test_holds_the_contract(schedule: Refined) -> None:
    check_schedule(schedule)
