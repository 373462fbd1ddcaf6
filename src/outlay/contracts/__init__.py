"""Contract checks for parts that hold tensors: sources, objectives, optimizers, exams and models.

Plain Python: no test runner is needed. Each check returns quietly or raises ``AssertionError`` with the rule that was broken and what was
seen. ``outlay.testing`` names them all; this package imports torch.
"""

from __future__ import annotations

from outlay.contracts.evaluations import check_exam
from outlay.contracts.models import check_model
from outlay.contracts.objectives import check_objective
from outlay.contracts.optim import check_optimizer
from outlay.contracts.sources import check_source

__all__ = ["check_exam", "check_model", "check_objective", "check_optimizer", "check_source"]
