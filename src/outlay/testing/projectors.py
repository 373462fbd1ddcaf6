"""The contract of projectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from outlay.layout import Layout, Shape, Slots, State
from outlay.projectors.base import Cycles, Place, Projector, Shares, Turns
from outlay.rng import torch_generator
from outlay.testing.common import global_generators_untouched, hold, same

#: how far results may be from each other, of their size
NEAR = {torch.float32: 1e-4, torch.bfloat16: 0.05}
#: how many seeds, rounds and names are compared, and how many matrices there are
MANY, COUNT = 8, 4


def check_projector(projector: Projector, shapes: Sequence[tuple[int, int]] = ((6, 4), (4, 6), (5, 5))) -> None:
    """Check the projector seam: sizes as stated, linear both ways, and choices that follow from gradient, place and stream alone.

    A projector for which down(up(R)) = R does not hold says so by an attribute ``inverts`` of its class that is false. One that depends on the
    seed is random, and must then depend on the round and the name as well.

    Args:
        projector: what is checked.
        shapes: of the matrices, as parameters have them; a tall, a wide and a square one by default.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    name = type(projector).__name__
    hold(isinstance(projector, Projector), "a projector has turns, layout, small, refresh, down and up", f"{name} has not")
    with global_generators_untouched(name):
        for shape in shapes:
            turned = _turned(projector, shape)
            for dtype in NEAR:
                for index in range(COUNT):
                    for number in range(3):
                        place = Place(f"p{index}.weight", index, COUNT, number)
                        _check_kept(projector, _matrix(projector, shape, dtype), place)
                        _check_maps(projector, _matrix(projector, shape, dtype), place)
                        _check_turn(projector, _matrix(projector, shape, dtype), place)
            _check_sizes(projector, turned)
            _check_random(projector, _matrix(projector, shape, torch.float32))


def _turned(projector: Projector, shape: tuple[int, int]) -> Shape:
    turns = projector.turns(shape)
    hold(isinstance(turns, bool), "turns says true or false", f"{type(projector).__name__} for {shape} said {turns!r}")
    return shape[::-1] if turns else shape


def _matrix(projector: Projector, shape: tuple[int, int], dtype: torch.dtype, stream: str = "gradient") -> torch.Tensor:
    # turned matrices come as a view, as an optimizer hands them over
    g = torch.randn(shape, generator=torch_generator(0, f"contracts/{stream}")).to(dtype)
    return g.T if projector.turns(shape) else g


def _shape(g: torch.Tensor) -> Shape:
    return (g.shape[0], g.shape[1])


def _chosen(projector: Projector, g: torch.Tensor, place: Place) -> dict[str, torch.Tensor]:
    kept: dict[str, torch.Tensor] = {}
    state = Slots(kept, "")
    state.fill(projector.layout(_shape(g), place), g)
    projector.refresh(state, g, place)
    return kept


def _seen(projector: Projector, g: torch.Tensor, place: Place) -> str:
    return f"{projector!r} for {tuple(g.shape)} in {g.dtype} at {place.name} in round {place.round}"


def _laid_out(kept: State, layout: Layout, dtype: torch.dtype) -> bool:
    stated = {name: (tuple(slot.shape), slot.dtype or dtype) for name, slot in layout.items()}
    return {name: (tuple(value.shape), value.dtype) for name, value in kept.items()} == stated


def _check_kept(projector: Projector, g: torch.Tensor, place: Place) -> None:
    seen, before = _seen(projector, g, place), g.clone()
    kept = _chosen(projector, g, place)
    shown = {name: (tuple(value.shape), value.dtype) for name, value in kept.items()}
    hold(_laid_out(kept, projector.layout(_shape(g), place), g.dtype), "what is kept is what was laid out", f"{seen} kept {shown}")
    small = projector.down(kept, g, place)
    again = _chosen(projector, g, dataclasses.replace(place, tables={}))
    hold(same(kept, again), "the same gradient and place give the same choice", f"{seen} chose otherwise")
    rebuilt = projector.down(kept, g, dataclasses.replace(place, tables={}))
    hold(torch.equal(small, rebuilt), "what is kept and a place are enough to go on, bit by bit", f"{seen} went on otherwise")
    tables = projector.tables([_shape(g)]) if isinstance(projector, Shares) else {}
    hold(_laid_out(place.tables, tables, g.dtype), "tables are as stated", f"{seen} left {sorted(place.tables)}")
    hold(torch.equal(g, before), "the gradient is not written to", f"{seen} changed it")
    zero = torch.zeros_like(g)
    none = projector.down(_chosen(projector, zero, place), zero, place)
    hold(bool((none == 0).all()), "a gradient of zero has coordinates of zero", f"{seen} gave {none.tolist()}")


