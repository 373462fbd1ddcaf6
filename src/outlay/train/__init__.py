"""Train: recipes, the one loop, checkpoints, runs. The only room that knows all the others."""

from __future__ import annotations

from outlay.train.loop import RunFailed
from outlay.train.planner import plan
from outlay.train.reading import dump_recipe, load_recipe
from outlay.train.recipe import Checkpoints, Evaluate, Health, Recipe, Stage
from outlay.train.result import Result
from outlay.train.run import replay, resume, run

__all__ = [
    "Checkpoints",
    "Evaluate",
    "Health",
    "Recipe",
    "Result",
    "RunFailed",
    "Stage",
    "dump_recipe",
    "load_recipe",
    "plan",
    "replay",
    "resume",
    "run",
]
