from __future__ import annotations

import pytest
from made_answers import answer, outcomes, values

from outlay.rewards import ToolUse
from outlay.rewards.calls import Call, written_call

TOOLS = {"weather": ["city", "day", "unit"], "map": ["city"]}
WANTED = {"name": "weather", "parameters": {"city": "Paris", "day": "1"}}


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("weather(city='Paris', day='1')", 1),
        ("so: weather(day='1', city='Paris') and map(city='Rome')", 1),
        ('{"name": "weather", "parameters": {"city": "Paris", "day": "1"}}', 1),
        ("weather(city='Rome', day='1')", -0.25),
        ("weather(city='Paris')", -0.5),
        ("weather(city='Paris', day='1', unit='C')", -0.5),
        ("weather(city='Paris', day='1', mood='good')", -0.8),
        ("weather(city='Paris', unit='C')", -1.0),
        ("weather(city='Paris', mood='good')", -1.3),
        ("weather(city='Paris', day='1', unit='C', mood='good')", -1.3),
        ("weather(city='Paris', unit='C', mood='good')", -1.8),
        ("weather(mood='good')", -1.3),
        ("map(city='Paris')", -1.5),
        ("joke(city='Paris')", -2),
        ("Paris", -2),
        ("weather('Paris', '1')", -2),
        ("weather(city='Paris'", -2),
        ("{broken", -2),
        ("weather(city=open('x'))", -2),
        ("weather(**{'city': 'Paris', 'day': '1'})", -2),
        ("", -2),
    ],
)
def test_the_table(said: str, value: float) -> None:
    made = [answer(said, extra={"tools": TOOLS, "call": WANTED})]
    assert values(ToolUse(), made) == [value]
    assert outcomes(ToolUse(), made) == ["passed" if value == 1 else "failed"]


def test_the_wanted_call_may_stand_in_the_reference() -> None:
    made = [answer("map(city='Rome')", "map(city='Rome')", extra={"tools": TOOLS})]
    assert values(ToolUse(), made) == [1]


def test_questions_without_a_call_or_its_tool_are_not_judged() -> None:
    made = [
        answer("map(city='Rome')", "Rome", extra={"tools": TOOLS}),
        answer("map(city='Rome')", "map(city='Rome')"),
        answer("map(city='Rome')", extra={"tools": TOOLS, "call": {"name": "fly", "parameters": {}}}),
    ]
    assert outcomes(ToolUse(), made) == ["unjudged"] * 3


def test_brackets_inside_a_call_do_not_end_it() -> None:
    assert written_call("f(x='a) b', y=(1, [2])) end)") == Call("f", {"x": "a) b", "y": (1, [2])})
    assert written_call("a.b ( )") == Call("a.b", {})
    with pytest.raises(ValueError, match="no call that can be read"):
        written_call("f(x='" + ")" * 1000)
