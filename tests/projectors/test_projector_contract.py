"""Every projector keeps the contract, alone and in an optimizer; every rule of the contract refuses a projector that breaks it."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch

from outlay.catalog import build, describe, listing, methods_of
from outlay.errors import Problem
from outlay.layout import Layout, Shape, Slot, State
from outlay.optim import Subspace
from outlay.projectors import Blocks, Columns, Dct, Entries, Gaussian, Orthonormal, Place, Projector, RandomisedSvd, Rows, Svd
from outlay.testing import check_optimizer, check_projector

ALL: list[Any] = [
    Svd(2), RandomisedSvd(2, 1), RandomisedSvd(), Orthonormal(2), Orthonormal(), Gaussian(2), Gaussian(2, stored=True), Dct(2), Dct(2, "l2", True),
    Columns(0.5), Rows(0.5), Entries(0.3), Columns(0), Rows(1), Entries(0), Blocks(0), Blocks(0.5), Blocks(0.7, "mirror"), Blocks(1),
]  # fmt: skip


@pytest.mark.parametrize("projector", ALL, ids=repr)
def test_contract(projector: Projector) -> None:
    check_projector(projector)


@pytest.mark.parametrize("projector", ALL, ids=repr)
def test_whole_optimizers(projector: Projector) -> None:
    # with a period of 1 the state has been at its largest when all of its sizes have been seen
    steps = projector.rounds(2) if isinstance(projector, Blocks) else 1
    check_optimizer(Subspace(projector, period=1, moments="reset"), steps=steps)
    if not isinstance(projector, Blocks):
        check_optimizer(Subspace(projector, period=2))


@pytest.mark.parametrize("projector", [one for one in ALL if hasattr(one, "turn")], ids=repr)
def test_whole_optimizers_with_moments_that_turn(projector: Projector) -> None:
    check_optimizer(Subspace(projector, period=2, moments="rotate"))


@pytest.mark.parametrize("projector", [Gaussian(2), Entries(0.5), Blocks(0.5)], ids=repr)
def test_moments_are_not_turned_where_nothing_tells_how(projector: Projector) -> None:
    with pytest.raises(ValueError, match=f"moments cannot be rotated by {type(projector).__name__} with Adam"):
        Subspace(projector, moments="rotate")


@pytest.mark.parametrize("entry", listing("projectors"), ids=lambda entry: entry.name)
def test_every_projector_is_built_described_and_documented(entry: Any) -> None:
    cls: Any = methods_of("projectors")[entry.name.split("/")[1]]
    problems: list[Problem] = []
    assert build(Projector, json.loads(json.dumps(describe(cls()))), "", problems) == cls()
    assert problems == []
    assert entry.title == cls.title and entry.paper is not None
    assert cls.__doc__ is not None and all(f"{field.name}:" in cls.__doc__ for field in entry.fields)


# ---- projectors with one fault ----------------------------------------------------------------------------------------------------------


class Word(Orthonormal):
    def turns(self, shape: Shape) -> Any:
        return "wide"


class Larger(Orthonormal):
    def layout(self, shape: Shape, place: Place) -> Layout:
        return {"rows": Slot((self.rank + 1, shape[1]))}


class OtherType(Orthonormal):
    def layout(self, shape: Shape, place: Place) -> Layout:
        return {"rows": Slot((self.rank, shape[1]), torch.float64)}


class Unrepeatable(Orthonormal):
    calls = count()

    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        super().refresh(state, g, replace(place, seed=next(self.calls)))


class Remembering(Orthonormal):
    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        super().refresh(state, g, place)
        place.tables["mean"] = g.abs().mean()

    def down(self, state: State, g: torch.Tensor, place: Place) -> torch.Tensor:
        return super().down(state, g, place) * place.tables.get("mean", 1)


class Littering(Orthonormal):
    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        super().refresh(state, g, place)
        place.tables["mean"] = g.abs().mean()


class Unstated(Dct):
    def tables(self, shapes: list[Shape]) -> Layout:
        return {name: Slot((1,)) for name in super().tables(shapes)}


class Overwriting(Orthonormal):
    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        super().refresh(state, g, place)
        g[0, 0] = 0


class Dividing(Orthonormal):
    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        super().refresh(state, g, place)
        state["rows"] = state["rows"] * (g.norm() / g.norm())


class Swapped(Orthonormal):
    def small(self, shape: Shape, place: Place) -> Shape:
        return super().small(shape, place)[::-1]


class DownInDouble(Orthonormal):
    def down(self, state: State, g: torch.Tensor, place: Place) -> torch.Tensor:
        return super().down(state, g, place).double()


class DownBent(Orthonormal):
    def down(self, state: State, g: torch.Tensor, place: Place) -> torch.Tensor:
        r = super().down(state, g, place)
        return r * r.norm()


class UpFlat(Orthonormal):
    def up(self, state: State, r: torch.Tensor, shape: Shape, place: Place) -> torch.Tensor:
        return super().up(state, r, shape, place).flatten()


class UpInDouble(Orthonormal):
    def up(self, state: State, r: torch.Tensor, shape: Shape, place: Place) -> torch.Tensor:
        return super().up(state, r, shape, place).double()


class UpBent(Orthonormal):
    def up(self, state: State, r: torch.Tensor, shape: Shape, place: Place) -> torch.Tensor:
        return super().up(state, r * r.norm(), shape, place)


class Long(Orthonormal):
    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        super().refresh(state, g, place)
        state["rows"] = state["rows"] * 1.1


class LongAndSaysSo(Long):
    inverts = False


class Rounding(Orthonormal):
    def up(self, state: State, r: torch.Tensor, shape: Shape, place: Place) -> torch.Tensor:
        state["rows"].copy_(state["rows"].round(decimals=5))
        return super().up(state, r, shape, place)


class Sharing(Blocks):
    def up(self, state: State, r: torch.Tensor, shape: Shape, place: Place) -> torch.Tensor:
        return r


class TurningBack(Orthonormal):
    def turn(self, old: State, new: State, place: Place) -> torch.Tensor:
        return super().turn(old, new, place).T


class InPlace(Orthonormal):
    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        kept = state["rows"]
        super().refresh(state, g, place)
        state["rows"] = kept.copy_(state["rows"])


class Changing(Orthonormal):
    """Has one direction in even rounds and two in odd ones."""

    def of(self, place: Place) -> Orthonormal:
        return Orthonormal(1 + place.round % 2)

    def layout(self, shape: Shape, place: Place) -> Layout:
        return self.of(place).layout(shape, place)

    def small(self, shape: Shape, place: Place) -> Shape:
        return self.of(place).small(shape, place)

    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        self.of(place).refresh(state, g, place)


class ChangingAndSaysSo(Changing):
    def rounds(self, count: int) -> int:
        return 2


class SameRound(Orthonormal):
    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        super().refresh(state, g, replace(place, round=0))


class SameName(Orthonormal):
    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        super().refresh(state, g, replace(place, name="w"))


class Global(Orthonormal):
    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        super().refresh(state, g, place)
        torch.rand(1)


@pytest.mark.parametrize(
    ("projector", "rule"),
    [
        (object(), "a projector has turns, layout, small, refresh, down and up"),
        (Word(2), "turns says true or false"),
        (Larger(2), r"what is kept is what was laid out; Larger\(rank=2\) for \(6, 4\) in torch.float32 at p0.weight in round 0"),
        (OtherType(2), "what is kept is what was laid out"),
        (Unrepeatable(2), "the same gradient and place give the same choice"),
        (Remembering(2), "what is kept and a place are enough to go on, bit by bit"),
        (Littering(2), "tables are as stated"),
        (Unstated(2), "tables are as stated"),
        (Overwriting(2), "the gradient is not written to"),
        (Dividing(2), "a gradient of zero has coordinates of zero"),
        (Swapped(2), "down's result has the shape that small states"),
        (DownInDouble(2), "coordinates are in the gradient's type"),
        (DownBent(2), "down is linear"),
        (UpFlat(2), "up's result has the matrix's shape"),
        (UpInDouble(2), "a lifted matrix is in the coordinates' type"),
        (UpBent(2), "up is linear"),
        (Long(2), r"down\(up\(R\)\) = R, unless the class says otherwise by inverts = False"),
        (Rounding(2), "neither map writes to what is kept"),
        (Sharing(1.0), "up's result is a tensor of its own"),
        (TurningBack(2), "turn tells old coordinates in new ones"),
        (InPlace(2), "a new choice replaces what is kept"),
        (Changing(), "sizes repeat after the stated rounds, after one without any"),
        (SameRound(2), "a random projector draws anew for every round"),
        (SameName(2), "a random projector draws anew for every name"),
        (Global(2), "never from a global generator"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_broken_projectors_are_refused(projector: Any, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_projector(projector)


@pytest.mark.parametrize("projector", [LongAndSaysSo(2), ChangingAndSaysSo()], ids=repr)
def test_what_a_class_says_of_itself_is_no_fault(projector: Projector) -> None:
    check_projector(projector)
