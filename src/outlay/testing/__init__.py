"""Testing: the contract of every family as a check that you can run on your own methods.

Plain Python: no test runner is needed. Each check returns quietly or raises ``AssertionError`` with the rule that was broken, the input that
broke it and the values that were seen. Checks of parts that hold tensors import torch when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from outlay.testing.open_ended import check_open_schedule
from outlay.testing.plain import (
    FakeClock,
    check_controller,
    check_resumable,
    check_schedule,
    expected_loss,
    record,
    tuned_loss,
)
from outlay.testing.simulators import river_valley_loss

if TYPE_CHECKING:
    from outlay.testing.adapters import check_adapter
    from outlay.testing.allocators import check_allocator
    from outlay.testing.estimators import check_estimator
    from outlay.testing.evaluations import check_exam
    from outlay.testing.formats import check_format
    from outlay.testing.models import check_model
    from outlay.testing.objectives import check_objective
    from outlay.testing.optim import check_optimizer
    from outlay.testing.parts import (
        check_advantage,
        check_anchor,
        check_denominator,
        check_likelihood,
        check_stabiliser,
        rollout_batch,
    )
    from outlay.testing.projectors import check_projector
    from outlay.testing.repairs import check_repair
    from outlay.testing.rewards import check_reward
    from outlay.testing.rollout import check_engine
    from outlay.testing.sources import check_source
    from outlay.testing.subspace_parts import check_inner_rule, check_residual
    from outlay.testing.teachers import check_teacher

_WITH_TORCH = {
    "check_advantage": "parts",
    "check_allocator": "allocators",
    "check_anchor": "parts",
    "check_denominator": "parts",
    "check_engine": "rollout",
    "check_adapter": "adapters",
    "check_estimator": "estimators",
    "check_exam": "evaluations",
    "check_inner_rule": "subspace_parts",
    "check_format": "formats",
    "check_likelihood": "parts",
    "check_model": "models",
    "check_objective": "objectives",
    "check_optimizer": "optim",
    "check_projector": "projectors",
    "check_repair": "repairs",
    "check_residual": "subspace_parts",
    "check_reward": "rewards",
    "check_source": "sources",
    "check_stabiliser": "parts",
    "check_teacher": "teachers",
    "rollout_batch": "parts",
}

__all__ = [
    "FakeClock",
    "check_advantage",
    "check_allocator",
    "check_anchor",
    "check_controller",
    "check_denominator",
    "check_engine",
    "check_estimator",
    "check_exam",
    "check_inner_rule",
    "check_format",
    "check_likelihood",
    "check_model",
    "check_objective",
    "check_open_schedule",
    "check_adapter",
    "check_optimizer",
    "check_projector",
    "check_repair",
    "check_residual",
    "check_resumable",
    "check_reward",
    "check_schedule",
    "check_source",
    "check_stabiliser",
    "check_teacher",
    "expected_loss",
    "record",
    "river_valley_loss",
    "rollout_batch",
    "tuned_loss",
]


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module 'outlay.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(f"outlay.testing.{_WITH_TORCH[name]}"), name)
