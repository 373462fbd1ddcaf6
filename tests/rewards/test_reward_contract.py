"""Every reward keeps the contract of its family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_answers import CONTEXT, answer

import outlay
from outlay.rewards import METHODS, Answer
from outlay.testing.rewards import check_reward

TOOLS = {"tools": {"map": ["city"]}, "calls": [{"name": "map", "parameters": {"city": "Rome"}}]}
CALL = '<think>so</think><tool_call>{"name": "map", "parameters": {"city": "Rome"}}</tool_call>'


def answers() -> list[Answer]:
    texts = ["7", r"so \boxed{7}</think>", "8\n\nno", CALL, "map(city='Rome')", "<think>a</think><answer>7</answer>", ""]
    made = [answer(text, "7", tokens=len(text) + 1, kind="gcd/1", extra=TOOLS) for text in texts]
    made += [answer(text, "map(city='Rome')", tokens=5, group=1, extra=TOOLS, ended=False) for text in texts]
    return [*made, answer("7", "", tokens=9, group=2), answer("8", "", group=2)]


PARTS: dict[str, dict[str, Any]] = {
    "clipped_delta": {"score": "reference_metric"},
    "verifier_and_model": {"model": "words"},
    "standardised": {"reward": "reference_metric"},
    "fused": {"reward": "reference_metric", "texts": "known.jsonl"},
}
#: checked beside their own tests: they need programs or models
ELSEWHERE = {"code", "isolated", "learned", "goal_conditioned"}


@pytest.mark.parametrize("name", sorted(set(METHODS) - ELSEWHERE))
def test_rewards_keep_their_contract(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "known.jsonl").write_text(json.dumps({"prompt": "", "answer": "8 no"}))
    check_reward(outlay.make(f"rewards/{name}", **PARTS.get(name, {})), answers(), CONTEXT)
