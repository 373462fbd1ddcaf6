"""Columns, rows, entries and blocks: what is chosen, what is left, whose turn it is, and what state it takes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_matrices import chosen, coordinates, matrix, part
from torch import nn

from outlay.inner_rules import Adam
from outlay.layout import Slot
from outlay.optim import Subspace, follow
from outlay.projectors import Blocks, Columns, Entries, Place, Projector, Rows

SELECTIONS = [Columns, Rows, Entries]


@given(st.integers(1, 7), st.integers(1, 7), st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_chosen_ones_pass_whole_and_nothing_else_does(rows: int, columns: int, density: float, seed: int) -> None:
    g, place = matrix(rows, columns, seed) + 9, Place("w", seed=seed)
    for projector, total in ((Columns(density), columns), (Rows(density), rows), (Entries(density), rows * columns)):
        found = part(projector, g, place)
        passed = found != 0
        assert torch.equal(found, g * passed)
        assert int(passed.sum()) == int(density * total) * (rows * columns // total)
    for number, line in enumerate((part(Columns(density), g, place) != 0).T.tolist()):
        assert len(set(line)) == 1, number


def test_rows_are_columns_of_the_transpose() -> None:
    g = matrix(6, 5)
    assert torch.equal(part(Rows(0.6), g), part(Columns(0.6), g.T).T)


@pytest.mark.parametrize("projector", [Columns(0.4), Rows(0.4), Entries(0.4)], ids=repr)
def test_every_one_is_chosen_as_often(projector: Projector) -> None:
    g = torch.ones(5, 5, dtype=torch.float64)
    often = torch.stack([part(projector, g, Place("w", round=number)) for number in range(1000)]).mean(0)
    # the share of 0.4 within four standard deviations, sqrt(0.4 0.6 / 1000)
    assert (often - 0.4).abs().max() < 4 * (0.4 * 0.6 / 1000) ** 0.5


@pytest.mark.parametrize("projector", [Columns(0.5), Rows(0.5)], ids=repr)
def test_what_stays_keeps_its_moments(projector: Columns) -> None:
    g, places = matrix(7, 8), (Place("w"), Place("w", round=1))
    old, new = (chosen(projector, g, place) for place in places)
    moments = projector.down(old, g, places[0]) @ projector.turn(old, new, places[1]).double()
    both = set(old["indices"].tolist()) & set(new["indices"].tolist())
    assert 0 < len(both) < 4
    expected = [g[:, index] if index in both else torch.zeros(7, dtype=torch.float64) for index in new["indices"].tolist()]
    assert torch.equal(moments, torch.stack(expected, 1))


def test_numbers_of_entries_take_eight_bytes_in_the_largest_matrices() -> None:
    assert Entries(0.5).layout((2**16, 2**15), Place("w")) == {"indices": Slot((2**30,), torch.int32)}
    assert Entries(0.5).layout((2**16, 2**15 + 2), Place("w")) == {"indices": Slot((2**30 + 2**16,), torch.int64)}


def turns(projector: Blocks, count: int, rounds: int) -> list[list[int]]:
    places = [[Place(f"p{index}", index, count, number) for index in range(count)] for number in range(rounds)]
    return [[place.index for place in line if projector.small((3, 2), place) == (3, 2)] for line in places]


def test_matrices_have_their_turn_in_order() -> None:
    there = [[0, 1], [2, 3], [3, 4]]
    back = [[3, 4], [1, 2], [0, 1]]
    assert turns(Blocks(0.4, "ascending"), 5, 7) == [*there, *there, [0, 1]]
    assert turns(Blocks(0.4, "descending"), 5, 4) == [*back, [3, 4]]
    assert turns(Blocks(0.4, "mirror"), 5, 7) == [*there, *back, [0, 1]]
    assert [Blocks(0.4, order).rounds(5) for order in ("random", "ascending", "descending", "mirror")] == [3, 3, 3, 6]
    assert Blocks(0).rounds(5) == Blocks(1).rounds(5) == 1


def test_a_random_order_follows_its_seed_alone() -> None:
    orders = {tuple(map(tuple, turns(Blocks(0.25, seed=seed), 8, 4))) for seed in range(10)}
    assert len(orders) == 10
    of_runs = [[Blocks(0.25).active(Place("p", index, 8, 0, seed)) for index in range(8)] for seed in (0, 1)]
    assert of_runs[0] == of_runs[1]


@given(st.integers(1, 12), st.floats(0, 1), st.sampled_from(["random", "ascending", "descending", "mirror"]), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_as_many_are_active_in_every_round_and_all_in_a_pass(count: int, density: float, order: str, seed: int) -> None:
    projector = Blocks(density, order, seed)  # type: ignore[arg-type]
    rounds = projector.rounds(count)
    passes = turns(projector, count, 2 * rounds)
    assert {len(line) for line in passes} == {round(density * count)}
    assert passes[:rounds] == passes[rounds:]
    if round(density * count):
        half = rounds // 2 if order == "mirror" else rounds
        assert {index for line in passes[:half] for index in line} == set(range(count))


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_an_inactive_matrix_has_no_coordinates_and_an_active_one_all(density: float) -> None:
    g = matrix(4, 3)
    for index in range(3):
        place = Place("w", index, 3)
        small = coordinates(Blocks(density, "ascending"), g, place)
        active = index < round(3 * density)
        assert torch.equal(small, g if active else torch.zeros(0, dtype=torch.float64))
        assert torch.equal(part(Blocks(density, "ascending"), g, place), g if active else torch.zeros_like(g))


# ---- in optimizers -----------------------------------------------------------------------------------------------------------------


class Driven:
    """Matrices in an optimizer, driven by random gradients."""

    def __init__(self, spec: Subspace, shapes: list[tuple[int, int]]) -> None:
        self.weights = [nn.Parameter(matrix(*shape, seed=9 + number)) for number, shape in enumerate(shapes)]
        self.optimizer = spec.build([(f"{number}.weight", w) for number, w in enumerate(self.weights)])
        follow(self.optimizer, "lr", 0.01)
        self.draw = torch.Generator().manual_seed(0)

    def step(self) -> list[torch.Tensor]:
        for w in self.weights:
            w.grad = torch.randn(w.shape, generator=self.draw, dtype=w.dtype)
        self.optimizer.step()
        return [w.detach().clone() for w in self.weights]

    def moments(self) -> list[int]:
        return [sum(self.optimizer.state[w][f"inner.{name}"].numel() for name in "mv") for w in self.weights]


@pytest.mark.parametrize(("projector", "dim"), [(Columns(0.4), 0), (Rows(0.4), 1)], ids=repr)
def test_between_choices_only_the_chosen_move_and_not_a_bit_of_the_others(projector: Projector, dim: int) -> None:
    driven = Driven(Subspace(projector, period=4, moments="reset"), [(6, 5) if dim == 0 else (5, 6)])
    start = driven.weights[0].detach().clone()
    moved_by_round = []
    for _ in range(3):
        for _ in range(4):
            end = driven.step()[0]
        moved = (end != start).all(dim).nonzero().flatten().tolist()
        assert torch.equal((end != start).any(dim).nonzero().flatten(), torch.tensor(moved))
        assert len(moved) == 2
        moved_by_round.append(moved)
        start = end
    assert len(set(map(tuple, moved_by_round))) > 1


def test_entries_that_are_not_chosen_keep_every_bit() -> None:
    driven = Driven(Subspace(Entries(0.3), period=4, moments="reset"), [(6, 5)])
    start = driven.weights[0].detach().clone()
    for _ in range(4):
        end = driven.step()[0]
    assert int((end != start).sum()) == 9


@pytest.mark.parametrize("density", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_state_is_twice_the_density_in_every_round(density: float) -> None:
    driven = Driven(Subspace(Blocks(density), period=2, moments="reset"), [(6, 4)] * 4)
    held = []
    for _ in range(16):
        before = [w.detach().clone() for w in driven.weights]
        after = driven.step()
        held.append(driven.moments())
        assert sum(held[-1]) == 2 * density * 4 * 24
        assert [not torch.equal(*pair) for pair in zip(before, after, strict=True)] == [size > 0 for size in held[-1]]
    # freed when another's turn comes, each in its turn
    assert density == 0 or all(any(line[index] for line in held) for index in range(4))


def test_one_choice_for_good_weighs_what_its_round_weighs() -> None:
    shapes = {"0.weight": (6, 4), "1.weight": (9, 8)}
    first, every = (Subspace(Blocks(0.5, "ascending"), period=period, moments="reset") for period in (None, 1))
    assert first.state_bytes(shapes) == 4 * 2 * 24 + 2 * 4
    assert every.state_bytes(shapes) == 4 * 2 * 72 + 2 * 4


@pytest.mark.parametrize("projector", [Columns(0.5), Rows(0.5), Entries(0.5)], ids=repr)
def test_selections_keep_two_moments_of_the_share(projector: Projector) -> None:
    driven = Driven(Subspace(projector, period=2, moments="reset"), [(6, 4)])
    driven.step()
    assert driven.moments() == [2 * 12]


@pytest.mark.parametrize("projector", [Columns(1.0), Rows(1.0), Entries(1.0), Blocks(1.0)], ids=repr)
def test_all_of_it_is_the_inner_rule_itself_and_none_moves_nothing(projector: Projector) -> None:
    torch_own = [nn.Parameter(matrix(6, 4, seed=9))]
    peer = torch.optim.AdamW(torch_own, lr=0.01, weight_decay=0.0)
    whole, none = (
        Driven(Subspace(type(projector)(density), Adam(), period=None, moments="reset"), [(6, 4)])  # type: ignore[call-arg]
        for density in (1.0, 0.0)
    )
    start = none.weights[0].detach().clone()
    for _ in range(20):
        whole.step()
        assert torch.equal(none.step()[0], start)
        torch_own[0].grad = whole.weights[0].grad
        peer.step()
    assert torch.allclose(whole.weights[0], torch_own[0], rtol=1e-10)
    assert none.moments() == [0]


@pytest.mark.parametrize("projector", [*SELECTIONS, Blocks])
def test_densities_outside_zero_and_one_are_refused(projector: type) -> None:
    for density in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"density must lie in \[0, 1\], found"):
            projector(density=density)
