"""How a plan writes amounts: short, for people."""

from __future__ import annotations

_SI = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def short(value: float) -> str:
    """Write a number in three digits: ``950``, ``13.4k``, ``135M``."""
    for factor, letter in _SI:
        if abs(value) >= 0.9995 * factor:
            return f"{_three(value / factor)}{letter}"
    return f"{value:.3g}"


def size(amount: float) -> str:
    """Write bytes: ``512 bytes``, ``3.2 GiB``."""
    for factor, name in _BYTES:
        if abs(amount) >= 0.9995 * factor:
            return f"{_three(amount / factor)} {name}"
    return f"{amount:.0f} bytes"


def duration(seconds: float) -> str:
    """Write seconds: ``85ms``, ``12.5s``, ``4m 12s``, ``1h 05m``."""
    if seconds < 1:
        return f"{1000 * seconds:.3g}ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}h {minutes % 60:02d}m"


def amount(unit: str, value: float) -> str:
    """Write an amount with its unit: ``12.5s``, ``$0.25``, ``3.1P FLOPs``, ``2.05M tokens``."""
    if unit == "seconds":
        return duration(value)
    if unit == "usd":
        return f"${value:.3g}"
    if unit == "memory":
        return size(value)
    return f"{short(value)} {'FLOPs' if unit == 'flops' else unit.replace('_', ' ')}"


def _three(value: float) -> str:
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
