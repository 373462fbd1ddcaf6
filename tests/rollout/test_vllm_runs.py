"""Whole runs whose answers a vLLM server writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import FakeVllm

import outlay
from outlay.models import Transformer
from outlay.models.tokenizers import open_tokenizer
from outlay.train import Recipe, load_recipe
from outlay.train.journal import read_journal


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeVllm]:
    folder = tmp_path / "served"
    Transformer(hidden=32, layers=1, heads=2, context=32).build(99).module.save_pretrained(folder)  # type: ignore[operator]
    open_tokenizer("characters").save_pretrained(folder)
    with FakeVllm(folder, longest=32) as fake:
        yield fake


def recipe(server: FakeVllm, budget: str) -> Recipe:
    plain: dict[str, Any] = {
        "name": "answers", "budget": budget, "threads": 1,
        "model": {"transformer": {"hidden": 32, "layers": 1, "heads": 2, "context": 32}},
        "stages": [{
            "name": "rewards", "objective": "dr_grpo", "batch_size": 8, "knobs": {"lr": 0.01},
            "source": {"rollouts": {
                "prompts": {"reasoning": {"tasks": {"gcd": [1, 2], "reverse": [1]}}},
                "rewards": {"alike": {"reference_metric": {"metric": "chrf"}}}, "samples": 4, "new_tokens": 6, "minibatches": 2,
                "engine": {"vllm": {"address": server.address, "folder": str(server.folder), "parallel": 3, "wait": 0.0}},
            }},
        }],
    }  # fmt: skip
    return load_recipe(plain)


def test_what_the_server_wrote_is_what_is_charged(server: FakeVllm, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = outlay.run(recipe(server, "4 steps"), folder)
    seen = [line["seen"] for line in read_journal(folder) if line["kind"] == "rollout"]
    book = result.accounts["rollout"]
    assert book["rollouts"] == 32 == len(server.completions())
    assert book["new_tokens"] == pytest.approx(sum(one["length"] * 16 for one in seen))
    assert server.paths().count("/collective_rpc") == 2  # once for the weights at the start, once after two updates


@pytest.mark.parametrize(("budget", "unit"), [("40 rollouts", "rollouts"), ("120 new_tokens", "new_tokens")])
def test_a_budget_that_ends_in_a_generation_is_kept_and_replayed(server: FakeVllm, tmp_path: Path, budget: str, unit: str) -> None:
    result = outlay.run(recipe(server, budget), tmp_path / "run")
    assert result.ended_by == unit
    limit = result.budget[unit]["limit"]
    # three samples of six tokens may be refused that would have been shorter
    assert limit - (16 if unit == "rollouts" else 18 + 16 * 6) < result.spent[unit] <= limit
    again = outlay.run(recipe(server, budget), tmp_path / "again")
    assert again.spent[unit] == result.spent[unit] and again.steps == result.steps
