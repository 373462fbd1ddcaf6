"""Rates of devices."""

import time

import pytest
import torch

from outlay.errors import InputError
from outlay.planning.devices import (
    FULL_UTILISATION,
    HALF_UTILISATION,
    MEASURED_UTILISATION,
    Rate,
    measure_device,
    rate_by_name,
    training_rate,
)


@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H20", 148e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("AMD Instinct MI300X", 1307e12),
    ],
)
def test_names_as_drivers_write_them(name: str, half: float) -> None:
    rate = rate_by_name(name, "bf16")
    assert rate is not None
    assert rate.flops == half * HALF_UTILISATION
    assert rate.low == rate.flops / 2 and rate.flops < rate.high <= half


@pytest.mark.parametrize("name", ["NVIDIA RTX A4000", "NVIDIA GB200", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "Some Other Card"])
def test_unknown_names_are_not_guessed(name: str) -> None:
    assert rate_by_name(name, "bf16") is None


def test_a_device_without_bf16_computes_in_fp32() -> None:
    rates = {precision: rate_by_name("Tesla T4", precision) for precision in ("fp32", "bf16", "fp16")}
    assert rates["bf16"] is not None and rates["fp16"] is not None and rates["fp32"] is not None
    assert rates["bf16"].flops == rates["fp32"].flops == 8.1e12 * FULL_UTILISATION
    assert rates["fp16"].flops == 65e12 * HALF_UTILISATION
    assert rates["fp16"].why == "35% of the 65 TFLOP/s that a T4 peaks at in fp16"


def test_seconds_of_a_rate() -> None:
    assert Rate(100.0, 50.0, 200.0, "").seconds(1000.0) == (10.0, 5.0, 20.0)


def test_measured_speed_is_that_of_a_matrix_product() -> None:
    side = 256
    matrix = torch.rand(side, side)
    times = []
    for _ in range(30):
        began = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - began)
    real = 2 * side**3 / sorted(times)[15]
    assert real / 5 < measure_device(seconds=0.03, side=side) < real * 5, "a forgotten factor of side would be 256"


def test_a_cpu_is_measured() -> None:
    rate = training_rate("cpu", "fp32")
    assert rate.flops == pytest.approx(MEASURED_UTILISATION * rate.high)
    assert rate.low == rate.flops / 2
    assert "on this cpu in fp32" in rate.why


def test_wrong_questions() -> None:
    with pytest.raises(InputError, match="fp8"):
        measure_device(precision="fp8")
    with pytest.raises(InputError, match="seconds > 0"):
        measure_device(seconds=0)
