"""Teachers: who learns what next."""

from __future__ import annotations

from outlay.teachers.alp_gmm import AlpGmm
from outlay.teachers.base import Asking, Examined, Lessons, Ranks, Screens, Sets, Teacher
from outlay.teachers.class_order import ClassOrder
from outlay.teachers.covar_gmm import CovarGmm
from outlay.teachers.cures import Cures
from outlay.teachers.cyclical import Cyclical
from outlay.teachers.dump import Dump
from outlay.teachers.easy_to_hard import EasyToHard
from outlay.teachers.floor import Floor
from outlay.teachers.gain import Gain
from outlay.teachers.historical_variance import HistoricalVariance
from outlay.teachers.lim import Lim
from outlay.teachers.mbtl import Mbtl
from outlay.teachers.missing_skills import MissingSkills
from outlay.teachers.mixing_agent import MixingAgent
from outlay.teachers.pcl import Pcl
from outlay.teachers.ranking import Ranking
from outlay.teachers.reverse_starts import ReverseStarts
from outlay.teachers.riac import Riac
from outlay.teachers.sec import Sec
from outlay.teachers.skill_it import SkillIt
from outlay.teachers.snapshot_starts import SnapshotStarts
from outlay.teachers.sub_instructions import SubInstructions
from outlay.teachers.task_space import RandomPoint
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
    "mixing_agent": MixingAgent,
    "alp_gmm": AlpGmm,
    "class_order": ClassOrder,
    "covar_gmm": CovarGmm,
    "mbtl": Mbtl,
    "ranking": Ranking,
    "reverse_starts": ReverseStarts,
    "riac": Riac,
    "snapshot_starts": SnapshotStarts,
    "sub_instructions": SubInstructions,
    "random_point": RandomPoint,
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
    "MixingAgent",
    "Ranks",
    "Screens",
    "Sets",
    "SkillIt",
    "Teacher",
    "Uniform",
    "AlpGmm",
    "ClassOrder",
    "CovarGmm",
    "Mbtl",
    "RandomPoint",
    "Ranking",
    "ReverseStarts",
    "Riac",
    "SnapshotStarts",
    "SubInstructions",
]
