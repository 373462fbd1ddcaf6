"""Teachers: who learns what next."""

from __future__ import annotations

from outlay.teachers.base import Asking, Examined, Lessons, Ranks, Screens, Sets, Teacher
from outlay.teachers.uniform import Uniform

METHODS: dict[str, type] = {
    "uniform": Uniform,
}

__all__ = [
    "METHODS",
    "Asking",
    "Examined",
    "Lessons",
    "Ranks",
    "Screens",
    "Sets",
    "Teacher",
    "Uniform",
]
