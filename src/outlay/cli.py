"""Command line: plan, run, resume, replay, report, methods, bench.

Exit codes: 0 the budget was spent; 2 the input was wrong and nothing was created; 3 a signal stopped the run, which can be resumed;
4 the run failed; 130 a second Ctrl-C.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from outlay.cli_bench import app as bench_app
from outlay.errors import InputError, MissingExtra, OutlayError

if TYPE_CHECKING:
    from outlay.reporting.terminal import Display
    from outlay.train import Result
    from outlay.train.piping import PipelineResult

app = typer.Typer(
    name="outlay", help="The best model your budget buys.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    epilog="Exit codes: 0 spent, 2 wrong input, 3 stopped by a signal (resumable), 4 failed, 130 second Ctrl-C.",
)  # fmt: skip

app.add_typer(bench_app)

RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or the name of one that comes with outlay (quickstart, ...).")]
BudgetOption = Annotated[
    str | None, typer.Option("--budget", help="Replace the recipe's budget: '30m', '500M tokens', '10m or 3k steps', '10m, 24GiB'.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Replace one value: key=value, e.g. stages[0].knobs.lr.peak=0.001. Repeatable.")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Directory of the run; default runs/<name>-<number>.")]
RunArgument = Annotated[Path, typer.Argument(help="A run directory.")]


@app.command()
def plan(
    recipe: RecipeArgument,
    budget: BudgetOption = None,
    set_: SetOption = None,
    probe: Annotated[bool, typer.Option("--probe", help="Measure a few real steps and charge them, instead of a formula.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say before spending what the budget buys: steps, tokens, time, memory by part, and what will not fit."""
    from outlay.train import load_recipe
    from outlay.train import plan as make_plan

    made = make_plan(load_recipe(recipe, set_ or (), budget), probe=probe)
    if as_json:
        typer.echo(json.dumps(made.to_json(), indent=1))
    else:
        for line in made.lines():
            typer.echo(line)


@app.command()
def run(recipe: RecipeArgument, budget: BudgetOption = None, set_: SetOption = None, out: OutOption = None) -> None:
    """Spend the budget of a recipe, or of a pipeline of several runs, end on it, and show where it went."""
    from outlay.train import load_recipe
    from outlay.train import run as spend
    from outlay.train.reading import holds_pipeline

    if holds_pipeline(recipe):
        from outlay.train.pipeline import load_pipeline
        from outlay.train.piping import run_pipeline

        _conclude_pipeline(run_pipeline(load_pipeline(recipe, set_ or (), budget), out, display=_display, began=_process_began()))
        return
    asked = load_recipe(recipe, set_ or (), budget)
    _conclude(spend(asked, out, display=_display(asked.name), began=_process_began()))


@app.command()
def resume(folder: RunArgument) -> None:
    """Go on with a run or pipeline that was stopped or killed; what was lost is on the books."""
    from outlay.train import resume as go_on

    if (folder / "pipeline.yaml").is_file():
        from outlay.train.piping import resume_pipeline

        _conclude_pipeline(resume_pipeline(folder, display=_display, began=_process_began()))
        return
    _conclude(go_on(folder, display=_display(folder.name), began=_process_began()))


@app.command()
def replay(folder: RunArgument, out: OutOption = None) -> None:
    """Repeat a run from its journal, so that a run limited by seconds ends with the same weights."""
    from outlay.train import replay as repeat

    _conclude(repeat(folder, out, display=_display(folder.name)))


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Run directories; several are shown side by side.")],
    html: Annotated[Path | None, typer.Option("--html", help="File to write; default report.html in the run's directory.")] = None,
) -> None:
    """Write the report of one or several runs, and print a summary."""
    from rich.console import Console

    from outlay.reporting import print_summary, read_run
    from outlay.reporting import report as write

    path = write(folders, html)
    for folder in folders:
        print_summary(read_run(folder), Console())
    typer.echo(f"report: {path}")


@app.command()
def methods(
    family: Annotated[str | None, typer.Option("--family", help="Show one family only.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: name, family, title, paper, summary, fields.")] = False,
) -> None:
    """List every method with its paper and what it does."""
    from rich.console import Console
    from rich.table import Table

    from outlay.catalog import listing

    entries = listing(family)
    if as_json:
        typer.echo(json.dumps([asdict(entry) for entry in entries], indent=1))
        return
    table = Table("name", "title", "paper", "what it does", box=None, pad_edge=False)
    for entry in entries:
        table.add_row(entry.name, entry.title, f"arXiv {entry.paper.arxiv}" if entry.paper and entry.paper.arxiv else "", entry.summary)
    Console().print(table)


def _display(name: str) -> Display:
    from rich.console import Console

    from outlay.reporting.terminal import make_display

    return make_display(Console(), name=name)


def _process_began() -> float:
    """Reading of the monotonic clock when this process was started: imports are part of what a run costs."""
    try:
        # Linux counts the start in ticks since boot, to 10 ms; other systems only tell the time of day
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        import psutil

        age = time.time() - psutil.Process().create_time()
    return time.monotonic() - max(0.0, age)


def _conclude(result: Result) -> None:
    from rich.console import Console

    from outlay.reporting import print_summary, read_run

    print_summary(read_run(result.folder), Console())
    typer.echo(f"run directory: {result.folder}" + (f"; go on with: outlay resume {result.folder}" if result.ended_by == "signal" else ""))
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def _conclude_pipeline(result: PipelineResult) -> None:
    from rich.console import Console
    from rich.table import Table

    from outlay.budget import format_amount

    units = list(dict.fromkeys([*result.budget, "seconds"]))  # result.json holds the others
    table = Table("leg", *units, "ended by", box=None, pad_edge=False)
    ended = {leg["name"]: leg.get("ended_by", "") for leg in result.legs}
    for name in [*ended, "pipeline"]:
        table.add_row(name, *(f"{result.went[unit].get(name, 0.0):.4g}" for unit in units), ended.get(name, ""))
    table.add_row("all", *(f"{result.spent[unit]:.4g}" for unit in units), result.ended_by)
    limits = {unit: format_amount(unit, entry["limit"]) for unit, entry in result.budget.items()}
    table.add_row("budget", *(limits.get(unit, "") for unit in units), "")
    Console().print(table)
    for name, value in result.metrics.items():
        typer.echo(f"{name}: {value:.4g}")
    going_on = f"; go on with: outlay resume {result.folder}" if result.ended_by == "signal" else ""
    typer.echo(f"pipeline directory: {result.folder}{going_on}")
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def _fail(error: Any, code: int) -> NoReturn:
    typer.echo(f"outlay: {error}", err=True)
    raise SystemExit(code)


def main() -> None:
    """Run the command line; wrong input is told in full and exits with 2."""
    try:
        app()
    except (InputError, MissingExtra) as error:
        _fail(error, 2)
    except OutlayError as error:
        _fail(error, 4)


def entry() -> NoReturn:
    """Run the command line as a process of its own, and leave at once: with torch loaded the interpreter takes a second or two to tidy up,
    which would be on nobody's books."""
    code: int | str | None = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    entry()
