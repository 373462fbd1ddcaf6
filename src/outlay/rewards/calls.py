"""Calls: how tools are called in text."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """A call of a tool.

    Args:
        name: of the tool.
        parameters: values by name.
    """

    name: str
    parameters: Mapping[str, Any]


def call_of(plain: Any) -> Call:
    """Return the call that a mapping with ``name`` and ``parameters`` (or ``arguments``) describes.

    Raises:
        ValueError: when it is no such mapping.
    """
    if isinstance(plain, Mapping):
        name, parameters = plain.get("name"), plain.get("parameters", plain.get("arguments"))
        if isinstance(name, str) and isinstance(parameters, Mapping):
            return Call(name, {str(key): value for key, value in parameters.items()})
    raise ValueError(f"a call has a name and parameters, found {plain!r:.80}")


def calls_in_block(text: str) -> list[Call]:
    """Return the calls of the first ``<tool_call>`` block: one JSON object a line.

    Raises:
        ValueError: when there is no such block, or a line is no call.
    """
    found = re.search(r"<tool_call>(.*?)</tool_call>", text, re.DOTALL)
    if found is None:
        raise ValueError("no <tool_call> block")
    try:
        return [call_of(json.loads(line)) for line in found.group(1).strip().split("\n")]
    except RecursionError:
        raise ValueError("a call is nested too deeply") from None


def written_call(text: str) -> Call:
    """Return the first call written as ``name(key='value', ...)``, or the one call that a text of JSON describes. Nothing is evaluated but
    literals.

    Raises:
        ValueError: when there is none.
    """
    if text.lstrip().startswith("{"):
        try:
            return call_of(json.loads(text))
        except RecursionError:
            raise ValueError("a call is nested too deeply") from None
    start = re.search(r"[A-Za-z_][\w.]*\s*\(", text)
    if start is None:
        raise ValueError("no call")
    for end in [place for place in range(start.end(), len(text)) if text[place] == ")"][:50]:
        try:
            return _from_expression(ast.parse(text[start.start() : end + 1].strip(), mode="eval").body)
        except (SyntaxError, MemoryError, RecursionError):
            continue  # this bracket closes something inside the call
    raise ValueError("no call that can be read")


def _from_expression(found: ast.expr) -> Call:
    if not isinstance(found, ast.Call) or found.args or any(word.arg is None for word in found.keywords):
        raise ValueError("a call names its parameters")
    return Call(ast.unparse(found.func), {str(word.arg): ast.literal_eval(word.value) for word in found.keywords})


def same_calls(first: Sequence[Call], second: Sequence[Call]) -> bool:
    """Say whether the same tools are called with the same parameters, in whatever order."""
    left = list(second)
    for call in first:
        if call not in left:
            return False
        left.remove(call)
    return not left
