"""Kill test of stages that act: kill -9 inside generations, judging and updates, resume, and compare with a run that was left alone.

    python bench/kill_rollouts.py [--kills 30] [--taught]

The budget is in steps, so that runs are deterministic. A third of the kills each come between two tokens of a generation, between two answers that
are judged, and between two pieces of an update, at a place drawn for each kill. Every question must have been asked once, none left out, and the final
weights must be the same bit by bit.

With ``--taught`` a teacher chooses what is asked out of a pool of single questions, a value network on the model's view of them estimates, an allocator
probes and divides, and a repair replays: all of them keep state, and what each chose must be the same too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from kill import weights

import outlay
from outlay.rewards import Exact
from outlay.rng import numpy_generator
from outlay.rollout.local import LocalGenerator
from outlay.train import update
from outlay.train.journal import effective, read_journal

#: updates, generations that serve two updates each, answers of a generation, pieces of an update
STEPS, GENERATIONS, ANSWERS, PIECES = 24, 12, 64, 4


#: parts that keep state
TAUGHT: dict[str, Any] = {
    "teacher": {"floor": {"teacher": "dump", "floor": 0.2}}, "estimator": {"value_network": {"reads": "model"}},
    "allocator": {"cures": {"probe": 2}}, "least": 2, "most": 16, "repair": "replay",
}  # fmt: skip


def recipe(taught: bool) -> outlay.Recipe:
    """Return the deterministic recipe: answers to 8 questions a generation, two updates on each, a checkpoint every 3 updates."""
    source = {
        "prompts": {"reasoning": {"tasks": {"gcd": [1, 2], "reverse": [1]}}}, "rewards": {"right": "exact"}, "samples": 8, "new_tokens": 8,
        "minibatches": 2,
    }  # fmt: skip
    if taught:
        source |= TAUGHT | {"prompts": {"pool": {"of": source["prompts"], "size": 40}}}
    return outlay.load_recipe({
        "name": "answers", "budget": f"{STEPS} steps", "threads": 1, "micro_batch": 8, "checkpoints": {"every_steps": 3},
        "model": {"transformer": {"hidden": 32, "layers": 2, "heads": 2, "context": 32}},
        "stages": [{
            "source": {"rollouts": source}, "objective": {"grpo": {"kl": 0.05}}, "batch_size": 32,
            "knobs": {"lr": {"peak": 0.003, "schedule": "linear"}, "temperature": {"peak": 1.2, "schedule": {"cosine": {"floor": 0.5}}}},
        }],
    })  # fmt: skip


def die_at(place: int, count: Iterator[int]) -> None:
    """Kill this process when it comes here for the time of this number."""
    if next(count) == place:
        os.kill(os.getpid(), signal.SIGKILL)


def in_generation(share: float) -> None:
    """Arm: between two tokens."""
    real = LocalGenerator.generate
    count, place = iter(range(10**9)), int(share * GENERATIONS * 6)

    def generate(self: LocalGenerator, requests: Any, sampling: Any, **named: Any) -> Any:
        leave = named["leave"]

        def asked(work: Any) -> bool:
            die_at(place, count)
            return bool(leave(work))

        return real(self, requests, sampling, **{**named, "leave": asked})

    LocalGenerator.generate = generate  # type: ignore[method-assign]


def in_reward(share: float) -> None:
    """Arm: between two answers."""
    real = Exact.judge
    count, place = iter(range(10**9)), int(share * GENERATIONS * ANSWERS)

    def judge(self: Exact, answers: Any) -> Any:
        verdicts = []
        for answer in answers:
            die_at(place, count)
            verdicts += real(self, [answer])
        return verdicts

    Exact.judge = judge  # type: ignore[method-assign]


def in_update(share: float) -> None:
    """Arm: between two pieces."""
    real = update.seeded
    count, place = iter(range(10**9)), int(share * STEPS * PIECES * 0.5)  # answers without part in the gradient leave fewer pieces

    def seeded(*arguments: Any) -> Any:
        die_at(place, count)
        return real(*arguments)

    update.seeded = seeded  # type: ignore[misc, assignment]


PLACES: dict[str, Callable[[float], None]] = {"generation": in_generation, "reward": in_reward, "update": in_update}


def spawn(work: Callable[[], object]) -> int:
    """Do the work in a fork of this process; return its exit status, negative for a signal."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"child: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def places(folder: Path) -> list[int]:
    """Return the numbers of the questions asked in the history that led to the final weights."""
    lines = [line for line in effective(read_journal(folder)) if line["kind"] == "rollout"]
    return [place for line in lines for place in range(line["place"], line["place"] + line["questions"])]


def chosen(folder: Path) -> list[Any]:
    """Return what was asked by kind, how answers were divided, and what the teacher expected, generation by generation."""
    lines = [line for line in effective(read_journal(folder)) if line["kind"] == "rollout"]
    return [[line["kinds"], line["divided"], line.get("shares")] for line in lines]


def survive(folder: Path, reference: Path, where: str, share: float, taught: bool) -> str:
    """Run, be killed, resume; return what was wrong ('' for nothing)."""

    def killed() -> None:
        PLACES[where](share)
        outlay.run(recipe(taught), folder)

    if spawn(killed) != -signal.SIGKILL:
        return "was not killed"
    if spawn(lambda: outlay.resume(folder)):
        return "did not resume"
    asked = places(folder)
    if asked != list(range(len(asked))) or len(asked) != GENERATIONS * 8:
        return f"questions were skipped or asked twice: {len(asked)} of {GENERATIONS * 8}, {len(set(asked))} different"
    if chosen(folder) != chosen(reference):
        return "other questions were chosen, or answers divided otherwise"
    return "" if weights(folder) == weights(reference) else "weights differ"


def main() -> int:
    """Run everything; the exit status is 1 when something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--taught", action="store_true", help="under a teacher, an allocator and a repair")
    arguments = parser.parse_args()
    kills, taught = arguments.kills, arguments.taught
    torch.set_num_threads(1)
    scratch = Path(tempfile.mkdtemp())
    outlay.run(recipe(taught), scratch / "reference")  # in this process, so that it has imported everything before it forks
    done, problems = Counter[str](), list[str]()
    for number in range(kills):
        where = list(PLACES)[number % len(PLACES)]
        problem = survive(scratch / f"kill-{number}", scratch / "reference", where, float(numpy_generator(number, "kill").random()), taught)
        done[where] += not problem
        if problem:
            problems.append(f"kill {number} (in {where}): {problem}")
    print(f"{kills} kills: survived " + ", ".join(f"{count} in {where}" for where, count in done.items()))
    print(f"no question skipped or asked twice, bitwise the same weights: {kills - len(problems)} of {kills}")
    shutil.rmtree(scratch)
    print("\n".join(problems) or "nothing failed")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