def _check_maps(projector: Projector, g: torch.Tensor, place: Place) -> None:
    seen, shape, kept = _seen(projector, g, place), _shape(g), _chosen(projector, g, place)
    before = {name: value.clone() for name, value in kept.items()}
    h = torch.randn(shape, generator=torch_generator(0, "contracts/other")).to(g.dtype)
    r, s = projector.down(kept, g, place), projector.down(kept, h, place)
    stated = projector.small(shape, place)
    hold(tuple(r.shape) == tuple(stated), "down's result has the shape that small states", f"{seen} gave {tuple(r.shape)}, not {stated}")
    hold(r.dtype == g.dtype, "coordinates are in the gradient's type", f"{seen} gave {r.dtype}")
    _hold_near(projector.down(kept, 2 * g - h, place), 2 * r - s, (r, s), "down is linear", seen)
    drawn = torch.randn(stated, generator=torch_generator(0, "contracts/coordinates")).to(g.dtype)
    copied = drawn.clone()
    up, other = projector.up(kept, drawn, shape, place), projector.up(kept, s, shape, place)
    hold(tuple(up.shape) == shape, "up's result has the matrix's shape", f"{seen} gave {tuple(up.shape)}")
    hold(up.dtype == g.dtype, "a lifted matrix is in the coordinates' type", f"{seen} gave {up.dtype}")
    _hold_near(projector.up(kept, 2 * drawn - s, shape, place), 2 * up - other, (up, other), "up is linear", seen)
    if getattr(type(projector), "inverts", True):
        rule = "down(up(R)) = R, unless the class says otherwise by inverts = False"
        _hold_near(projector.down(kept, up, place), drawn, (drawn,), rule, seen)
    up.fill_(torch.inf)
    untouched = torch.equal(drawn, copied) and same(kept, before)
    hold(untouched, "up's result is a tensor of its own, and neither map writes to what is kept", f"{seen} shares or changed it")


def _hold_near(found: torch.Tensor, expected: torch.Tensor, sizes: Sequence[torch.Tensor], rule: str, seen: str) -> None:
    off = (found.double() - expected.double()).norm().item() if found.shape == expected.shape else float("inf")
    size = sum(one.double().norm().item() for one in sizes)
    hold(off <= NEAR[found.dtype] * size, rule, f"{seen} is {off:.3g} off where sizes are {size:.3g}")


def _check_turn(projector: Projector, g: torch.Tensor, place: Place) -> None:
    if not isinstance(projector, Turns):
        return
    shape, later = _shape(g), dataclasses.replace(place, round=place.round + 1)
    new = _chosen(projector, g, place)
    old, copied = dict(new), {name: value.clone() for name, value in new.items()}
    h = torch.randn(shape, generator=torch_generator(0, "contracts/later")).to(g.dtype)
    projector.refresh(new, h, later)
    hold(same(old, copied), "a new choice replaces what is kept and does not write into it", f"{_seen(projector, g, place)} did")
    r = projector.down(old, g, place)
    turn = projector.turn(old, new, later).to(g.dtype)
    told = projector.down(new, projector.up(old, r, shape, place), later)
    _hold_near(r @ turn, told, (r,), "turn tells old coordinates in new ones", _seen(projector, g, later))


def _check_sizes(projector: Projector, shape: Shape) -> None:
    for count in (1, COUNT, COUNT + 1):
        rounds = projector.rounds(count) if isinstance(projector, Cycles) else 1
        for index in range(count):
            for number in range(max(rounds, MANY)):
                now, then = (Place(f"p{index}.weight", index, count, n) for n in (number, number + rounds))
                sizes = [(tuple(projector.small(shape, place)), projector.layout(shape, place)) for place in (now, then)]
                found = (
                    f"{projector!r} for {shape} at {index} of {count} has {sizes[0]} in round {number} and {sizes[1]} in {number + rounds}"
                )
                hold(sizes[0] == sizes[1], "sizes repeat after the stated rounds, after one without any", found)


def _check_random(projector: Projector, g: torch.Tensor) -> None:
    def choices(places: Sequence[Place]) -> int:
        results = (projector.down(_chosen(projector, g, place), g, place) for place in places)
        return len({(tuple(result.shape), result.contiguous().numpy().tobytes()) for result in results})

    if choices([Place("p.weight", seed=seed) for seed in range(MANY)]) == 1:
        return
    for what, places in {
        "round": [Place("p.weight", round=number) for number in range(MANY)],
        "name": [Place(f"p{number}.weight") for number in range(MANY)],
    }.items():
        found = f"{projector!r} for {tuple(g.shape)} differs by the seed and not by the {what}"
        hold(choices(places) > 1, f"a random projector draws anew for every {what}", found)
