"""Bench: methods compared at equal total budget, with peaks tuned by the same declared search, several seeds and intervals.

``outlay bench run rex`` spends a bench, ``outlay bench show`` prints what it found so far, ``outlay bench claims`` checks every method's claim.
"""

from __future__ import annotations

from outlay.bench.claims import Claim, check_claims, load_claims
from outlay.bench.definition import Bench, Method, Search, Target, Workload, load_bench, load_workload
from outlay.bench.running import run_jobs
from outlay.bench.store import Store
from outlay.bench.study import Cell, Study, spend

__all__ = [
    "Bench",
    "Cell",
    "Claim",
    "Method",
    "Search",
    "Store",
    "Study",
    "Target",
    "Workload",
    "check_claims",
    "load_bench",
    "load_claims",
    "load_workload",
    "run_jobs",
    "spend",
]
