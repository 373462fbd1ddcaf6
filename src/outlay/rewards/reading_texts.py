"""Reading texts: what learned rewards share. Answers become padded tokens; folders of transformers become models that are whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from outlay.context import Context
from outlay.errors import InputError, MissingExtra
from outlay.models.quiet import no_progress_bar
from outlay.models.tokenizers import open_tokenizer
from outlay.rewards.base import Answer


def load_whole(kind: str, path: str, context: Context, dtype: str) -> tuple[Any, Any]:
    """Return the model in a folder or of a hub name, in evaluation mode on the run's device, and its tokenizer.

    Args:
        kind: transformers' class, such as ``AutoModelForSequenceClassification``.
        path: the folder.
        context: for the device.
        dtype: type of the weights.

    Raises:
        MissingExtra: without transformers.
        InputError: when there is no such model, or weights are missing that would be made up.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtra("transformers", "hf") from None
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # it warns of weights that it makes up; here that is an error of its own
    try:
        with no_progress_bar():
            model, about = getattr(transformers, kind).from_pretrained(path, dtype=getattr(torch, dtype), output_loading_info=True)
    except (OSError, ValueError) as error:
        raise InputError(f"no reward model at {path!r}; accepted: a folder or a hub name ({str(error).splitlines()[0]})") from error
    finally:
        transformers.logging.set_verbosity(level)
    missing = sorted(about["missing_keys"])
    if missing:
        raise InputError(
            f"{path!r} is no reward model: its folder has no {', '.join(missing[:3])}; give one that was exported with its head"
        )
    tokenizer = open_tokenizer(path)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model.to(context.device).eval(), tokenizer


def encoded(answers: Sequence[Answer], tokenizer: Any, special_tokens: bool, end_mark: bool) -> list[list[int]]:
    """Return the tokens of prompt and answer, with the end mark after answers that ended, where that is wanted and there is one."""
    texts = [answer.question.text + answer.text for answer in answers]
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=special_tokens)["input_ids"] if texts else []
    end = tokenizer.eos_token_id
    marked = [answer.ended and end_mark and end is not None for answer in answers]
    return [[*row, end] if mark and row[-1:] != [end] else list(row) for row, mark in zip(rows, marked, strict=True)]


def batches(rows: Sequence[Sequence[int]], size: int, padding: int, device: Any) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Yield the places of up to ``size`` rows of neighbouring lengths with their tokens and mask, (rows, tokens), padded on the right."""
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    for start in range(0, len(order), size):
        places = order[start : start + size]
        width = max(1, max(len(rows[place]) for place in places))
        ids = torch.full((len(places), width), padding, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for line, place in enumerate(places):
            ids[line, : len(rows[place])] = torch.tensor(rows[place], dtype=torch.long)
            mask[line, : len(rows[place])] = 1
        yield places, {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def longest_text(model: Any) -> int | None:
    """Return how many tokens the model can read; None where it does not say."""
    found = getattr(model.config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def prompts_and_answers(path: Path, use: str) -> list[tuple[str, str]]:
    """Return what a JSON Lines file holds, one object a line with ``prompt`` and ``answer``.

    Raises:
        InputError: when there is no such file, a line is something else, or it is empty; ``use`` says what it was wanted for.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"cannot read {use} from {path}: {error.strerror or error}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            pair = (entry["prompt"], entry["answer"])
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}, line {number}: {use} are JSON objects with prompt and answer, found {line[:80]!r}") from error
        if not all(isinstance(text, str) for text in pair):
            raise InputError(f"{path}, line {number}: prompt and answer must be texts, found {line[:80]!r}")
        found.append(pair)
    if not found:
        raise InputError(f"{path} holds no {use}")
    return found
