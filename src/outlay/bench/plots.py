"""Pictures of a bench: average ranks, performance profiles, and quality against budget."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from outlay.bench.statistics import average_ranks, profile, rank_table, ratios, target_times
from outlay.bench.study import Study
from outlay.errors import MissingExtra


def draw(study: Study, folder: Path) -> list[Path]:
    """Write the pictures of a study as SVG files and return their paths.

    Raises:
        MissingExtra: without matplotlib.
    """
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra("matplotlib", "bench") from None
    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "outlay", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    folder.mkdir(parents=True, exist_ok=True)
    paths = [_ranks(study, folder / "ranks.svg"), _profiles(study, folder / "profiles.svg"), _curves(study, folder / "curves.svg")]
    return [path for path in paths if path is not None]


def _save(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    return path


def _ranks(study: Study, path: Path) -> Path | None:
    from matplotlib import pyplot

    intervals = average_ranks(rank_table(study.cells(), list(study.bench.methods)))
    if not intervals:
        return None
    names = sorted(intervals, key=lambda name: -intervals[name].mean)
    figure, axes = pyplot.subplots(figsize=(6, 0.3 * len(names) + 0.8))
    middle = np.array([intervals[name].mean for name in names])
    below = middle - [intervals[name].low for name in names]
    above = [intervals[name].high for name in names] - middle
    axes.errorbar(middle, range(len(names)), xerr=[below, above], fmt="o", color="#1f6f8b", ecolor="#9cc3d0", capsize=3)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("average rank over settings and budgets (1 is best), 95 % interval")
    axes.grid(axis="x", alpha=0.3)
    return _save(figure, path)


def _profiles(study: Study, path: Path) -> Path | None:
    from matplotlib import pyplot

    times = target_times(study, study.cells())
    if not times:
        return None
    by_method = ratios(times)
    taus = np.linspace(1, 4, 301)
    figure, axes = pyplot.subplots(figsize=(6, 4))
    order = sorted(by_method, key=lambda name: -sum(profile(list(by_method[name].values()), tau) for tau in taus))
    for place, name in enumerate(order):
        style = {"linewidth": 2.0} if place < 5 else {"linewidth": 0.8, "alpha": 0.6}
        axes.step(taus, [profile(list(by_method[name].values()), tau) for tau in taus], where="post", label=name, **style)
    axes.set_xlabel("budget to target, times the best method's")
    axes.set_ylabel("share of settings")
    axes.legend(fontsize=7, ncols=2, frameon=False, bbox_to_anchor=(1.02, 1), loc="upper left")
    return _save(figure, path)


def _curves(study: Study, path: Path) -> Path | None:
    from matplotlib import pyplot

    cells = study.cells()
    if not cells:
        return None
    columns = min(4, len(study.workloads))
    rows = math.ceil(len(study.workloads) / columns)
    figure, grid = pyplot.subplots(rows, columns, figsize=(3.3 * columns, 2.6 * rows), squeeze=False)
    colours = {name: pyplot.get_cmap("tab20")(place % 20) for place, name in enumerate(study.bench.methods)}
    for axes, workload in zip(grid.flat, study.workloads, strict=False):
        for name in study.methods(workload):
            points = [
                (
                    share,
                    float(
                        np.median([c.metric for c in cells if _of(c, workload.name, name, share) and c.metric is not None] or [math.nan])
                    ),
                )
                for share in study.shares(workload)
            ]
            strong = name in ("linear", "rex", "cosine", "constant")
            style = {"linewidth": 1.6, "alpha": 1.0} if strong else {"linewidth": 0.6, "alpha": 0.5}
            axes.plot(*zip(*points, strict=True), marker=".", color=colours[name], label=name, **style)
        axes.set_xscale("log")
        axes.set_title(workload.name, fontsize=8)
        axes.set_xlabel("share of the budget", fontsize=7)
        axes.set_ylabel(workload.metric, fontsize=7)
    for axes in list(grid.flat)[len(study.workloads) :]:
        axes.set_axis_off()
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, ncols=2, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    return _save(figure, path)


def _of(cell: Any, workload: str, method: str, share: float) -> bool:
    return bool(cell.workload == workload and cell.method == method and cell.share == share)
