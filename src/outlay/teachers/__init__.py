"""Teachers: who learns what next."""

from __future__ import annotations

from outlay.teachers.base import Asking, Examined, Lessons, Ranks, Screens, Sets, Teacher
from outlay.teachers.missing_skills import MissingSkills
from outlay.teachers.skill_it import SkillIt
from outlay.teachers.uniform import Uniform

METHODS: dict[str, type] = {
    "uniform": Uniform,
    "skill_it": SkillIt,
    "missing_skills": MissingSkills,
}

__all__ = [
    "METHODS",
    "Asking",
    "Examined",
    "Lessons",
    "MissingSkills",
    "Ranks",
    "Screens",
    "Sets",
    "SkillIt",
    "Teacher",
    "Uniform",
]
