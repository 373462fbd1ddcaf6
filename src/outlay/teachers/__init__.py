"""Teachers: who learns what next."""

from __future__ import annotations

from outlay.teachers.base import Asking, Examined, Lessons, Ranks, Screens, Sets, Teacher
from outlay.teachers.cures import Cures
from outlay.teachers.cyclical import Cyclical
from outlay.teachers.dump import Dump
from outlay.teachers.easy_to_hard import EasyToHard
from outlay.teachers.floor import Floor
from outlay.teachers.gain import Gain
from outlay.teachers.historical_variance import HistoricalVariance
from outlay.teachers.lim import Lim
from outlay.teachers.missing_skills import MissingSkills
from outlay.teachers.pcl import Pcl
from outlay.teachers.sec import Sec
from outlay.teachers.skill_it import SkillIt
from outlay.teachers.uniform import Uniform

METHODS: dict[str, type] = {
    "uniform": Uniform,
    "cures": Cures,
    "cyclical": Cyclical,
    "dump": Dump,
    "easy_to_hard": EasyToHard,
    "floor": Floor,
    "gain": Gain,
    "historical_variance": HistoricalVariance,
    "lim": Lim,
    "pcl": Pcl,
    "sec": Sec,
    "skill_it": SkillIt,
    "missing_skills": MissingSkills,
}

__all__ = [
    "Cures",
    "Cyclical",
    "Dump",
    "EasyToHard",
    "Floor",
    "Gain",
    "HistoricalVariance",
    "Lim",
    "Pcl",
    "Sec",
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
