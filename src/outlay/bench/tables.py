"""Tables of a bench in Markdown: what was searched, ranks, quality at every budget, differences from the baseline, time to target."""

from __future__ import annotations

import math
from collections.abc import Sequence

from outlay.bench.claims import Finding
from outlay.bench.definition import Workload
from outlay.bench.statistics import Interval, average_ranks, mean_interval, paired, rank_table, ratios, score, target_times
from outlay.bench.study import Cell, Study


def markdown(study: Study) -> str:
    """Return everything that a study has found so far as Markdown."""
    cells = study.cells()
    parts = [f"# {study.bench.title or study.bench.name}\n", accounting(study), *rank_sections(study, cells)]
    if study.bench.target is not None:
        parts.append(target_section(study, cells))
    parts.append(difference_section(study, cells))
    parts.extend(quality_section(study, cells, workload) for workload in study.workloads)
    return "\n".join(parts)


def accounting(study: Study) -> str:
    """Return what was run, what the searches were given, and what they found."""
    search, jobs = study.bench.search, study.jobs()
    rows = [study.store[job.key] for job in jobs if job.key in study.store]
    diverged, edge = sum(row["outcome"] == "diverged" for row in rows), study.at_the_edge()
    hours = math.fsum(row["seconds"] for row in rows) / 3600
    lines = [
        f"{len(rows)} of {len(jobs)} runs so far, {hours:.2f} hours of one thread; {diverged} diverged, {len(study.unjudged())} could not be judged.",
        f"Every method was given the same search on every workload: {search.tries} peaks (one where its range is a single value), log-spaced over "
        f"the workload's range, each for "
        f"{search.share:.0%} of the full budget with seed {search.seed}, judged on held-out examples that no table reports. "
        f"Measured with {study.bench.seeds} seeds at the peak found.",
    ]
    fewer = [f"{w.name}: {w.tries} tries" for w in study.workloads if w.tries]
    if fewer:
        lines.append(f"Fewer tries on {', '.join(fewer)}.")
    if edge:
        lines.append(
            f"The best peak lay at the edge of the range in {len(edge)} searches: " + ", ".join(f"{m} on {w}" for w, m, _ in edge) + "."
        )
    return "\n".join(f"{line}\n" for line in lines)


def rank_sections(study: Study, cells: Sequence[Cell]) -> list[str]:
    """Return average ranks over all workloads on which every method is compared, and over all workloads for the methods that are on each."""
    everywhere = [name for name in study.bench.methods if all(name in study.methods(workload) for workload in study.workloads)]
    whole = list(study.bench.methods)
    sections = [_rank_section(study, cells, whole)]
    return sections if everywhere == whole else [*sections, _rank_section(study, cells, everywhere)]


