"""The contract of sources."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from outlay.context import Context
from outlay.errors import InputError
from outlay.sources.base import IGNORED, Batch, Source, Stream
from outlay.testing.common import global_generators_untouched, hold, same
from outlay.testing.plain import check_resumable


def check_source(
    make: Callable[[], Source], context: Context, count: int = 7, reach: int = 2000, *, by_batch: bool = False, far: int = 3_000_000
) -> None:
    """Check the source seam: reading, resuming, sharing among processes, order, and that nothing held out is ever trained on.

    Args:
        make: returns a source, described alike each time.
        context: seed, tokenizer; its rank and world are set by the check.
        count: examples a batch, > 1; a source must hold several.
        reach: how many training examples are compared with the held-out ones.
        by_batch: whether the order may depend on how the examples are divided into batches, as where a teacher chooses for each batch.
        far: how many examples lie before the cursor that is compared with one at the start, > 0.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    context = dataclasses.replace(context, rank=0, world=1)
    name = type(make()).__name__
    hold(isinstance(make(), Source), "a source has units, open and held_out", f"{name} lacks one of them")
    make().open(context)  # the first time may import packages, and some of those draw as they are imported
    with global_generators_untouched(name):
        stream = make().open(context)
        order = _keys(stream.draw(3 * count))
        hold(len(order) == 3 * count, "draw returns as many examples as were asked for", f"{name} returned {len(order)}, not {3 * count}")
        hold(same(stream.draw(count), stream.draw(count)), "drawing twice gives the same", f"two draws of {name} differ")
        hold(
            by_batch or _keys(_pieces(stream, count)) == order,
            "reading in pieces equals reading at once",
            f"{name} gave other examples or another order",
        )
    check_resumable(lambda: make().open(context), lambda part, step: part.advance(step + 1), lambda part: part.draw(count), steps=3)
    _check_far(make().open(context), name, far)
    _check_ranks(make, context, count)
    _check_order(make, context, order)
    _check_held_out(make(), context, reach)


def _pieces(stream: Stream, count: int) -> list[Batch]:
    read = []
    for size in (1, count - 1, 2 * count):
        read.append(stream.draw(size))
        stream.advance(size)
    return read


def _keys(batches: Batch | list[Batch]) -> list[bytes]:
    """One key an example: all its columns without the padding, since how far a row is padded depends on its neighbours."""
    return [key for batch in (batches if isinstance(batches, list) else [batches]) for key in map(_key, _examples(batch))]


def _examples(batch: Batch) -> list[Batch]:
    mask = batch.get("attention_mask")
    rows = [{name: column[i] for name, column in batch.items()} for i in range(len(next(iter(batch.values()))))]
    if mask is None:
        return rows
    return [
        {name: value[row["attention_mask"].bool()] if value.shape == mask.shape[1:] else value for name, value in row.items()}
        for row in rows
    ]


def _key(row: Batch) -> bytes:
    return b"".join(name.encode() + str(row[name].dtype).encode() + row[name].contiguous().numpy().tobytes() for name in sorted(row))


def _question(row: Batch) -> bytes:
    """What identifies an example: its prompt where only a part of the text is labelled, else all that goes in."""
    ids, labels = row.get("input_ids"), row.get("labels")
    if ids is not None and labels is not None and labels.shape == ids.shape and bool((labels == IGNORED).any()):
        return _key({"input_ids": ids[labels == IGNORED]})
    return _key({name: column for name, column in row.items() if name != "labels"})


def _check_far(stream: Stream, name: str, far_away: int) -> None:
    near = stream.state_dict()
    stream.advance(far_away)
    far = stream.state_dict()

    def seconds(state: Mapping[str, Any], elsewhere: Mapping[str, Any]) -> float:
        taken = []
        for _ in range(3):
            stream.load_state_dict(elsewhere)
            stream.draw(1)
            begin = time.process_time()
            stream.load_state_dict(state)
            stream.draw(1)
            taken.append(time.process_time() - begin)
        return min(taken)

    taken = seconds(near, far), seconds(far, near)
    seen = f"{name} took {taken[0]:.4f} s of processor time at the start and {taken[1]:.4f} s past {far_away} examples"
    hold(taken[1] <= 20 * taken[0] + 0.05, "going to a saved cursor takes the same time wherever it lies", seen)


def _check_ranks(make: Callable[[], Source], context: Context, count: int) -> None:
    for world in (2, 3):
        alone = make().open(context)
        streams = [make().open(dataclasses.replace(context, rank=rank, world=world)) for rank in range(world)]
        for size in (world * 2, 3 * count - world * 2):
            order = _keys(alone.draw(size))
            parts = [_keys(stream.draw(size)) for stream in streams]
            sizes = [len(part) for part in parts]
            fair = [len(range(rank, size, world)) for rank in range(world)]
            hold(sizes == fair, "the processes share a batch exactly", f"of {size} examples {world} processes got {sizes}, not {fair}")
            together = [parts[i % world][i // world] for i in range(size)]
            hold(together == order, "process r of w gets examples r, r + w, ... of the batch", f"{world} processes gave other examples")
            for stream in (alone, *streams):
                stream.advance(size)


def _check_order(make: Callable[[], Source], context: Context, order: list[bytes]) -> None:
    make().open(dataclasses.replace(context, seed=context.seed + 1)).draw(2)
    again = _keys(make().open(context).draw(len(order)))
    hold(again == order, "the same seed gives the same order, whatever was built before", f"{type(make()).__name__} gave another")
    others = [_keys(make().open(dataclasses.replace(context, seed=context.seed + k)).draw(len(order))) for k in (1, 2, 3)]
    hold(any(other != order for other in others), "another seed gives another order", f"{type(make()).__name__} gave one order for 4 seeds")


def _check_held_out(source: Source, context: Context, reach: int) -> None:
    try:
        kept = source.held_out(context)
    except InputError:
        return  # it keeps none back, and says so
    aside = {_question(row) for row in _examples(kept.collate(range(len(kept))))}
    stream = source.open(context)
    for _ in range(0, reach, 100):
        shared = [row for row in _examples(stream.draw(100)) if _question(row) in aside]
        hold(not shared, "held-out examples are never trained on", f"{type(source).__name__} yields one that is held out: {shared[:1]}")
        stream.advance(100)
