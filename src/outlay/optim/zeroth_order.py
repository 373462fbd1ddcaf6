"""Zeroth-order steps: losses at both ends of random directions that everybody can draw again, told to others in one byte each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from outlay.catalog import Paper
from outlay.optim.base import SCALES, by_name, decay_groups
from outlay.optim.sharded import unsharded
from outlay.rng import derive

#: a byte tells a sign and the size exp(k / resolution) of a slope, k from -LARGEST to LARGEST
LARGEST = 63
#: tells that a slope is not a number
NO_NUMBER = 255


@dataclass(frozen=True)
class ZerothOrder:
    """Simultaneous perturbation with shared randomness. At step t process m draws ``directions`` normal vectors z_mj from the streams (seed, m, j, t):

        g_mj = (L_m(w + eps z_mj) - L_m(w - eps z_mj)) / (2 eps),  L_m the loss of its own part of the batch
        everybody is told code(g_mj), one byte each, and then does  w <- w - lr sum_mj decode(code(g_mj)) z_mj / N^p

    with N the number of slopes and p = 1 (``mean``) or 1/2 (``root``), after w <- w - lr weight_decay w. No gradient and no activation for a backward
    pass is held, and processes that begin alike stay alike bit by bit while they exchange a byte a direction. E[g z] is the gradient as eps -> 0.

    The code keeps a sign and an exponent: 0 is 0, else sign(g) exp(k / c) with c = ``resolution`` and k = round(c ln |g|) in [-63, 63]: a relative
    error of at most exp(1 / 2c) - 1 for |g| in [exp(-63 / c), exp(63 / c)], beyond which it is cut. With c = 8 that is 6.5 % from 0.0004 to 2600; with
    the paper's 16 it is 3.2 %, but where the sign is in the byte as well only from 0.02 to 51. One more code says that a loss was not finite: then
    nobody moves.

    Args:
        eps: how far the weights are moved either way, > 0.
        directions: vectors an update and process, >= 1; an update takes twice as many forward passes.
        scale: whether slopes are divided by N (``mean``) or by its root (``root``, which takes N times larger steps in all for the same rate).
        code: what others are told and everybody uses: one ``byte``, or the ``float`` of 4 bytes.
        resolution: c, steps of the code to a factor of e, >= 1.
        exact: keep a copy of the weights so that they are put back bit by bit. Without it moving there and back leaves rounding errors of
            about 1e-7 of a weight a step, and several processes drift apart: then it is refused.
    """

    title: ClassVar[str] = "Zeroth-order steps with shared randomness"
    paper: ClassVar[Paper | None] = Paper(
        "2306.10015",
        "Just One Byte (per gradient): A Note on Low-Bandwidth Decentralized Language Model Finetuning Using Shared Randomness",
        2023,
    )
    knobs: ClassVar[dict[str, float]] = {"lr": 1e-3, "weight_decay": 0.0}
    whole_batch: ClassVar[bool] = False

    eps: float = 1e-3
    directions: int = 1
    scale: Literal["mean", "root"] = "mean"
    code: Literal["byte", "float"] = "byte"
    resolution: int = 8
    exact: bool = True

    def __post_init__(self) -> None:
        if self.eps <= 0 or self.directions < 1:
            raise ValueError(f"eps must be > 0 and directions >= 1, found {self.eps} and {self.directions}")
        if self.resolution < 1:
            raise ValueError(f"resolution must be >= 1, found {self.resolution}")

    @property
    def forward_passes(self) -> int:
        """Two a direction."""
        return 2 * self.directions

    def build(self, parameters: Sequence[tuple[str, nn.Parameter]], seed: int = 0) -> torch.optim.Optimizer:
        """Return the optimizer over the parameters; directions come from streams of ``seed`` and the parameters' names.

        Raises:
            InputError: for parameters that are sharded.
        """
        parameters = unsharded(parameters, "ZerothOrder", "directions are drawn for whole tensors")
        return _ZerothOrder(self, parameters, seed)

    def state_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
        """A count of steps a tensor and, with ``exact``, a copy of the weights."""
        return sum(4 + (math.prod(shape) * element_size if self.exact else 0) for shape in shapes.values())

    def gradient_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
        """None; while a direction is applied, the largest tensor's part of it."""
        return max((math.prod(shape) for shape in shapes.values()), default=0) * element_size


def encode(slope: float, resolution: int = 8) -> int:
    """Return a slope's code in [0, 254]; 127 is 0, more is positive, less is negative. What is not finite is 255."""
    if not math.isfinite(slope):
        return NO_NUMBER
    if slope == 0:
        return 127
    size = min(LARGEST, max(-LARGEST, round(resolution * math.log(abs(slope)))))
    away = size + LARGEST + 1  # 1 to 127
    return 127 + away if slope > 0 else 127 - away


