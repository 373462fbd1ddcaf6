"""An extension for the API pages: docstrings here are plain text, so an asterisk in an equation is an asterisk, not emphasis.

Escapes what Markdown would take for markup in running text. Code is left alone: between backticks, in fences, after ``>>>``, and in
indented blocks that are not the body of a section such as ``Args:``.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"^[A-Z][A-Za-z ]*:$")
_CODE = re.compile(r"(`+[^`]*`+)")
# the start of emphasis; the start of a tag; brackets after brackets, which would be a link
_MARKUP = re.compile(r"\*(?=\S)|<(?=[A-Za-z/!])|(?<=\])(?=[\[(])")


class PlainText(griffe.Extension):
    """Rewrites every docstring once, when its object has been read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Escape the docstring of ``obj``."""
        if obj.docstring:
            obj.docstring.value = escape(obj.docstring.value)


def escape(text: str) -> str:
    """Return ``text`` with the signs escaped that Markdown would read as markup."""
    lines: list[str] = []
    fenced = in_section = False
    for line in text.split("\n"):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if line and not line[0].isspace():
            in_section = bool(_SECTION.match(line))
        code = fenced or line.lstrip().startswith((">>>", "...")) or (line.startswith("    ") and not in_section)
        lines.append(line if code else _escape_line(line))
    return "\n".join(lines)


def _escape_line(line: str) -> str:
    pieces = _CODE.split(line)
    pieces[::2] = [_MARKUP.sub(lambda match: "&lt;" if match[0] == "<" else f"\\{match[0]}", piece) for piece in pieces[::2]]
    return "".join(pieces)