def _rank_section(study: Study, cells: Sequence[Cell], methods: Sequence[str]) -> str:
    workloads = [workload for workload in study.workloads if all(name in study.methods(workload) for name in methods)]
    if not methods or not workloads:
        return ""
    mine = [cell for cell in cells if cell.workload in {workload.name for workload in workloads}]
    overall = average_ranks(rank_table(mine, methods))
    if not overall:
        return ""
    shares = sorted({share for workload in workloads for share in study.shares(workload)})
    by_share = {share: average_ranks(rank_table(mine, methods, [share])) for share in shares}
    head = "| method | all budgets, 95 % interval | " + " | ".join(f"{share:.0%}" for share in shares) + " |"
    lines = [
        f"## Average rank of {len(methods)} methods on {len(workloads)} workload{'s' * (len(workloads) > 1)} (1 is best)\n",
        head, "|---|---|" + "---|" * len(shares),
    ]  # fmt: skip
    for name in sorted(methods, key=lambda name: overall[name].mean):
        row = [f"{by_share[share][name].mean:.1f}" if name in by_share[share] else "" for share in shares]
        lines.append(f"| {name} | {_ranked(overall[name])} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _ranked(interval: Interval) -> str:
    return f"**{interval.mean:.2f}** [{interval.low:.2f}, {interval.high:.2f}]"


def target_section(study: Study, cells: Sequence[Cell]) -> str:
    """Return the share of the budget at which each method reaches the target on each workload, and its score."""
    target = study.bench.target
    assert target is not None
    times = target_times(study, cells)
    if not times:
        return ""
    by_method = ratios(times)
    lines = [
        "## Smallest budget that reaches the target\n",
        f"The target on a workload is what {target.method} reaches with {target.share:.0%} of the budget (median over seeds). Score: area under the "
        "performance profile up to 4 times the best, 1 for a method that is first everywhere.\n",
        "| method | score | " + " | ".join(times) + " |", "|---|---|" + "---|" * len(times),
    ]  # fmt: skip
    for name in sorted(by_method, key=lambda name: -score(list(by_method[name].values()))):
        row = [f"{times[w][name]:.0%}" if math.isfinite(times[w][name]) else "-" for w in times]
        lines.append(f"| {name} | {score(list(by_method[name].values())):.2f} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def difference_section(study: Study, cells: Sequence[Cell]) -> str:
    """Return in how many (workload, budget) places each method is better or worse than the baseline beyond its 95 % interval."""
    baseline = study.bench.baseline
    lines = [
        f"## Against {baseline}, paired by seed\n",
        "Places (workload and budget) where the 95 % interval of the difference lies on one side of zero.\n",
        "| method | better | worse | neither |", "|---|---|---|---|",
    ]  # fmt: skip
    for name in study.bench.methods:
        if name == baseline:
            continue
        places = [(w.name, share) for w in study.workloads if name in study.methods(w) for share in study.shares(w)]
        found = [paired(cells, name, baseline, workload, share) for workload, share in places]
        better, worse = sum(one.high < 0 for one in found), sum(one.low > 0 for one in found)
        lines.append(f"| {name} | {better} | {worse} | {len(found) - better - worse} |")
    return "\n".join(lines) + "\n"


def quality_section(study: Study, cells: Sequence[Cell], workload: Workload) -> str:
    """Return the metric of every method at every budget on one workload, with half the 95 % interval, and the peak that was found."""
    mine = [cell for cell in cells if cell.workload == workload.name]
    shares = study.shares(workload)
    lines = [
        f"## {workload.name}\n", f"{workload.about}. {workload.metric}, {workload.better} is better; full budget {workload.full}.\n",
        "| method | peak | " + " | ".join(f"{share:.0%}" for share in shares) + " |", "|---|---|" + "---|" * len(shares),
    ]  # fmt: skip
    for name in study.methods(workload):
        rows = [[cell for cell in mine if cell.method == name and cell.share == share] for share in shares]
        peak = next((cell.peak for row in rows for cell in row), math.nan)
        lines.append(f"| {name} | {peak:.4g} | " + " | ".join(_quality(row) for row in rows) + " |")
    return "\n".join(lines) + "\n"


def _quality(row: Sequence[Cell]) -> str:
    seen = [cell.metric for cell in row if cell.metric is not None]
    interval = mean_interval(seen)
    text = f"{interval.mean:.4f} ± {interval.high - interval.mean:.4f}" if len(seen) > 1 else f"{interval.mean:.4f}"
    return text + (f" ({len(row) - len(seen)} diverged)" if len(seen) < len(row) else "")


def claims_markdown(findings: Sequence[Finding]) -> str:
    """Return claims as a table; the difference is of losses, so that below zero is good for the method."""
    lines = [
        "| claim | workload, budget | method | baseline | difference, 95 % interval | not training | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in findings:
        claim = one.claim
        within = f" (margin {claim.margin:g})" if claim.claims == "within" else ""
        lines.append(
            f"| **{claim.name}**: {claim.says} | {claim.workload}, {claim.share:.0%} | {one.method.mean:.4g} | {one.baseline.mean:.4g} "
            f"| {one.difference}{within} | {one.overhead:.0%} of steps | {one.verdict} |"
        )
    return "\n".join(lines) + "\n"