def decode(code: int, resolution: int = 8) -> float:
    """Return the slope that a code stands for, nan for what was not finite."""
    if code == NO_NUMBER:
        return math.nan
    away = abs(code - 127)
    return 0.0 if away == 0 else math.copysign(math.exp((away - LARGEST - 1) / resolution), code - 127)


class _ZerothOrder(torch.optim.Optimizer):
    def __init__(self, spec: ZerothOrder, parameters: Sequence[tuple[str, nn.Parameter]], seed: int) -> None:
        self._spec, parameters = spec, by_name(parameters)
        self._names = {parameter: name for name, parameter in parameters}
        # the seed stands in the groups, so that a state that is loaded brings its own
        super().__init__(decay_groups(parameters), {**spec.knobs, "seed": seed})
        for group in self.param_groups:
            group["weight_decay"] = spec.knobs["weight_decay"] * group[SCALES].get("weight_decay", 1.0)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step by the closure's losses, alone."""
        return None if closure is None else self.explore(closure, lambda sent: [sent], 0)

    @torch.no_grad()
    def explore(self, loss: Callable[[], float], share: Callable[[bytes], list[bytes]], rank: int) -> float:
        """Measure the slopes, tell them, and take everybody's step; return the mean of the losses that were seen."""
        spec, step = self._spec, self._count()
        self._keep()
        seen, slopes = [], []
        for number in range(spec.directions):
            self._move(spec.eps, step, rank, number)
            up = loss()
            self._move(-spec.eps if spec.exact else -2 * spec.eps, step, rank, number)
            down = loss()
            self._back(step, rank, number)
            seen += [up, down]
            slopes.append((up - down) / (2 * spec.eps))
        told = [self._read(sent) for sent in share(self._write(slopes))]
        if len(told) > 1 and not spec.exact:
            raise ValueError("several processes drift apart without exact: true; set it")
        # by what was told, not by what was seen here: either everybody moves or nobody
        if all(math.isfinite(slope) for slopes in told for slope in slopes):
            self._apply(told, step)
        return math.fsum(seen) / len(seen)

    def _write(self, slopes: Sequence[float]) -> bytes:
        if self._spec.code == "byte":
            return bytes(encode(slope, self._spec.resolution) for slope in slopes)
        return torch.tensor(slopes, dtype=torch.float32).numpy().tobytes()

    def _read(self, sent: bytes) -> list[float]:
        if self._spec.code == "byte":
            return [decode(code, self._spec.resolution) for code in sent]
        return [float(value) for value in torch.frombuffer(bytearray(sent), dtype=torch.float32)]

    def _parameters(self) -> Iterator[tuple[nn.Parameter, dict[str, Any]]]:
        return ((parameter, group) for group in self.param_groups for parameter in group["params"])

    def _count(self) -> int:
        number = 0
        for parameter, _ in self._parameters():
            state = self.state[parameter]
            state["step"] = state.get("step", torch.zeros((), dtype=torch.float32)) + 1
            number = int(state["step"])
        return number

    def _keep(self) -> None:
        if self._spec.exact:
            for parameter, _ in self._parameters():
                kept = self.state[parameter].setdefault("kept", torch.empty_like(parameter))
                kept.copy_(parameter)

    def _direction(self, parameter: nn.Parameter, step: int, rank: int, number: int) -> torch.Tensor:
        stream = derive(self.param_groups[0]["seed"], f"zeroth/{self._names[parameter]}/{rank}/{number}", step)
        draw = torch.Generator(parameter.device).manual_seed(stream)
        return torch.randn(parameter.shape, generator=draw, device=parameter.device, dtype=torch.float32).to(parameter.dtype)

    def _move(self, by: float, step: int, rank: int, number: int) -> None:
        """Go ``by`` along a direction: from the kept weights where they are kept, else from where the weights are."""
        for parameter, _ in self._parameters():
            if self._spec.exact:
                parameter.copy_(self.state[parameter]["kept"])
            parameter.add_(self._direction(parameter, step, rank, number), alpha=by)

    def _back(self, step: int, rank: int, number: int) -> None:
        if not self._spec.exact:
            self._move(self._spec.eps, step, rank, number)
            return
        for parameter, _ in self._parameters():
            parameter.copy_(self.state[parameter]["kept"])

    def _apply(self, told: Sequence[Sequence[float]], step: int) -> None:
        count = sum(len(slopes) for slopes in told)
        divisor = float(count) if self._spec.scale == "mean" else math.sqrt(count)
        for parameter, group in self._parameters():
            if group["weight_decay"]:
                parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
            for rank, slopes in enumerate(told):
                for number, slope in enumerate(slopes):
                    if slope:
                        parameter.add_(self._direction(parameter, step, rank, number), alpha=-group["lr"] * slope / divisor)
