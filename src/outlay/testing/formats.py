"""The contract of number formats."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from outlay.formats.base import Format, Lists
from outlay.layout import Slots
from outlay.rng import torch_generator
from outlay.testing.common import global_generators_untouched, hold

#: a scalar, nothing, less than a block, several blocks and a rest, and no block at all along the last axis
SHAPES: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (7,), (3, 5), (2, 33), (2, 3, 70), (3, 0, 2), (5, 130))
DRAWS = 200


def check_format(form: Format, signed: bool = True, cuts: bool = False, shapes: Sequence[Sequence[int]] = SHAPES) -> None:
    """Check the format seam: what is kept, rounding to the nearest value and at random, zeros, signs, and repetition.

    Args:
        form: what is checked.
        signed: whether it takes negative numbers; if so its values lie evenly about 0.
        cuts: whether it may cut off the largest elements of a group; those are left out where randomly rounded values are averaged.
        shapes: of the tensors it is tried on.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    with global_generators_untouched(type(form).__name__):
        for number, shape in enumerate(shapes):
            x = _spread(tuple(shape), number, signed)
            _check_kept(form, x)
            _check_again(form, x)
            _check_zeros(form, x)
            if signed:
                same = torch.equal(_through(form, -x), -_through(form, x))
                hold(same, "a negative number is kept as its opposite is", f"not so for {tuple(shape)}")
            _check_listed(form, x)
        _check_random(form, _spread((4, 60), len(shapes), signed), cuts)


def _spread(shape: tuple[int, ...], number: int, signed: bool) -> torch.Tensor:
    """Numbers over some decades, with zeros among them."""
    draw = torch_generator(0, "contracts/formats", number)
    x = torch.randn(shape, generator=draw) * 10 ** (torch.rand(shape, generator=draw) * 3 - 2)
    x = torch.where(torch.rand(shape, generator=draw) < 0.1, 0.0, x)
    return x if signed else x.abs()


def _through(form: Format, x: torch.Tensor, draw: torch.Generator | None = None) -> torch.Tensor:
    return form.decode(form.encode(x, draw), tuple(x.shape))


def _check_kept(form: Format, x: torch.Tensor) -> None:
    shape, before = tuple(x.shape), x.clone()
    stated = {name: (slot.shape, slot.dtype) for name, slot in form.layout(shape).items()}
    for draw in (None, torch_generator(0, "contracts/rounding")):
        for given in (x, x.double(), x.bfloat16()):
            kept = form.encode(given, draw)
            found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in kept.items()}
            hold(found == stated, "layout is exact", f"for {shape} {found} is kept and {stated} stated")
            back = form.decode(kept, shape)
            hold(
                back.shape == x.shape and back.dtype == torch.float32,
                "decode returns the tensor in single precision",
                f"{tuple(back.shape)} in {back.dtype} came back for {shape}",
            )
    hold(torch.equal(x, before), "what is encoded stays as it is", f"an element of {shape} changed")


def _check_again(form: Format, x: torch.Tensor) -> None:
    for draw in (None, torch_generator(0, "contracts/rounding")):
        back = _through(form, x, draw)
        # rounded at random, the largest element may have got smaller and the scale with it: only the second pass has to stand
        back = back if draw is None else _through(form, back)
        again = _through(form, back)
        hold(torch.equal(back, again), "encoding what was decoded changes nothing", f"{back} became {again}")
    one, two = (_through(form, x, torch_generator(1, "contracts/rounding")) for _ in range(2))
    hold(torch.equal(one, two), "the same stream rounds the same way", f"{one} and {two}")


def _check_zeros(form: Format, x: torch.Tensor) -> None:
    shape = tuple(x.shape)
    for draw in (None, torch_generator(0, "contracts/rounding")):
        back = _through(form, x, draw)
        hold(not back[x == 0].any(), "zero stays zero", f"{x} became {back}")
        hold(not _through(form, torch.zeros(shape), draw).any(), "zero stays zero", f"a tensor of zeros, {shape}, became another one")
    kept = Slots({}, "")
    kept.fill(form.layout(shape), x)
    hold(not form.decode(kept, shape).any(), "what is all zero decodes to zeros", f"not so for {shape}")


def _check_listed(form: Format, x: torch.Tensor) -> None:
    """By brute force over all values, for formats that list them."""
    if not isinstance(form, Lists) or x.numel() > 100:
        return
    shape = tuple(x.shape)
    kept = form.encode(x)
    back, every = form.decode(kept, shape), form.values(kept, shape)
    if every.shape[0] > 2000:
        return
    hold(bool((every == back).any(0).all()), "what is decoded is among the listed values", f"{back} of {x} is not")
    best = (every - x).abs().min(0).values
    worse = (back - x).abs() - best
    # differences of single-precision numbers are rounded
    hold(bool((worse <= 1e-6 * (x.abs() + best)).all()), "rounding goes to the nearest value", f"{x} became {back}")


def _check_random(form: Format, x: torch.Tensor, cuts: bool) -> None:
    draw = torch_generator(0, "contracts/averages")
    seen = torch.stack([_through(form, x, draw) for _ in range(DRAWS)]).double()
    low, high, exact, near = seen.amin(0), seen.amax(0), x.double(), _through(form, x).double()
    between = ((seen == low) | (seen == high)).all(0)
    hold(bool(between.all()), "random rounding gives one of the two neighbours", f"{int((~between).sum())} elements took more values")
    cut = (low == high) & (exact.abs() > near.abs()) & (low == near) if cuts else torch.zeros_like(between)
    hold(float(cut.double().mean()) < 0.5, "most elements are within the range", f"{int(cut.sum())} of {x.numel()} were cut off")
    slack = 1e-6 * exact.abs()
    inside = (low - slack <= exact) & (exact <= high + slack) | (low == high)
    hold(
        bool(inside.all()),
        "random rounding gives one of the two neighbours",
        f"{exact[~inside]} lie outside of {low[~inside]}, {high[~inside]}",
    )
    gap = torch.where(low < high, high - low, (high - low).max())
    share = ((exact - low) / gap).clamp(0, 1)
    # five deviations of a mean, and what a rare neighbour that was never seen may hide
    allowed = gap * (5 * (share * (1 - share) / DRAWS).sqrt() + 12 / DRAWS) + slack
    off = ((seen.mean(0) - exact).abs() > allowed) & ~cut
    hold(not off.any(), "random rounding is right on average", f"{exact[off]} became {seen.mean(0)[off]} on average")
    wrong = (low < high) & ((near - exact).abs() > gap / 2 * (1 + 1e-6) + slack)
    hold(
        not wrong.any(), "rounding goes to the nearest value", f"{exact[wrong]} became {near[wrong]} between {low[wrong]} and {high[wrong]}"
    )
