"""Objectives on rollouts in a whole run: each gets the columns, the frozen model and the critic that it asks for, and knobs that listen to it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from test_acting import acting, recipe

import outlay
from outlay.train.journal import read_journal

#: a reward that answers of a model which has learnt nothing differ in, now and then
WORDS = {"new_tokens": 12, "temperature": 1.0, "rewards": {"words": {"words": {"enough": 3}}}}


def steps_of(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_journal(folder) if line["kind"] == "step"]


@pytest.mark.parametrize(
    ("objective", "measures"),
    [
        ({"grpo": {"denominator": "old"}}, {"kl", "clip_fraction", "approx_kl", "entropy", "ratio", "correction"}),
        ("ppo", {"kl", "value", "value_loss", "ratio"}),
        ("remax", {"kl", "entropy"}),
        ({"raft": {"above": 0.0}}, {"entropy"}),
        ({"lp_reg": {"share": 0.2}}, {"protected"}),
        ({"disco": {"score": "ratio"}}, {"gap", "mixed", "kl", "constraint"}),
        ("hpt", {"demonstrations", "rollout_loss", "demonstration_loss"}),
    ],
    ids=["grpo", "ppo", "remax", "raft", "lp_reg", "disco", "hpt"],
)
def test_a_run_of_each(tmp_path: Path, objective: Any, measures: set[str]) -> None:
    result = outlay.run(
        recipe("4 steps", acting(objective=objective, rollouts=WORDS if objective != "hpt" else {}), micro_batch=4), tmp_path / "run"
    )
    assert result.steps == 4
    for line in steps_of(tmp_path / "run"):
        assert measures <= line["metrics"].keys()
        assert all(math.isfinite(value) for value in line["metrics"].values()), line["metrics"]


def test_the_coefficient_of_the_divergence_follows_its_target(tmp_path: Path) -> None:
    knobs = {"lr": 0.02, "kl": {"peak": 0.05, "schedule": {"adaptive_kl": {"target": 1e-6, "rate": 1.0}}}}
    outlay.run(recipe("6 steps", acting(objective="grpo", knobs=knobs, rollouts=WORDS)), tmp_path / "run")
    lines = steps_of(tmp_path / "run")
    expected = 0.05
    for line in lines:
        assert line["knobs"]["kl"] == pytest.approx(expected)
        expected *= 1 + min(max(line["metrics"]["kl"] / 1e-6 - 1, -0.2), 0.2)
    assert lines[-1]["knobs"]["kl"] != 0.05 and any(line["metrics"]["kl"] > 1e-6 for line in lines)
