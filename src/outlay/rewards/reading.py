"""Reading: where in a text the answer stands."""

from __future__ import annotations

from outlay.rewards.base import Answer


def given_answer(answer: Answer, inside: str, end_required: bool) -> str | None:
    """Return what is to be judged of an answer, see ``answer_part``; None where it did not end by itself and ``end_required`` asks for that,
    or where there is no such tag: then it is wrong, whatever it says."""
    return None if end_required and not answer.ended else answer_part(answer.text, inside)


def answer_part(text: str, tag: str) -> str | None:
    """Return what stands in the last closed ``<tag>..</tag>``, stripped of blanks at its ends; the whole text for an empty tag; None where
    there is no such tag."""
    if not tag:
        return text.strip()
    end = text.rfind(f"</{tag}>")
    begin = text.rfind(f"<{tag}>", 0, max(end, 0))
    return None if begin < 0 else text[begin + len(tag) + 2 : end].strip()
