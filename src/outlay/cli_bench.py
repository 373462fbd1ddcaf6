"""Command line of the bench: run, show, claims, list."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from outlay.bench.running import Progress
    from outlay.bench.study import Study

app = typer.Typer(name="bench", help="Compare methods at equal total budget.", no_args_is_help=True)

BenchArgument = Annotated[str, typer.Argument(help="A bench file, or the name of one that comes with outlay (rex, ...).")]
StoreOption = Annotated[Path, typer.Option("--store", help="Folder of results; runs that it holds are not run again.")]
ProcessesOption = Annotated[int, typer.Option("--processes", help="Runs at a time, one thread each.", min=1)]
STORE = Path("runs/bench")
CORES = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@app.command()
def run(
    bench: BenchArgument,
    store: StoreOption = STORE,
    processes: ProcessesOption = CORES,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Measure with more or fewer seeds.", min=1)] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Only this workload. Repeatable.")] = None,
) -> None:
    """Spend a bench; stopped, it goes on where it was."""
    from outlay.bench import spend
    from outlay.bench.tables import rank_sections

    study = _study(bench, store, seeds, only, retry=True)
    with _stoppable(), _progress(study.bench.name) as told:
        spend(study, processes, told)
    for section in rank_sections(study, study.cells()):
        typer.echo(section)
    typer.echo(f"results: {store}; tables and pictures: outlay bench show {bench} --store {store} --out FOLDER")


@app.command()
def show(
    bench: BenchArgument,
    store: StoreOption = STORE,
    out: Annotated[Path | None, typer.Option("--out", help="Write report.md, cells.parquet, cells.json and pictures there.")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="As in run.", min=1)] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Only this workload. Repeatable.")] = None,
) -> None:
    """Show what a bench has found so far."""
    from outlay.bench.tables import markdown

    study = _study(bench, store, seeds, only)
    text = markdown(study)
    typer.echo(text)
    if out is not None:
        from outlay.bench.plots import draw
        from outlay.bench.store import write_table

        out.mkdir(parents=True, exist_ok=True)
        (out / "report.md").write_text(text, encoding="utf-8")
        rows = [asdict(cell) | {"spent": json.dumps(cell.spent), "accounts": json.dumps(cell.accounts)} for cell in study.cells()]
        for path in [write_table(rows, out / "cells.json"), write_table(rows, out / "cells.parquet"), *draw(study, out)]:
            typer.echo(f"wrote {path}")


@app.command()
def claims(
    only: Annotated[list[str] | None, typer.Option("--only", help="Only this claim. Repeatable.")] = None,
    store: StoreOption = STORE,
    processes: ProcessesOption = CORES,
    file: Annotated[Path | None, typer.Option("--file", help="A claims file; default: those that come with outlay.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check claims at equal total budget: mean, 95 % interval and verdict of each. A claim that fails is reported, with exit status 0."""
    from outlay.bench import check_claims, load_claims
    from outlay.bench.claims import Claim, Finding, as_rows
    from outlay.bench.store import Store
    from outlay.bench.tables import claims_markdown

    found: list[Finding] = []
    kept = Store(store, retry=True)
    for claim in load_claims(file, only or ()):
        with _stoppable(), _progress(f"claim {claim.name}") as told:

            def shown(_: Claim, told: Progress = told) -> Progress:
                return told

            found += check_claims([claim], kept, processes, shown, file.parent if file else None)
    typer.echo(json.dumps(as_rows(found), indent=1, allow_nan=False) if as_json else claims_markdown(found))


@app.command("list")
def list_() -> None:
    """List the benches, workloads and claims that come with outlay."""
    from outlay.bench.claims import load_claims
    from outlay.bench.definition import bundled, load_bench, load_workload

    for name in bundled("benches"):
        bench = load_bench(name)
        typer.echo(f"bench     {name:24} {bench.title} ({len(bench.workloads)} workloads, {len(bench.methods)} methods)")
    for name in bundled("workloads"):
        workload = load_workload(name)
        typer.echo(f"workload  {name:24} {workload.about} ({workload.full})")
    for claim in load_claims():
        typer.echo(f"claim     {claim.name:24} {claim.says}")


def _study(bench: str, store: Path, seeds: int | None, only: list[str] | None, retry: bool = False) -> Study:
    from dataclasses import replace

    from outlay.bench import Store, Study, load_bench
    from outlay.errors import InputError, nearest

    if not retry and not (store / "runs.jsonl").is_file():
        raise InputError(f"there are no results in {store}; run the bench first: outlay bench run {bench} --store {store}")
    made = load_bench(bench)
    for name in only or ():
        if name not in made.workloads:
            raise InputError(f"the bench {bench} has no workload {name!r}{nearest(name, made.workloads)}")
    made = replace(made, seeds=seeds or made.seeds, workloads=tuple(name for name in made.workloads if not only or name in only))
    return Study(made, Store(store, retry), Path(bench).parent if Path(bench).is_file() else None)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Leave on Ctrl-C with 130; what had ended is kept, what was under way is not."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("outlay: stopped; the same command goes on from here", err=True)
        raise typer.Exit(130) from None


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """Show runs done, runs known, time left and the last one."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}"),
    )
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None, last="")

        def told(done: int, known: int, seconds: float, last: str) -> None:
            bar.update(task, completed=done, total=known, last=last)

        yield told
