"""Writing: the rows of one generation, from the queue into places and out of them again."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from outlay.rollout.base import Completion, Ended, Leave, LogitsHook, Request, Sampling, Work
from outlay.rollout.choosing import StopText, choose, draw_uniforms
from outlay.rollout.passes import Passes, Prefix

#: prompt positions read in one piece, unless a single prompt is longer
PIECE = 16_384


@dataclass
class Group:
    """Everybody with the same prompt.

    Args:
        prompt: its tokens.
        waiting: rows that have not begun.
        to_write: new tokens of all its rows at most.
        prefix: the prompt once it was read, as long as rows wait for it.
    """

    prompt: tuple[int, ...]
    waiting: int = 0
    to_write: int = 0
    prefix: Prefix | None = None


@dataclass(frozen=True)
class Row:
    """A completion to be written; the fields are those of ``Request`` and ``Completion``."""

    request: int
    sample: int
    limit: int
    stream: int
    group: Group


@dataclass
class Table:
    """The rows being written, in places 0 to ``len(rows)`` - 1 of ``passes``.

    All write into the same column at the same time, column ``clock`` modulo the longest limit: one slice a step however old the rows are. Row
    i wrote its first token when the clock stood at ``began[i]``. ``tokens``, ``logprobs`` and ``uniforms`` are (places, width).

    Args:
        passes: the model.
        places: rows at most.
        width: the longest limit.
        model: for its device.
        clock: steps so far.
        rows: those that write, in the order of their places.
        began: clock at each row's first token.
        due: clock at which the first row reaches its limit.
    """

    passes: Passes
    places: int
    width: int
    model: nn.Module
    clock: int = 0
    rows: list[Row] = field(default_factory=list)
    began: list[int] = field(default_factory=list)
    due: int = 0

    def __post_init__(self) -> None:
        device = next(self.model.parameters()).device
        wide = torch.float64 if device.type != "mps" else torch.float32
        self.tokens = torch.zeros(self.places, self.width, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(self.places, self.width, dtype=wide, device=device)
        self.uniforms = torch.zeros(self.places, self.width, dtype=wide, device=device)

    @property
    def column(self) -> int:
        """The column of the newest tokens."""
        return self.clock % self.width

    def seat(self, rows: Sequence[Row], uniforms: Sequence[torch.Tensor], tokens: torch.Tensor, logprobs: torch.Tensor) -> None:
        """Let rows that have chosen their first token write on."""
        first = len(self.rows)
        places = slice(first, first + len(rows))
        self.passes.seat(first, [row.group.prefix for row in rows])  # type: ignore[misc]
        own = torch.stack([functional.pad(each, (0, self.width - len(each))) for each in uniforms])
        self.uniforms[places] = own.to(self.uniforms).roll(self.column, 1)
        self.tokens[places, self.column] = tokens
        self.logprobs[places, self.column] = logprobs.to(self.logprobs)
        self.rows += rows
        self.began += [self.clock] * len(rows)
        self._reckon()

    def written(self, place: int) -> list[int]:
        """Return the tokens of the row in a place."""
        return self._since(self.tokens, place)

    def completion(self, place: int, ended: Ended) -> Completion:
        """Return what the row in a place has written."""
        row = self.rows[place]
        return Completion(row.request, row.sample, tuple(self.written(place)), tuple(self._since(self.logprobs, place)), ended)

    def _since(self, buffer: torch.Tensor, place: int) -> list[Any]:
        whole, first = buffer[place].tolist(), self.began[place] % self.width
        return (whole[first:] + whole[:first])[: self.clock - self.began[place] + 1]

    def leave(self, places: Sequence[int]) -> None:
        """Let rows go; those in the last places move up into the gaps."""
        gone, left = set(places), len(self.rows) - len(places)
        source = [place for place in range(left, len(self.rows)) if place not in gone]
        to = [place for place in sorted(gone) if place < left]
        self.passes.close_up(to, source, left)
        if to:
            goal, origin = (torch.tensor(places, device=self.tokens.device) for places in (to, source))
            for buffer in (self.tokens, self.logprobs, self.uniforms):
                buffer[goal] = buffer[origin]
            for new, old in zip(to, source, strict=True):
                self.rows[new], self.began[new] = self.rows[old], self.began[old]
        del self.rows[left:], self.began[left:]
        self._reckon()

    def _reckon(self) -> None:
        self.due = min((began + row.limit - 1 for began, row in zip(self.began, self.rows, strict=True)), default=0)


@dataclass
class Writing:
    """One call of ``generate``.

    Args:
        requests: what is wanted.
        sampling: how tokens are chosen.
        seed: root of the samples' random streams.
        leave: asked before each piece of work.
        hooks: change logits.
        end: the end mark; None for none.
        stop: finds stop strings; None for none.
        table: empty, for the rows.
    """

    requests: Sequence[Request]
    sampling: Sampling
    seed: int
    leave: Leave
    hooks: Sequence[LogitsHook]
    end: int | None
    stop: StopText | None
    table: Table

    def run(self) -> list[Completion]:
        """Return the completions in order of (request, sample)."""
        self.done: dict[tuple[int, int], Completion] = {}
        self.queue = _in_order(self.requests)
        table, enough = self.table, max(1, self.table.places // 8)
        while self.queue or table.rows:
            if self.queue and (not table.rows or table.places - len(table.rows) >= enough):
                going = self._begin()
            else:
                going = self._go_on()
            if not going:
                break
        for place in range(len(table.rows)):
            self._finished(table.completion(place, "cut"))
        for row in self.queue:
            self._finished(Completion(row.request, row.sample, (), (), "cut"))
        return [self.done[key] for key in sorted(self.done)]

    def _begin(self) -> bool:
        """Read prompts and write the first token of their rows."""
        rows, prompts = self._next()
        if not self.leave(Work(prompt_tokens=sum(len(group.prompt) for group in prompts), new_tokens=len(rows), rollouts=len(rows))):
            return False
        for _ in rows:
            self.queue.popleft()
        if prompts:
            for group, prefix in zip(prompts, self.table.passes.read([group.prompt for group in prompts]), strict=True):
                group.prefix = prefix
        uniforms = [draw_uniforms(self.seed, row.stream, row.sample, row.limit) for row in rows]
        logits = torch.stack([row.group.prefix.logits for row in rows if row.group.prefix is not None])
        logits = self._hooked(logits, rows, [[]] * len(rows)) if self.hooks else logits
        chosen, logprobs = choose(logits, self.sampling, torch.stack([own[0] for own in uniforms]).to(logits.device))
        tokens, scores = chosen.tolist(), logprobs.tolist()
        ends = self._ends(rows, [[token] for token in tokens])
        for row, token, score, ended in zip(rows, tokens, scores, ends, strict=True):
            if ended:
                self._finished(Completion(row.request, row.sample, (token,), (score,), ended))
        on = [i for i, ended in enumerate(ends) if not ended]
        if on:
            self.table.seat([rows[i] for i in on], [uniforms[i] for i in on], chosen[on], logprobs[on])
        for row in rows:
            row.group.waiting -= 1
            if not row.group.waiting:
                row.group.prefix = None  # nobody will need it any more
        return True

    def _next(self) -> tuple[list[Row], list[Group]]:
        """Return the rows that come next and, of their prompts, those to be read."""
        rows: list[Row] = []
        prompts: list[Group] = []
        seen: set[int] = set()
        positions = 0
        free, mixed = self.table.places - len(self.table.rows), self.table.passes.mixed
        for row in self.queue:
            group = row.group
            if len(rows) == free:
                break
            if group.prefix is None and id(group) not in seen:
                if prompts and (positions + len(group.prompt) > PIECE or not (mixed or len(group.prompt) == len(prompts[0].prompt))):
                    break
                seen.add(id(group))
                prompts.append(group)
                positions += len(group.prompt)
            rows.append(row)
        return rows, prompts

    def _go_on(self) -> bool:
        """Write one more token of every row."""
        table, count = self.table, len(self.table.rows)
        if not self.leave(Work(new_tokens=count, read_tokens=count)):
            return False
        logits = table.passes.advance(table.tokens[:count, table.column])
        if self.hooks:
            logits = self._hooked(logits, table.rows, [table.written(place) for place in range(count)])
        table.clock += 1
        column = table.column
        chosen, logprobs = choose(logits, self.sampling, table.uniforms[:count, column])
        table.tokens[:count, column] = chosen
        table.logprobs[:count, column] = logprobs
        if self.stop is None and table.clock < table.due and (self.end is None or not bool((chosen == self.end).any())):
            return True
        if self.stop is None:
            ended_now = chosen.tolist()
            written: list[list[int]] = [[token] for token in ended_now]
        else:
            written = [table.written(place) for place in range(count)]
        ends = self._ends(table.rows, written, table)
        gone = [place for place, ended in enumerate(ends) if ended]
        for place in gone:
            self._finished(table.completion(place, ends[place]))  # type: ignore[arg-type]
        if gone:
            table.leave(gone)
        return True

    def _ends(self, rows: Sequence[Row], written: Sequence[Sequence[int]], table: Table | None = None) -> list[Ended | None]:
        """Say of every row how it has just ended, or None; ``written`` holds its tokens up to the newest, the last alone without stop strings."""
        stopped = self.stop.ended(written) if self.stop else [False] * len(rows)
        found: list[Ended | None] = []
        for place, (row, tokens) in enumerate(zip(rows, written, strict=True)):
            count = table.clock - table.began[place] + 1 if table else 1
            if tokens[-1] == self.end:
                found.append("end")
            elif stopped[place]:
                found.append("stop")
            else:
                found.append("limit" if count == row.limit else None)
        return found

    def _hooked(self, logits: torch.Tensor, rows: Sequence[Row], written: Sequence[Sequence[int]]) -> torch.Tensor:
        for hook in self.hooks:
            logits = hook(logits, [(row.request, row.sample) for row in rows], written)
        return logits

    def _finished(self, completion: Completion) -> None:
        self.done[completion.request, completion.sample] = completion


def _in_order(requests: Sequence[Request]) -> deque[Row]:
    """Return the rows prompt by prompt, those with the most to write for each position to read first."""
    groups: dict[tuple[int, ...], Group] = {}
    rows: dict[int, list[Row]] = {}
    for number, request in enumerate(requests):
        group = groups.setdefault(request.prompt, Group(request.prompt))
        group.waiting += request.samples
        group.to_write += request.samples * request.limit
        mine = [Row(number, sample, request.limit, request.stream, group) for sample in range(request.samples)]
        rows.setdefault(id(group), []).extend(mine)
    ordered = sorted(groups.values(), key=lambda group: (-group.to_write / len(group.prompt), len(group.prompt)))
    return deque(row for group in ordered for row in rows[id(group)])
