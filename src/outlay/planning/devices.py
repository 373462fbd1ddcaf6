"""Devices: how many FLOPs a second training sustains, from a table or a short measurement, for plans made before anything has run."""

from __future__ import annotations

import re
import statistics
import time
from dataclasses import dataclass

import torch

from outlay.errors import InputError
from outlay.rng import torch_generator

#: assumed share of the half-precision peak that training sustains. Large, well-tuned runs report 0.46 (PaLM, 2204.02311) and 0.38 to 0.43
#: (Llama 3, 2407.21783); eager code on one device stays below
HALF_UTILISATION = 0.35
#: assumed share of the fp32 peak, which is low enough that products, not memory, are the limit
FULL_UTILISATION = 0.5
#: share of the measured speed of matrix products that a training step sustained on a CPU thread: 0.44 to 0.78 (middle 0.57) over
#: transformers of 0.5M to 10M parameters, LoRA, a CNN on 32 x 32 images and perceptrons. Tiny convolutions fall far below (0.1)
MEASURED_UTILISATION = 0.6
#: the rate may be wrong by this factor either way
UNCERTAINTY = 2.0


@dataclass(frozen=True)
class Peak:
    """Peak FLOPs a second of an accelerator by its maker's data sheet, dense (without sparsity).

    Args:
        name: what the driver's name for the device contains, as whole words.
        half: tensor cores in fp16 and bf16, accumulating in fp32.
        full: fp32 without TF32, since torch leaves TF32 off for matrix products.
        bf16: whether the device computes in bf16.
    """

    name: str
    half: float
    full: float
    bf16: bool = True


#: the first that matches counts, so that special forms stand before the plain one
PEAKS: tuple[Peak, ...] = (
    Peak("B200", 2250e12, 75e12),  # NVIDIA HGX B200 data sheet
    Peak("H200", 989e12, 67e12),  # NVIDIA H200 data sheet (SXM)
    Peak("GH200", 989e12, 67e12),  # NVIDIA GH200 data sheet
    Peak("H100 PCIe", 756e12, 51e12),  # NVIDIA H100 data sheet, 1,513 with sparsity
    Peak("H100 NVL", 835e12, 60e12),  # NVIDIA H100 data sheet, 1,671 with sparsity
    Peak("H100", 989e12, 67e12),  # NVIDIA H100 data sheet (SXM), 1,979 with sparsity
    Peak("H20", 148e12, 44e12),  # NVIDIA H20 data sheet
    Peak("A100", 312e12, 19.5e12),  # NVIDIA A100 data sheet
    Peak("A10G", 70e12, 31.5e12),  # NVIDIA A10G data sheet, 140 with sparsity
    Peak("A10", 125e12, 31.2e12),  # NVIDIA A10 data sheet
    Peak("A40", 149.7e12, 37.4e12),  # NVIDIA A40 data sheet
    Peak("L40S", 362e12, 91.6e12),  # NVIDIA L40S data sheet, 733 with sparsity
    Peak("L40", 181e12, 90.5e12),  # NVIDIA L40 data sheet
    Peak("L4", 121e12, 30.3e12),  # NVIDIA L4 data sheet, 242 with sparsity
    Peak("T4", 65e12, 8.1e12, bf16=False),  # NVIDIA T4 data sheet
    Peak("V100-PCIE", 112e12, 14e12, bf16=False),  # NVIDIA V100 data sheet
    Peak("V100", 125e12, 15.7e12, bf16=False),  # NVIDIA V100 data sheet (SXM2)
    Peak("RTX A6000", 154.8e12, 38.7e12),  # NVIDIA GA102 white paper
    Peak("RTX 3090", 71e12, 35.6e12),  # NVIDIA GA102 white paper, fp32 accumulation
    Peak("RTX 4090", 165.2e12, 82.6e12),  # NVIDIA Ada white paper, fp32 accumulation
    Peak("MI300X", 1307e12, 163.4e12),  # AMD MI300X data sheet
    Peak("MI250X", 191.5e12, 23.9e12),  # AMD MI250X data sheet; halved, since each of its two dies is a device
)


@dataclass(frozen=True)
class Rate:
    """FLOPs a second that training is expected to sustain.

    Args:
        flops: the middle.
        low: the least that is likely.
        high: the most that is likely.
        why: where the number comes from.
    """

    flops: float
    low: float
    high: float
    why: str

    def seconds(self, flops: float) -> tuple[float, float, float]:
        """Return how long so many FLOPs take: the middle, the least and the most."""
        return flops / self.flops, flops / self.high, flops / self.low


def rate_by_name(name: str, precision: str) -> Rate | None:
    """Return what a named accelerator sustains in ``fp32``, ``bf16`` or ``fp16``; None when it is not in the table.

    A device without bf16 computes it in fp32. A slice of a device (MIG) is not what the table speaks of.
    """
    peak = next((peak for peak in PEAKS if re.search(rf"(?<![a-z0-9]){peak.name}(?![a-z0-9])", name, re.IGNORECASE)), None)
    if peak is None or "MIG" in name:
        return None
    half = precision == "fp16" or (precision == "bf16" and peak.bf16)
    top, share = (peak.half, HALF_UTILISATION) if half else (peak.full, FULL_UTILISATION)
    middle = top * share
    why = f"{share:.0%} of the {top / 1e12:.4g} TFLOP/s that a {peak.name} peaks at in {precision}"
    return Rate(middle, middle / UNCERTAINTY, middle * UNCERTAINTY, why)


def training_rate(device: torch.device | str, precision: str) -> Rate:
    """Return what a device here sustains: accelerators by name, a CPU and accelerators without an entry by a measurement of 0.15 s."""
    device = torch.device(device)
    known = rate_by_name(torch.cuda.get_device_name(device), precision) if device.type == "cuda" else None
    if known is not None:
        return known
    products = measure_device(device, precision)
    middle = products * MEASURED_UTILISATION
    why = f"{MEASURED_UTILISATION:.0%} of the {products / 1e9:.3g} GFLOP/s that matrix products reach on this {device.type} in {precision}"
    return Rate(middle, middle / UNCERTAINTY, products, why)


def measure_device(device: torch.device | str = "cpu", precision: str = "fp32", seconds: float = 0.15, side: int | None = None) -> float:
    """Return the FLOPs a second that products of square matrices reach on a device with torch's present number of threads.

    Args:
        device: where to measure.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        seconds: how long to measure, > 0; one product more than fits.
        side: rows of the matrices; None for 512 on a CPU and 4096 elsewhere.

    Raises:
        InputError: for an unknown precision or a time that is not positive.
    """
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in dtypes or seconds <= 0:
        raise InputError(f"accepted are {', '.join(dtypes)} and seconds > 0, found {precision!r} and {seconds}")
    device = torch.device(device)
    side = side or (512 if device.type == "cpu" else 4096)
    matrix = torch.randn(side, side, generator=torch_generator(0, "planning/devices")).to(device, dtypes[precision])
    _product(matrix)
    times: list[float] = []
    while not times or sum(times) < seconds:
        began = time.perf_counter()
        _product(matrix)
        times.append(time.perf_counter() - began)
    return 2.0 * side**3 / statistics.median(times)


def _product(matrix: torch.Tensor) -> None:
    # reading one number waits for the device
    (matrix @ matrix)[0, 0].item()
