"""The local engine: completions written in this process, with the model that is trained."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError, MissingExtra
from outlay.rollout.base import Completion, Ended, Leave, LogitsHook, Request, Sampling, Work
from outlay.rollout.choosing import StopText, choose, draw_uniforms
from outlay.rollout.columns import Room
from outlay.rollout.fused import FusedPasses, fuses
from outlay.rollout.passes import Passes, Prefix
from outlay.schedules.base import require

#: rows side by side and bytes of keys and values that an engine takes by itself
SLOTS, ROOM = 256, 2**30
#: prompt positions read in one piece, unless a single prompt is longer
PIECE = 16_384
#: the fused passes keep prompts once when they are so long on average and so many rows share them
SHARED_LENGTH, SHARED_TIMES = 96, 6


@dataclass(frozen=True)
class Local:
    """Write completions in this process, many rows side by side.

    A prompt is read once for everybody who asked for it, by one request or by several. Rows that end give up their places at once; places are
    taken by the next in the queue as soon as an eighth of them is free, prompt by prompt, those with the most to write for each position to
    read first (the order by decode/prefill ratio of the paper; what a completion becomes does not depend on it). The paper's prefixes that
    different prompts share in part are not used.

    Args:
        slots: rows generated side by side at most, > 0; None for as many as there are, up to 256 and to a GiB of keys and values. All at
            once is quickest: a batch that shrinks costs less than one that is filled up again.
        fast: compute Llama, Mistral, Qwen 2 and Qwen 3 in single or double precision from fused copies of their weights, refreshed by every
            call; False goes through the model's own forward, as every other model does. Both write the same up to rounding.
    """

    title: ClassVar[str] = "Local rollouts with shared prompts"
    paper: ClassVar[Paper | None] = Paper("2412.03594", "BatchLLM: Optimizing Large Batched LLM Inference with Global Prefix Sharing", 2024)

    slots: int | None = None
    fast: bool = True

    def __post_init__(self) -> None:
        require(self.slots is None or self.slots > 0, f"slots must be > 0 or None, found {self.slots}")

    def open(self, model: nn.Module, context: Context) -> LocalGenerator:
        """Return a generator for a causal language model of transformers, bare or with adapters.

        Raises:
            InputError: when it is no such model, or one whose attention cannot be masked row by row.
            MissingExtra: without transformers.
        """
        try:
            from outlay.rollout.cache import check_generates
        except ImportError:
            raise MissingExtra("transformers", "hf") from None
        check_generates(model)
        return LocalGenerator(model, context.tokenizer, self)


class LocalGenerator:
    """The local engine opened for a model; between calls nothing is kept but empty buffers.

    Args:
        model: causal language model; its weights may change between calls.
        tokenizer: for the end mark and for stop strings; None for neither.
        engine: the fields of the engine.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, engine: Local) -> None:
        self._model, self._tokenizer, self._engine = model, tokenizer, engine
        self._end: int | None = getattr(tokenizer, "eos_token_id", None)
        self._room = Room()

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, *, seed: int, leave: Leave, hooks: Sequence[LogitsHook] = ()
    ) -> list[Completion]:
        """Return every request's completions in order of (request, sample), with the weights as they are now.

        Raises:
            InputError: for a request that cannot be met; nothing has been spent then.
        """
        self._check(requests, sampling)
        if not requests:
            return []
        stop = StopText(self._tokenizer, sampling.stop) if sampling.stop else None
        places = min(self._slots(requests), sum(request.samples for request in requests))
        fast = self._engine.fast and fuses(self._model)
        # a model's own forward may keep tensors, which must stay fit for training; the fused passes keep none
        with torch.inference_mode() if fast else torch.no_grad(), evaluating(self._model):
            passes = self._fused(places, requests) if fast else self._plain(places, requests)
            table = _Table(passes, places, max(request.limit for request in requests), self._model)
            try:
                return _Writing(requests, sampling, seed, leave, hooks, self._end, stop, table).run()
            finally:
                self._room.release()

    def _slots(self, requests: Sequence[Request]) -> int:
        if self._engine.slots is not None:
            return self._engine.slots
        from outlay.rollout.cache import position_bytes

        longest = max(len(request.prompt) + request.limit for request in requests)
        return max(1, min(SLOTS, ROOM // (longest * position_bytes(self._model))))

    def _fused(self, places: int, requests: Sequence[Request]) -> Passes:
        prompts = {request.prompt for request in requests}
        read = sum(len(prompt) for prompt in prompts)
        copied = sum(len(request.prompt) * request.samples for request in requests)
        # shorter or less shared, a prompt is copied sooner than brought together
        share = read >= SHARED_LENGTH * len(prompts) and copied >= SHARED_TIMES * read
        longest = max(len(prompt) for prompt in prompts)
        return FusedPasses(
            self._model, self._room, places, longest, max(request.limit for request in requests), min(places, len(prompts)), share
        )

    def _plain(self, places: int, requests: Sequence[Request]) -> Passes:
        from outlay.rollout.cache import ModelPasses

        return ModelPasses(self._model, places, max(len(request.prompt) + request.limit for request in requests) - 1)

    def _check(self, requests: Sequence[Request], sampling: Sampling) -> None:
        from outlay.rollout.cache import longest_sequence

        vocabulary = self._model.get_input_embeddings().num_embeddings  # type: ignore[operator]
        longest = longest_sequence(self._model)
        for number, request in enumerate(requests):
            if not request.prompt or request.samples < 1 or request.limit < 1:
                found = f"{len(request.prompt)} tokens, {request.samples} samples and limit {request.limit}"
                raise InputError(f"request {number} needs at least one prompt token, sample and new token, found {found}")
            if not 0 <= min(request.prompt) <= max(request.prompt) < vocabulary:
                raise InputError(f"request {number} holds a token outside 0 to {vocabulary - 1}, the model's vocabulary")
            needed = len(request.prompt) + request.limit - 1  # the last token is not read
            if longest is not None and needed > longest:
                raise InputError(
                    f"request {number} takes {needed} positions and the model has {longest}; shorten its prompt of {len(request.prompt)} "
                    f"tokens or its limit of {request.limit}"
                )
        if sampling.stop and self._tokenizer is None:
            raise InputError(f"stop strings {sampling.stop} need a tokenizer, and the context has none")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while; each module goes back to its own."""
    trained = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in trained:
            module.training = True


@dataclass
class _Group:
    """Everybody with the same prompt."""

    prompt: tuple[int, ...]
    waiting: int = 0
    to_write: int = 0
    prefix: Prefix | None = None


@dataclass(frozen=True)
class _Row:
    """A completion to be written."""

    request: int
    sample: int
    limit: int
    stream: int
    group: _Group


@dataclass
class _Table:
    """The rows being written, in places 0 to ``len(rows)`` - 1 of ``passes``.

    All write into the same column at the same time, column ``clock`` modulo the longest limit: one slice a step however old the rows are. Row
    i wrote its first token when the clock stood at ``began[i]``.
    """

    passes: Passes
    places: int
    width: int
    model: nn.Module
    clock: int = 0
    rows: list[_Row] = field(default_factory=list)
    began: list[int] = field(default_factory=list)
    #: clock at which the first row reaches its limit
    due: int = 0

    def __post_init__(self) -> None:
        device = next(self.model.parameters()).device
        wide = torch.float64 if device.type != "mps" else torch.float32
        self.tokens = torch.zeros(self.places, self.width, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(self.places, self.width, dtype=wide, device=device)
        self.uniforms = torch.zeros(self.places, self.width, dtype=wide, device=device)

    @property
    def column(self) -> int:
        return self.clock % self.width

    def seat(self, rows: Sequence[_Row], uniforms: Sequence[torch.Tensor], tokens: torch.Tensor, logprobs: torch.Tensor) -> None:
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
class _Writing:
    """One call of ``generate``."""

    requests: Sequence[Request]
    sampling: Sampling
    seed: int
    leave: Leave
    hooks: Sequence[LogitsHook]
    end: int | None
    stop: StopText | None
    table: _Table

    def run(self) -> list[Completion]:
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

    def _next(self) -> tuple[list[_Row], list[_Group]]:
        """Return the rows that come next and, of their prompts, those to be read."""
        rows: list[_Row] = []
        prompts: list[_Group] = []
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

    def _ends(self, rows: Sequence[_Row], written: Sequence[Sequence[int]], table: _Table | None = None) -> list[Ended | None]:
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

    def _hooked(self, logits: torch.Tensor, rows: Sequence[_Row], written: Sequence[Sequence[int]]) -> torch.Tensor:
        for hook in self.hooks:
            logits = hook(logits, [(row.request, row.sample) for row in rows], written)
        return logits

    def _finished(self, completion: Completion) -> None:
        self.done[completion.request, completion.sample] = completion


def _in_order(requests: Sequence[Request]) -> deque[_Row]:
    """Return the rows prompt by prompt, those with the most to write for each position to read first."""
    groups: dict[tuple[int, ...], _Group] = {}
    rows: dict[int, list[_Row]] = {}
    for number, request in enumerate(requests):
        group = groups.setdefault(request.prompt, _Group(request.prompt))
        group.waiting += request.samples
        group.to_write += request.samples * request.limit
        mine = [_Row(number, sample, request.limit, request.stream, group) for sample in range(request.samples)]
        rows.setdefault(id(group), []).extend(mine)
    ordered = sorted(groups.values(), key=lambda group: (-group.to_write / len(group.prompt), len(group.prompt)))
    return deque(row for group in ordered for row in rows[id(group)])
