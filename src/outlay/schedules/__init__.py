"""Schedules: open-loop profiles on the budget clock, for any knob."""

from __future__ import annotations

from outlay.schedules.base import Schedule
from outlay.schedules.batch_scaling import LinearScaling, SquareRootScaling
from outlay.schedules.compose import Product, Sequence
from outlay.schedules.constant import Constant
from outlay.schedules.cosine import Cosine
from outlay.schedules.cosine_restarts import CosineRestarts
from outlay.schedules.cyclic_cosine import CyclicCosine
from outlay.schedules.data_share_cycle import DataShareCycle
from outlay.schedules.exponential import Exponential
from outlay.schedules.inverse_square_root import InverseSquareRoot
from outlay.schedules.linear import Linear
from outlay.schedules.multigrid import LongCycle
from outlay.schedules.one_cycle import OneCycle
from outlay.schedules.polynomial import Polynomial
from outlay.schedules.refined import Refined
from outlay.schedules.rewarm import Rewarm
from outlay.schedules.rex import Rex
from outlay.schedules.sampled import Sampled
from outlay.schedules.slow_start_fast_decay import SlowStartFastDecay
from outlay.schedules.step_decay import StepDecay
from outlay.schedules.triangle_wave import TriangleWave
from outlay.schedules.triangular import Triangular
from outlay.schedules.uba import Uba
from outlay.schedules.warmup import Warmup
from outlay.schedules.warmup_stable_decay import WarmupStableDecay
from outlay.schedules.wsd_s import WsdS
from outlay.schedules.wsdc import Wsdc

METHODS: dict[str, type] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "rex": Rex,
    "warmup_stable_decay": WarmupStableDecay,
    "step_decay": StepDecay,
    "exponential": Exponential,
    "polynomial": Polynomial,
    "inverse_square_root": InverseSquareRoot,
    "cosine_restarts": CosineRestarts,
    "one_cycle": OneCycle,
    "uba": Uba,
    "wsd_s": WsdS,
    "wsdc": Wsdc,
    "cyclic_cosine": CyclicCosine,
    "rewarm": Rewarm,
    "slow_start_fast_decay": SlowStartFastDecay,
    "triangular": Triangular,
    "triangle_wave": TriangleWave,
    "data_share_cycle": DataShareCycle,
    "refined": Refined,
    "warmup": Warmup,
    "sampled": Sampled,
    "product": Product,
    "sequence": Sequence,
    "linear_scaling": LinearScaling,
    "square_root_scaling": SquareRootScaling,
    "long_cycle": LongCycle,
}

__all__ = [
    "METHODS",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "CyclicCosine",
    "DataShareCycle",
    "Exponential",
    "InverseSquareRoot",
    "Linear",
    "LinearScaling",
    "LongCycle",
    "OneCycle",
    "Polynomial",
    "Product",
    "Refined",
    "Rewarm",
    "Rex",
    "Sampled",
    "Schedule",
    "Sequence",
    "SlowStartFastDecay",
    "SquareRootScaling",
    "StepDecay",
    "TriangleWave",
    "Triangular",
    "Uba",
    "Warmup",
    "WarmupStableDecay",
    "WsdS",
    "Wsdc",
]
