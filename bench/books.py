"""Books balance: at every line of the journal and in every unit, spent + left = declared; accounts sum to the total; seconds cover the run.

    python bench/books.py

Runs the command line as a process of its own, so that the seconds on the books can be held against those of the whole process.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from settings import language_model

from outlay.budget import Budget
from outlay.catalog import describe
from outlay.train.journal import read_journal

BUDGETS = ("40s", "200000 tokens or 60s", "$0.02 at $2/h", "150 steps, 2GiB")


def audit(folder: Path, budget: Budget) -> list[str]:
    """Return what does not add up in a run's journal and result."""
    problems: list[str] = []
    result = json.loads((folder / "result.json").read_text())
    accounts: dict[str, dict[str, float]] = {}
    for line in read_journal(folder):
        for account, book in line.get("charged", {}).items():
            for unit, amount in book.items():
                mine = accounts.setdefault(account, {})
                mine[unit] = mine.get(unit, 0.0) + amount
        spent = {
            unit: math.fsum(book.get(unit, 0.0) for book in accounts.values())
            for unit in ("seconds", "steps", "tokens", "examples", "flops")
        }
        if not math.isclose(spent["seconds"], line["at"], rel_tol=1e-9, abs_tol=1e-6):
            problems.append(f"line {line['n']}: the accounts hold {spent['seconds']} s and the meter says {line['at']}")
        for unit, limit in budget.limits.items():
            if (
                unit in spent
                and spent[unit] + (limit - spent[unit]) != limit
                and not math.isclose(spent[unit] + (limit - spent[unit]), limit)
            ):
                problems.append(f"line {line['n']}: spent + left is not {limit} {unit}")
            if unit in spent and spent[unit] > limit:
                problems.append(f"line {line['n']}: {spent[unit]} {unit} spent of {limit}")
    for account, book in result["accounts"].items():
        for unit, amount in book.items():
            if unit != "usd" and not math.isclose(amount, accounts.get(account, {}).get(unit, 0.0), rel_tol=1e-9, abs_tol=1e-6):
                problems.append(f"account {account}: {amount} {unit} in the result, {accounts.get(account, {}).get(unit)} in the journal")
    for unit, amount in result["spent"].items():
        total = math.fsum(book.get(unit, 0.0) for book in result["accounts"].values())
        if not math.isclose(total, amount, rel_tol=1e-9):
            problems.append(f"the accounts hold {total} {unit} and {amount} were spent")
    return problems


def main() -> int:
    """Run every budget and print how much of the process's time is on the books; the exit status is 1 when something does not add up."""
    failed = False
    for text in BUDGETS:
        with tempfile.TemporaryDirectory() as scratch:
            recipe, folder = Path(scratch, "recipe.yaml"), Path(scratch, "run")
            recipe.write_text(yaml.safe_dump(describe(language_model(text))))
            began = time.monotonic()
            subprocess.run(
                [sys.executable, "-m", "outlay.cli", "run", str(recipe), "--out", str(folder)], check=True, stdout=subprocess.DEVNULL
            )
            lasted = time.monotonic() - began
            problems = audit(folder, Budget.parse(text))
            result = json.loads((folder / "result.json").read_text())
            covered = result["spent"]["seconds"] / lasted
            lines = len(read_journal(folder))
            print(
                f"{text:<24} {lines:>5} lines, {len(problems)} problems; {result['spent']['seconds']:.2f} s of {lasted:.2f} s on the books: {covered:.2%}",
                flush=True,
            )
            for problem in problems[:5]:
                print(f"  {problem}")
            failed |= bool(problems) or covered < 0.99
    print("the books do not balance" if failed else "the books balance")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
