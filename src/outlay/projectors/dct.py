"""Cosine waves: the best of one fixed orthonormal basis, which all matrices of a size share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from outlay.catalog import Paper
from outlay.layout import Layout, Shape, Slot, State
from outlay.projectors.base import Place, check_rank, longer_first


@dataclass(frozen=True)
class Dct:
    """R = G P with P the ``rank`` columns of Q along which the gradient at the last refresh was largest:

        Q_ij = sqrt(2 / n) cos(pi i (2 j + 1) / (2 n)),  row 0 times sqrt(1/2);  Q Q^T = I,  n = columns
        S = G Q,  score_j = ||S_j||,  P = the columns of Q with the highest scores

    With the Euclidean norm P is the best choice among all columns, ||G - G P P^T||^2 = ||G||^2 - sum of the chosen ||S_j||^2, so that the error
    is at most 1 - rank / n of ||G||^2. A matrix keeps the columns' numbers and all matrices with n columns share Q. A new choice is a partial
    permutation of the old coordinates: what stays keeps its moments and what comes begins at zero.

    Args:
        rank: directions kept, >= 1; the shorter side where that is less.
        score: the norm that scores, the sum of absolute values or Euclidean.
        fft: compute S by fast Fourier transforms, rows n log n operations in place of rows n^2; the choice is the same but for rounding.
    """

    title: ClassVar[str] = "Cosine waves"
    paper: ClassVar[Paper | None] = Paper(
        "2505.17967", "FFT-based Dynamic Subspace Selection for Low-Rank Adaptive Optimization of Large Language Models", 2025
    )

    rank: int = 128
    score: Literal["l1", "l2"] = "l1"
    fft: bool = False

    def __post_init__(self) -> None:
        check_rank(self.rank)

    def turns(self, shape: Shape) -> bool:
        """The shorter side is compressed."""
        return longer_first(shape)

    def tables(self, shapes: list[Shape]) -> Layout:
        """One Q for each number of columns."""
        return {f"dct.{columns}": Slot((columns, columns)) for columns in sorted({shape[1] for shape in shapes})}

    def layout(self, shape: Shape, place: Place) -> Layout:
        """The chosen columns' numbers, rising."""
        return {"indices": Slot((min(self.rank, *shape),), torch.int32)}

    def small(self, shape: Shape, place: Place) -> Shape:
        """(rows, rank)."""
        return (shape[0], min(self.rank, *shape))

    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        """Score every column of Q by ``g`` and take the highest, the first among equals."""
        s = fast_cosines(g) if self.fft else g @ table(g.shape[1], g, place)
        scores = torch.linalg.vector_norm(s, 1 if self.score == "l1" else 2, dim=0, dtype=torch.promote_types(g.dtype, torch.float32))
        best = scores.sort(descending=True, stable=True).indices[: min(self.rank, *g.shape)]
        state["indices"] = best.sort().values.to(torch.int32)

    def down(self, state: State, g: torch.Tensor, place: Place) -> torch.Tensor:
        """G P, (rows, rank)."""
        return g @ table(g.shape[1], g, place).index_select(1, state["indices"])

    def up(self, state: State, r: torch.Tensor, shape: Shape, place: Place) -> torch.Tensor:
        """R P^T."""
        return r @ table(shape[1], r, place).index_select(1, state["indices"]).T

    def turn(self, old: State, new: State, place: Place) -> torch.Tensor:
        """P_old^T P_new: 1 where an old column is a new one, else 0."""
        return (old["indices"][:, None] == new["indices"]).float()


def table(n: int, like: torch.Tensor, place: Place) -> torch.Tensor:
    """Return Q, (n, n), on the device and in the type of ``like``, from the place's tables, where it is put when it is first asked for."""
    name = f"dct.{n}"
    found = place.tables.get(name)
    if found is not None and (found.dtype, found.device) != (like.dtype, like.device):
        # models of two types, or on two devices, have a table for each
        name = f"{name}.{like.dtype}.{like.device}"
        found = place.tables.get(name)
    if found is None:
        found = place.tables[name] = cosines(n, like)
    return found


def cosines(n: int, like: torch.Tensor) -> torch.Tensor:
    """Return Q, (n, n), on the device and in the type of ``like``."""
    # whole turns are taken off as whole numbers: i (2 j + 1) pi / (2 n) itself is too large for an exact cosine
    wave = torch.cos(torch.arange(4 * n, dtype=torch.float64) * (math.pi / (2 * n))).mul_(math.sqrt(2 / n)).to(like.device)
    odd = torch.arange(1, 2 * n, 2, device=like.device)
    q = torch.empty(n, n, dtype=like.dtype, device=like.device)
    for i in range(n):
        q[i] = wave[odd * i % (4 * n)]
    q[0] = math.sqrt(1 / n)
    return q


def fast_cosines(g: torch.Tensor) -> torch.Tensor:
    """Return G Q without Q: Makhoul's transform of n points, backwards, in single precision or better.

    The transform forwards, G Q^T, takes the even elements of a row rising and then the odd ones falling, Fourier transforms these n numbers and
    multiplies by 2 exp(-i pi k / (2 n)). Q is orthogonal, so its inverse is G Q.
    """
    n = g.shape[1]
    x = g.to(torch.promote_types(g.dtype, torch.float32)) * math.sqrt(2 * n)
    x[:, 0] *= math.sqrt(2)
    half = n // 2 + 1
    k = torch.arange(half, dtype=x.dtype, device=x.device)
    mirrored = torch.nn.functional.pad(x, (0, 1)).flip(1)[:, :half]
    spectrum = torch.complex(x[:, :half], -mirrored) * torch.polar(torch.full_like(k, 0.5), k * (math.pi / (2 * n)))
    v = torch.fft.irfft(spectrum, n=n, dim=1)
    out = torch.empty_like(x)
    out[:, 0::2] = v[:, : (n + 1) // 2]
    out[:, 1::2] = v[:, (n + 1) // 2 :].flip(1)
    return out
