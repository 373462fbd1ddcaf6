from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_answers import answer, outcomes, values

import outlay
from outlay.rewards import Answer, ToolCall


def call(name: str, **parameters: Any) -> dict[str, Any]:
    return {"name": name, "parameters": parameters}


def text(*calls: dict[str, Any], response: str = "") -> str:
    block = f"\n<tool_call>\n{chr(10).join(map(json.dumps, calls))}\n</tool_call>" if calls else ""
    return f"<think>so</think>{block}" + (f"\n<response>{response}</response>" if response else "")


def asked(wanted: list[dict[str, Any]], said: str) -> Answer:
    return answer(said, extra={"calls": wanted})


CALLS = ToolCall(part="calls")
WEATHER = call("weather", city="Paris", day=1)


@pytest.mark.parametrize(
    ("given", "points"),
    [
        ([WEATHER], 4.0),
        ([call("weather", city="Paris", day=2)], 1 + 1 + 1),
        ([call("weather", city="Paris")], 1 + 1 / 2 + 1),
        ([call("weather", city="Paris", day=1, unit="C")], 1 + 2 / 3 + 2),
        ([call("weather")], 1.0),
        ([call("map", city="Paris", day=1)], 0.0),
        ([WEATHER, call("map")], 1 / 2 + 1 + 2),  # names: one of two
        ([call("weather", city="Rome"), WEATHER], 1 / 2 + 1 + 2),  # the best match of that name
    ],
)
def test_points_by_hand_of_one_wanted_call(given: list[dict[str, Any]], points: float) -> None:
    assert values(CALLS, [asked([WEATHER], text(*given))]) == pytest.approx([6 * points / 4 - 3])
    assert outcomes(CALLS, [asked([WEATHER], text(*given))]) == ["passed" if given == [WEATHER] else "failed"]


def test_a_call_is_taken_once() -> None:
    wanted = [call("a", x=1), call("a", x=1)]
    # names 1/2, the first match 1 + 1, the second finds nothing; Smax = 1 + 2 + 2
    assert values(CALLS, [asked(wanted, text(call("a", x=1)))]) == pytest.approx([6 * 2.5 / 5 - 3])


def test_the_best_match_is_taken_and_leaves_the_other_to_the_next() -> None:
    wanted, given = [call("a", x=1), call("a", x=2)], [call("a", x=2), call("a", x=1), call("b")]
    # names 2/3, both matches 1 + 1; Smax = 1 + 2 + 2
    assert values(CALLS, [asked(wanted, text(*given))]) == pytest.approx([6 * (2 / 3 + 4) / 5 - 3])


@given(st.permutations([call("a", x=1), call("a", x=2, y=3), call("b"), call("a", x=1)]))
def test_the_order_of_calls_does_not_matter_to_what_is_right(given: list[dict[str, Any]]) -> None:
    wanted = [call("a", x=1), call("b"), call("a", x=1), call("a", x=2, y=3)]
    for grain in ("fine", "strict", "exact", "coarse"):
        reward = outlay.make("rewards/tool_call", part="calls", grain=grain)
        assert values(reward, [asked(wanted, text(*given))]) == [3.0]
        assert outcomes(reward, [asked(wanted, text(*given))]) == ["passed"]


def test_other_grains_by_hand() -> None:
    near = [asked([WEATHER, call("map")], text(call("weather", city="Paris"), call("map")))]
    # fine: names 1, weather 1/2 + 1, map 1; strict: names 1, weather 0 + 1, map 1; exact: names 1, map 1; of 5, 5 and 3
    assert values(CALLS, near) == pytest.approx([6 * 3.5 / 5 - 3])
    assert values(ToolCall(part="calls", grain="strict"), near) == pytest.approx([6 * 3 / 5 - 3])
    assert values(ToolCall(part="calls", grain="exact"), near) == pytest.approx([6 * 2 / 3 - 3])
    assert values(ToolCall(part="calls", grain="coarse"), near) == [-3]
    more = [asked([call("map")], text(call("map"), call("map")))]
    assert values(CALLS, more) == pytest.approx([6 * 1.5 / 2 - 3])  # one name of two, and the match of the only call
    assert values(ToolCall(part="calls", grain="strict"), more) == pytest.approx([6 * 1 / 2 - 3])


def test_what_cannot_be_read_is_worth_least() -> None:
    broken = [
        "weather",
        "<tool_call>{'name'}</tool_call>",
        "<tool_call>[1]</tool_call>",
        '<tool_call>{"name": "weather"}</tool_call>',
        '<tool_call>{"name": 1, "parameters": {}}</tool_call>',
        '<tool_call>{"name": "weather", "parameters": []}</tool_call>',
        "<tool_call></tool_call>",
        f"<tool_call>{json.dumps(WEATHER)}",
        f"<tool_call>{'[' * 100_000}</tool_call>",
    ]
    assert values(CALLS, [asked([WEATHER], said) for said in broken]) == [-3.0] * len(broken)
    assert values(ToolCall(part="calls", scale=1), [asked([WEATHER], "x")]) == [-1.0]


def test_the_layout_follows_what_is_wanted() -> None:
    form = ToolCall(part="format")
    assert values(form, [asked([WEATHER], text(WEATHER)), asked([WEATHER], text()), asked([], text()), asked([], text(WEATHER))]) == [
        1,
        0,
        1,
        0,
    ]
    both = answer(text(WEATHER, response="sunny"), text(WEATHER, response="rain"))
    only = answer(text(WEATHER), text(WEATHER, response="rain"))
    assert values(form, [both, only]) == [1, 0]
    assert values(form, [asked([WEATHER], "so " + text(WEATHER))]) == [0]


def test_the_parts_are_added() -> None:
    made = [
        asked([WEATHER], text(WEATHER)),
        asked([WEATHER], text(WEATHER) + " so"),
        asked([WEATHER], text(call("map"))),
        asked([WEATHER], ""),
    ]
    assert values(ToolCall(), made) == [4, 3, -2, -3]
    assert outcomes(ToolCall(), made) == ["passed", "failed", "failed", "failed"]
    assert (ToolCall().bounds, ToolCall(part="calls", scale=1).bounds, ToolCall(part="format").bounds) == ((-3, 4), (-1, 1), (0, 1))


def test_where_no_call_is_wanted_correctness_is_nothing() -> None:
    made = [answer(text(response="hi"), text(response="ho")), answer(text(WEATHER, response="hi"), text(response="ho"))]
    assert values(ToolCall(), made) == [1, 0]
    assert outcomes(ToolCall(), made) == ["passed", "failed"]
    assert values(CALLS, made) == [0, 0]
    assert outcomes(CALLS, made) == ["passed", "failed"]


def test_wanted_calls_stand_in_the_reference_or_cannot_be_read() -> None:
    assert values(CALLS, [answer(text(WEATHER), text(WEATHER)), answer(text(call("map")), text(WEATHER))]) == [3, -3]
    assert outcomes(CALLS, [answer("x", "<tool_call>x</tool_call>"), asked([{"name": "x"}], "x")]) == ["unjudged", "unjudged"]
    with pytest.raises(ValueError, match="scale must be a finite number > 0, found 0"):
        ToolCall(scale=0)
