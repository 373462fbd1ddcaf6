"""Segments: a text's own continuations as questions, so that reinforcement learning can go on where there are no labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.prompts.base import Question
from outlay.schedules.base import require

if TYPE_CHECKING:
    from outlay.prompts.file import Cycled

_ENDS = {"sentence": re.compile(r"(?<=[.!?])\s+"), "line": re.compile(r"\n+"), "word": re.compile(r"\s+")}


@dataclass(frozen=True)
class SegmentPrompts:
    """Predict s_i from s_<i (autoregressive), or from s_<i and s_(i+1) (in the middle); the reward ``next_segment`` judges the prediction.

    A text is split in segments s_1 ... s_n. Each segment but the first is a question; ``middle`` of them, spread evenly, also show what comes
    after. The objective over both kinds is E[autoregressive] + lambda E[middle], with lambda = middle / (1 - middle) by their numbers. A fresh
    random order every epoch; texts whose own hash says so are held out and never asked about. How the paper words its prompts is not known:
    ``form`` and ``form_middle`` are ours.

    Args:
        corpus: name of a corpus that comes with outlay, such as ``speeches``; or
        path: a .txt file whose paragraphs are the texts, or a .jsonl, .csv or .parquet file with a column ``text``; or
        texts: texts in memory. Just one of the three is given.
        unit: what a segment is: ``sentence``, ``line`` or ``word``.
        before: segments shown before the one asked for, at most, > 0.
        middle: share of questions that also show the segment after, in [0, 1].
        longest: longest segment asked for, in characters, > 0.
        form: the prompt; ``{before}`` stands for the segments before.
        form_middle: the prompt in the middle; ``{after}`` stands for the segment after.
        held_out: share of texts held out, in [0, 1).
    """

    title: ClassVar[str] = "Next segments of texts"
    paper: ClassVar[Paper | None] = Paper("2509.19249", "Reinforcement Learning on Pre-Training Data", 2025)

    corpus: str | None = None
    path: Path | None = None
    texts: tuple[str, ...] | None = None
    unit: Literal["sentence", "line", "word"] = "sentence"
    before: int = 4
    middle: float = 0.0
    longest: int = 200
    form: str = "{before} "
    form_middle: str = "{before} [...] {after}\n[...] = "
    held_out: float = 0.05

    def __post_init__(self) -> None:
        given = [name for name in ("corpus", "path", "texts") if getattr(self, name) is not None]
        require(len(given) == 1, f"just one of corpus, path and texts must be given, found {', '.join(given) or 'none'}")
        require(self.before > 0 and self.longest > 0, f"before and longest must be > 0, found {self.before} and {self.longest}")
        require(0 <= self.middle <= 1, f"middle must lie in [0, 1], found {self.middle}")
        require(0 <= self.held_out < 1, f"held_out must lie in [0, 1), found {self.held_out}")
        require("{before}" in self.form, f"form must hold {{before}}, found {self.form!r}")
        require("{before}" in self.form_middle and "{after}" in self.form_middle, "form_middle must hold {before} and {after}")

    def open(self, context: Context) -> Cycled:
        """Return the questions in the order of the streams (seed, "prompts/segments", epoch).

        Raises:
            InputError: when there is no text to ask about, or the model reads none.
        """
        from outlay.prompts.file import Cycled
        from outlay.sources.prompts import tokenizer_of
        from outlay.sources.rows import is_held_out

        tokenizer_of(context, "prompts/segments")
        asked = [question for text in self._texts() if not is_held_out(text, self.held_out) for question in self.questions(text)]
        if not asked:
            raise InputError("no text has two segments to make a question of; look at unit and longest")
        return Cycled(asked, context.seed, "prompts/segments")

    def questions(self, text: str) -> list[Question]:
        """Return the questions that a text makes."""
        segments = [part.strip() for part in _ENDS[self.unit].split(text) if part.strip()]
        made: list[Question] = []
        for i in range(1, len(segments)):
            if len(segments[i]) > self.longest:
                continue
            before = " ".join(segments[max(0, i - self.before) : i])
            # i * middle passes a whole number once in 1 / middle segments
            inside = int(i * self.middle) > int((i - 1) * self.middle) and i + 1 < len(segments)
            shown = self.form_middle.format(before=before, after=segments[i + 1]) if inside else self.form.format(before=before)
            made.append(Question(shown, segments[i], kind="middle" if inside else "next"))
        return made

    def _texts(self) -> Sequence[str]:
        if self.texts is not None:
            return self.texts
        if self.corpus is not None:
            from outlay.tasks.corpora import documents

            return [document.text for document in documents(self.corpus)]
        from outlay.sources.rows import file_paragraphs, file_rows

        assert self.path is not None
        if self.path.suffix == ".txt":
            return list(file_paragraphs(self.path))
        return [text for (text,) in file_rows(self.path, ("text",))]
