"""Kill test: kill -9 at random instants, resume, and compare the final weights bit by bit with those of an uninterrupted run.

    python bench/kill.py [--kills 50] [--optimizer "{galore: {rank: 4, period: 7}}"] [--adapter "{adalora: {rank: 4}}"]

The budget is in steps, so that runs are deterministic. Every step is made of eight accumulated pieces and every third one is followed by a
checkpoint, so that kills fall into both; a third of the kills wait for a checkpoint to be half written. Then a byte of every checkpoint file is
flipped, and the disk fills up during a save. The children are forked from a process that has imported everything, so that a kill may come at
any instant of the run itself.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import yaml
from settings import digits

import outlay
from outlay.meter import LOST
from outlay.rng import numpy_generator
from outlay.train.checkpoint import checkpoints
from outlay.train.journal import read_journal

#: what the recipe is changed by
CHANGES: dict[str, Any] = {}


def recipe() -> outlay.Recipe:
    """Return the deterministic recipe: 150 steps of 8 pieces, a checkpoint every 3 steps, dropout, warm-up."""
    return digits(budget="150 steps", micro_batch=8, checkpoints={"every_steps": 3}, **CHANGES)


def spawn(folder: Path, fresh: bool) -> int:
    """Fork a child that runs or resumes in ``folder``; return its process id."""
    child = os.fork()
    if child:
        return child
    try:
        outlay.run(recipe(), folder) if fresh else outlay.resume(folder)
        os._exit(0)
    except BaseException as error:  # the parent reads the status; nothing may escape into its own code
        print(f"child: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def kill_at(child: int, folder: Path, delay: float, in_save: bool, from_start: bool = False) -> str | None:
    """Kill the child ``delay`` seconds after its journal begins (or after its start), or as soon after that as a checkpoint is half written.

    Returns where it was; None if it had ended.
    """
    while not from_start and not (folder / "journal.jsonl").exists():
        time.sleep(0.0005)
    deadline = time.monotonic() + delay
    while time.monotonic() < deadline or (in_save and not any(folder.glob("checkpoints/.incomplete-*"))):
        if os.waitpid(child, os.WNOHANG)[0]:
            return None
        if time.monotonic() > deadline + 10:
            break
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if not (folder / "journal.jsonl").exists():
        return "before the journal"
    if any(folder.glob("checkpoints/.incomplete-*")):
        return "inside a checkpoint"
    return "between checkpoints"


def weights(folder: Path) -> bytes:
    """Return the bytes of the final weights."""
    return (folder / "model" / "model.safetensors").read_bytes()


def ended(folder: Path) -> bool:
    """Return whether a run had written its last line."""
    return (folder / "journal.jsonl").exists() and any(line["kind"] == "closed" for line in read_journal(folder))


def survive(folder: Path, reference: bytes, delay: float, in_save: bool, from_start: bool) -> tuple[str, str]:
    """Start, kill, resume; return where the kill came and what was wrong ('' for nothing)."""
    where = kill_at(spawn(folder, True), folder, delay, in_save, from_start)
    if where is None or ended(folder):
        return "after the end", "" if weights(folder) == reference else "weights differ"
    if not (folder / "recipe.yaml").exists():
        return "before the directory", ""
    _, status = os.waitpid(spawn(folder, False), 0)
    if status:
        return where, "did not resume"
    result = json.loads((folder / "result.json").read_text())
    if weights(folder) != reference:
        return where, "weights differ"
    if result["budget"]["steps"]["spent"] != 150:
        return where, "budget not met"
    return where, check_lost(folder, result)


def check_lost(folder: Path, result: dict[str, Any]) -> str:
    """Compare what the books call lost with the steps that the journal shows twice."""
    steps = [line["step"] for line in read_journal(folder) if line["kind"] == "step"]
    twice = len(steps) - len(set(steps))
    if result["lost"].get("steps", 0) != twice:
        return f"{twice} steps were done twice, {result['lost'].get('steps', 0)} are booked as lost"
    if twice and not result["accounts"].get(LOST, {}).get("seconds", 0) > 0:
        return "no lost seconds on the books"
    return ""


def flip_bytes(scratch: Path, lasted: float) -> list[str]:
    """Flip one byte in each file of the newest checkpoint of a stopped run; every time it must be refused by name and the one before be used."""
    stopped = scratch / "stopped"
    kill_at(spawn(stopped, True), stopped, lasted / 2, True)
    newest = checkpoints(stopped / "checkpoints")[-1]
    problems = []
    for file in sorted(newest.iterdir()):
        folder = scratch / f"flipped-{file.name}"
        shutil.copytree(stopped, folder)
        victim = folder / "checkpoints" / newest.name / file.name
        data = bytearray(victim.read_bytes())
        data[int(numpy_generator(0, file.name).integers(len(data)))] ^= 1
        victim.write_bytes(data)
        _, status = os.waitpid(spawn(folder, False), 0)
        lines = read_journal(folder)
        named = [line["message"] for line in lines if line["kind"] == "warning" and str(victim) in line["message"]]
        resumed = next((line for line in lines if line["kind"] == "resume"), {})
        good = status == 0 and named and resumed["from_step"] < int(newest.name.split("-")[1])
        print(f"  {file.name}: {'refused by name, resumed from step ' + str(resumed['from_step']) if good else 'NOT refused'}")
        if not good:
            problems.append(f"a flipped byte in {file.name} was not refused")
    return problems


def full_disk(scratch: Path, reference: bytes) -> list[str]:
    """Let every write beyond 12 KiB fail while the run goes on: it must end on its budget with a warning and the right weights."""
    folder = scratch / "full"
    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        save = outlay.train.saving.save_checkpoint

        def with_full_disk(where: Path, step: int, snapshot: Any) -> Path:
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)
            if 60 <= step < 90:
                resource.setrlimit(resource.RLIMIT_FSIZE, (12 * 1024, limit[1]))
            try:
                return save(where, step, snapshot)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)

        outlay.train.saving.save_checkpoint = with_full_disk
        outlay.run(recipe(), folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    warnings = [line["message"] for line in read_journal(folder) if line["kind"] == "warning"]
    good = status == 0 and weights(folder) == reference and bool(warnings)
    print(
        f"  full disk: {'the run ended on its budget with ' + str(len(warnings)) + ' warnings: ' + warnings[0] if good else 'NOT survived'}"
    )
    return [] if good else ["a full disk ended the run"]


def main() -> int:
    """Run everything; the exit status is 1 when something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--optimizer", help="of the recipe, as YAML")
    parser.add_argument("--adapter", help="of the recipe, as YAML")
    told = parser.parse_args()
    kills = told.kills
    if told.optimizer:
        CHANGES["optimizer"] = yaml.safe_load(told.optimizer)
    if told.adapter:
        CHANGES["adapter"] = yaml.safe_load(told.adapter)
    torch.set_num_threads(1)
    scratch = Path(tempfile.mkdtemp())
    result = outlay.run(recipe(), scratch / "reference")  # in this process, so that it has imported everything before it forks
    lasted = sum(book["seconds"] for account, book in result.accounts.items() if account not in ("setup", "plan"))
    reference = weights(scratch / "reference")
    places: Counter[str] = Counter()
    problems = []
    for number in range(kills):
        delay = float(numpy_generator(number, "kill").random()) * lasted
        where, problem = survive(scratch / f"kill-{number}", reference, delay, in_save=number % 3 == 0, from_start=number % 10 == 9)
        places[where] += 1
        if problem:
            problems.append(f"kill {number} ({where}): {problem}")
    print(f"{kills} kills: " + ", ".join(f"{count} {where}" for where, count in places.most_common()))
    print(f"resumed with bitwise the same weights and lost work on the books: {kills - len(problems)} of {kills}")
    problems += flip_bytes(scratch, lasted) + full_disk(scratch, reference)
    shutil.rmtree(scratch)
    print("\n".join(problems) or "nothing failed")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
