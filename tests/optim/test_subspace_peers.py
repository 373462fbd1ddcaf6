"""GaLore, Fira and APOLLO beside pytorch_optimizer's, step by step: where they are the same, and which is right where they are not."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from small_steps import Drawn, gradients, positions
from torch import nn

from outlay.layout import State
from outlay.optim import Apollo, Fira, GaLore, OptimizerSpec
from outlay.projectors import Place, Svd

package = pytest.importorskip("pytorch_optimizer")

TALL, WIDE = (6, 4), (4, 6)


def steps(count: int, shape: tuple[int, ...] = TALL) -> Drawn:
    # the peers decompose in single precision whatever they are given
    return gradients(count, shape, dtype=torch.float32)


def theirs(
    name: str, given: Drawn, gap: int = 10**6, scale: float = 1.0, decay: float = 0.0, **options: Any
) -> tuple[Drawn, torch.optim.Optimizer]:
    """Positions of a peer's parameter from zeros on, at learning rate 0.01, and the peer."""
    w = nn.Parameter(torch.ones_like(given[0]))
    group = {"params": [w], "rank": 2, "update_proj_gap": gap, "scale": scale, "projection_type": "std"}
    peer = getattr(package, name)([group], lr=0.01, weight_decay=decay, eps=1e-6, **options)
    seen = [w.detach().clone()]
    for gradient in given:
        w.grad = gradient.clone()
        peer.step()
        seen.append(w.detach().clone())
    return seen, peer


def ours(spec: OptimizerSpec, given: Drawn, decay: float = 0.0) -> Drawn:
    return positions(spec, torch.ones_like(given[0]), given, lr=0.01, weight_decay=decay)


def close(one: Drawn, other: Drawn) -> bool:
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(one, other, strict=True))


# ---- GaLore --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [TALL, WIDE])
def test_galore_is_the_same_within_a_subspace(shape: tuple[int, int]) -> None:
    given = steps(30, shape)
    for scale, decay in ((1.0, 0.0), (0.25, 0.3)):
        assert close(ours(GaLore(rank=2, scale=scale, period=None), given, decay), theirs("GaLore", given, scale=scale, decay=decay)[0])


def test_galores_peer_leaves_its_first_subspace_a_step_early() -> None:
    # it chooses at steps 1, gap, 2 gap, ...: the first subspace serves gap - 1 steps. Every period steps is 1, 1 + period, 1 + 2 period, ...
    given = steps(8)
    assert close(ours(GaLore(rank=2, scale=1.0, period=4), given), theirs("GaLore", given, gap=5)[0])
    assert not close(ours(GaLore(rank=2, scale=1.0, period=5), given), theirs("GaLore", given, gap=5)[0])


# ---- Fira ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [TALL, WIDE])
def test_fira_is_the_same_with_an_equal_learning_rate_for_both_parts(shape: tuple[int, int]) -> None:
    given = steps(30, shape)
    # growing gradients, so that the limiter is at work in both
    given = [g * 1.2**i for i, g in enumerate(given)]
    assert close(ours(Fira(rank=2, scale=1.0, period=None), given, 0.3), theirs("Fira", given, decay=0.3)[0])
    assert not close(ours(Fira(rank=2, scale=1.0, period=None, gamma=None), given, 0.3), theirs("Fira", given, decay=0.3)[0])


def test_firas_peer_leaves_more_than_the_residual_where_the_learning_rates_differ() -> None:
    # it lifts with scale in G - up(R), too; by the equation the residual has no part in the subspace
    given = steps(30)
    peer = theirs("Fira", given, scale=0.25)[0]
    assert close(ours(Fira(rank=2, scale=0.25, period=None, exact=False), given), peer)
    assert not close(ours(Fira(rank=2, scale=0.25, period=None), given), peer)


def test_firas_peer_shuts_the_residual_out_after_a_first_gradient_of_zero() -> None:
    # ||C_t|| <= 1.01 ||C_t-1|| is meant against spikes; beside a first length of zero everything is one
    given = [torch.zeros(TALL), *steps(20)]
    out = torch.linalg.svd(torch.zeros(TALL), full_matrices=False).Vh[2:]

    def moved(seen: Drawn) -> float:
        """How far the parameter came outside of the subspace, which is chosen once."""
        return float(((seen[-1] - seen[0]) @ out.T).norm())

    mine, peer = moved(ours(Fira(rank=2, scale=1.0, period=None), given)), moved(theirs("Fira", given)[0])
    assert peer < 1e-6 < 0.05 < mine


# ---- APOLLO --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given(Svd):
    """A sketch that is given."""

    rows: torch.Tensor = field(default_factory=lambda: torch.zeros(0))

    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        state["rows"] = self.rows


def apollos(given: Drawn, granularity: Any, scale: float = 1.0, decay: float = 0.0) -> tuple[Drawn, Drawn, torch.Tensor]:
    """Positions of ours and of the peer by the same sketch P, and P."""
    torch.manual_seed(0)  # the peer draws from the global generator
    peer, optimizer = theirs("APOLLO", given, scale=scale, decay=decay, scale_type=granularity)
    rows = next(iter(optimizer.state.values()))["projector"].ortho_matrix
    spec = Apollo(period=None, scale=scale, granularity=granularity, projector=Given(2, rows))
    return ours(spec, given, decay), peer, rows


def moves(seen: Drawn) -> Drawn:
    return [after - before for before, after in pairwise(seen)]


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_apollos_peer_scales_the_sketch_and_lifts_it_instead_of_the_gradient(granularity: str) -> None:
    # the same gradient each time: the factor shrinks, and neither limiter is at work
    given = steps(1) * 10
    mine, peer, p = apollos(given, granularity)
    for own, lifted, g in zip(moves(mine), moves(peer), given, strict=True):
        assert torch.allclose(lifted, own @ p.T @ p, rtol=1e-3, atol=1e-6)
        # by the equation the step is along the gradient; the peer's has the rank of the sketch
        assert torch.cosine_similarity(own, -g).min() > 0.9999
        assert torch.linalg.matrix_rank(lifted, rtol=1e-3) == 2


def test_apollos_peer_takes_scale_to_the_power_of_three_halves() -> None:
    # once by its root, as in the equation, and once by the lift
    given = steps(1)
    (mine, peer, _), (mine_scaled, peer_scaled, _) = apollos(given, "tensor"), apollos(given, "tensor", scale=4.0)
    assert torch.allclose(moves(mine_scaled)[0], 2 * moves(mine)[0], rtol=1e-4, atol=1e-6)
    assert torch.allclose(moves(peer_scaled)[0], 8 * moves(peer)[0], rtol=1e-4, atol=1e-6)


def test_apollos_peer_decays_by_the_corrected_learning_rate() -> None:
    # decoupled decay is lr times weight_decay; the peer's first one is about a third of it
    mine, peer, _ = apollos([torch.zeros(TALL)], "channel", decay=0.5)
    assert torch.allclose(mine[1], torch.full(TALL, 1 - 0.01 * 0.5))
    assert torch.allclose(peer[1], torch.full(TALL, 1 - 0.01 * 0.5 * 0.001**0.5 / 0.1))
