"""How amounts are written for people: short, steady in width, with their unit."""

from __future__ import annotations

import math

_SI = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
#: units written with their name in front of tables and axes
UNIT_TITLES = {
    "seconds": "time", "steps": "steps", "tokens": "tokens", "examples": "examples", "flops": "FLOPs", "rollouts": "rollouts",
    "new_tokens": "new tokens", "labels": "labels", "usd": "money", "memory": "memory", "params": "parameters", "share": "share of budget",
}  # fmt: skip


def title(unit: str) -> str:
    """Return a unit's name as people read it; an unknown unit is its own name."""
    return UNIT_TITLES.get(unit, unit.replace("_", " "))


def duration(seconds: float) -> str:
    """Write seconds with about three significant digits: ``850ms``, ``18.3s``, ``4m 12s``, ``1h 05m``, ``2d 03h``."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 0:
        return "-" + duration(-seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms" if seconds else "0s"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    minutes = round(seconds / 60)
    if minutes < 1440:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    hours = round(seconds / 3600)
    return f"{hours // 24}d {hours % 24:02d}h"


def compact(value: float) -> str:
    """Write a count in at most five characters and a sign: ``7``, ``950``, ``13.4k``, ``1.20M``, ``2.5e+21``."""
    size = abs(value)
    if not math.isfinite(value) or size >= 999.5e18:
        return f"{value:.2g}"
    if size < 999.5:
        return f"{value:.0f}" if value == int(value) else f"{value:.3g}"
    factor, letter = next(pair for pair in _SI if size >= pair[0] * 0.9995)
    scaled = value / factor
    digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
    return f"{scaled:.{digits}f}{letter}"


def amount(unit: str, value: float | None) -> str:
    """Write an amount of ``unit`` with its unit: ``4m 12s``, ``$0.034``, ``1.50 GiB``, ``2.10 PFLOPs``, ``12,345 tokens``."""
    if value is None:
        return "–"
    bare = quantity(unit, value)
    return bare if unit in {"seconds", "usd", "memory", "flops"} else f"{bare} {title(unit)}"


def quantity(unit: str, value: float | None) -> str:
    """Write an amount of ``unit`` for a column that already names the unit."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if unit == "seconds":
        return duration(value)
    if unit == "usd":
        return f"${value:,.2f}" if abs(value) >= 10 else f"${value:.3g}"
    if unit == "memory":
        return size(value)
    if unit == "flops":
        short = compact(value)
        return f"{short[:-1]} {short[-1]}FLOPs" if short[-1:].isalpha() else f"{short} FLOPs"
    if abs(value) >= 1e7:
        return compact(value)
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def size(bytes_: float) -> str:
    """Write a number of bytes: ``512 B``, ``3.20 MiB``, ``24.0 GiB``."""
    for factor, unit in _BYTES:
        if abs(bytes_) >= factor:
            scaled = bytes_ / factor
            return f"{scaled:.2f} {unit}" if abs(scaled) < 10 else f"{scaled:.1f} {unit}"
    return f"{bytes_:.0f} B"


def number(value: float | None) -> str:
    """Write a measured value with four significant digits: ``1.234``, ``0.0125``, ``2.1e-05``, ``nan``."""
    if value is None:
        return "–"
    if not math.isfinite(value) or value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    return f"{value:.2e}"


def percent(share: float) -> str:
    """Write a share in [0, 1] as per cent: ``42%``, ``3.4%``, ``0.05%``; only what is all of it reads ``100%``."""
    if not math.isfinite(share):
        return "?"
    value = 100 * share
    if value == 0 or value == 100:
        return f"{value:.0f}%"
    if 99.5 <= value < 100.5:
        return f"{min(value, 99.9) if value < 100 else max(value, 100.1):.1f}%"
    return f"{value:.0f}%" if abs(value) >= 10 else f"{value:.2g}%"
