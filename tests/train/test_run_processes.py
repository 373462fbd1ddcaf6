"""Several processes spend one run: they take the same steps, keep one journal, and learn what a single one would have."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from small_runs import DOCUMENTS, EXAM, SCHEDULE, audit, child, digits, language, lines, plain_stage, result_of, wait, weights

import outlay
from outlay.train import Recipe, Result, assembly, checkpoint
from outlay.train.adapting import prime
from outlay.train.checkpoint import load_checkpoint
from outlay.train.journal import read_journal
from outlay.train.preparing import prepare


@pytest.fixture(autouse=True, scope="module")
def warm(finished: Result) -> None:
    """All is imported before anything is forked."""


def in_two(work: Callable[[int], object], folder: Path) -> list[int]:
    """Do the work in two processes that torch's elastic launcher might have started; return how they ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def as_rank(rank: int) -> None:
        from accelerate.state import AcceleratorState, GradientState, PartialState

        # forked from a process that may have been one of one
        for state in (AcceleratorState, PartialState, GradientState):
            state._reset_state()
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"ACCELERATE_USE_CPU": "true", "LOCAL_WORLD_SIZE": "2"}
        answer = work(rank)
        (folder / f"answer-{rank}.json").write_text(json.dumps(answer))
        torch.distributed.destroy_process_group()

    processes = [child(lambda rank=rank: as_rank(rank)) for rank in range(2)]  # type: ignore[misc]
    ended: list[int] = []
    try:
        for process in processes:
            ended.append(wait(process))
        return ended
    finally:
        for process in processes[len(ended) + 1 :]:  # the one before them was killed for not ending
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def spent(recipe: Recipe, folder: Path) -> list[dict[str, Any]]:
    """Spend a recipe in two processes; return what each of them says of it."""

    def work(rank: int) -> dict[str, Any]:
        made: list[assembly.Assembly] = []
        run_module = importlib.import_module("outlay.train.run")

        def assemble(*arguments: Any, **named: Any) -> assembly.Assembly:
            made.append(assembly.assemble(*arguments, **named))
            return made[0]

        run_module.assemble = assemble  # type: ignore[attr-defined]
        result = outlay.run(recipe, folder)
        sums = [float(p.detach().double().sum()) for p in made[0].plain_module.parameters()]
        return {"steps": result.steps, "ended_by": result.ended_by, "spent": result.spent, "weights": sums, "lost": result.lost}

    assert in_two(work, folder.parent) == [0, 0]
    return [json.loads((folder.parent / f"answer-{rank}.json").read_text()) for rank in range(2)]


def difference(one: Path, other: Path) -> float:
    mine, theirs = (safetensors.torch.load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    return max(float((mine[name] - theirs[name]).abs().max()) for name in theirs)


def check_one_journal(folder: Path, answers: list[dict[str, Any]]) -> None:
    journal = read_journal(folder)
    assert [line["n"] for line in journal] == list(range(len(journal))) and journal[0]["processes"] == 2
    assert [line["step"] for line in lines(folder, "step")] == list(range(1, answers[0]["steps"] + 1))
    assert audit(folder) == []
    first, second = answers
    for key in ("steps", "ended_by", "weights"):
        assert first[key] == second[key], key
    for unit in ("steps", "examples", "tokens", "flops"):
        assert first["spent"].get(unit) == second["spent"].get(unit), unit


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    """Half a batch each, gradients summed by weight; dropout is off, since each process draws its own masks."""
    recipe = digits(
        budget="30 steps",
        model={"mlp": {"inputs": 64, "classes": 10, "hidden": [32]}},
        evaluate={"exams": [EXAM], "every": 0.5},
        stages=[plain_stage(batch_size=31)],  # 16 examples and 15
        micro_batch=6,
    )
    outlay.run(recipe, tmp_path / "alone")
    answers = spent(recipe, tmp_path / "run")
    check_one_journal(tmp_path / "run", answers)
    assert difference(tmp_path / "run", tmp_path / "alone") <= 1e-5
    mine, theirs = result_of(tmp_path / "run"), result_of(tmp_path / "alone")
    assert (
        mine["spent"]["examples"] == theirs["spent"]["examples"]
        and mine["accounts"]["train"]["flops"] == theirs["accounts"]["train"]["flops"]
    )
    assert mine["metrics"] == pytest.approx(theirs["metrics"], rel=1e-4)
    losses = [[line["loss"] for line in lines(tmp_path / name, "step")] for name in ("run", "alone")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_two_processes_read_text_of_any_length(tmp_path: Path) -> None:
    """Answers of different lengths: each process pads its part to its own width, and weighs its loss by its own tokens."""
    pairs = [{"prompt": text[: 5 + 3 * i], "answer": text[10 : 12 + 2 * i]} for i, text in enumerate(DOCUMENTS[:9])]
    source = {"table": {"rows": pairs, "held_out_share": 0.0}}
    stage = {"source": source, "batch_size": 4, "knobs": {"lr": {"peak": 0.003, "schedule": SCHEDULE}}}
    recipe = language(
        budget="8 steps",
        stages=[stage],
        model={"transformer": {"hidden": 32, "layers": 1, "heads": 2, "context": 128, "tokenizer": "bytes"}},
    )
    outlay.run(recipe, tmp_path / "alone")
    answers = spent(recipe, tmp_path / "run")
    check_one_journal(tmp_path / "run", answers)
    assert difference(tmp_path / "run", tmp_path / "alone") <= 1e-5
    assert result_of(tmp_path / "run")["accounts"]["train"]["tokens"] == result_of(tmp_path / "alone")["accounts"]["train"]["tokens"]


def test_two_processes_agree_when_their_clocks_do_not(tmp_path: Path) -> None:
    """Limited by seconds: the second process's clock goes three times as fast, and it stops when the first one does."""
    recipe = digits(budget="2s", evaluate={"exams": [EXAM], "every": 0.3}, checkpoints={"every_seconds": 0.3})

    def work(rank: int) -> dict[str, Any]:
        import time

        began = time.monotonic()
        clock = time.monotonic if rank == 0 else lambda: began + 3 * (time.monotonic() - began)
        result = outlay.run(recipe, tmp_path / "run", clock=clock)
        return {"steps": result.steps, "ended_by": result.ended_by, "spent": result.spent, "weights": []}

    assert in_two(work, tmp_path) == [0, 0]
    answers = [json.loads((tmp_path / f"answer-{rank}.json").read_text()) for rank in range(2)]
    assert answers[0]["ended_by"] == "seconds" and answers[0]["steps"] > 1
    assert answers[1]["spent"]["seconds"] > 1.5 * answers[0]["spent"]["seconds"]
    check_one_journal(tmp_path / "run", answers)


def test_two_processes_are_killed_and_go_on(tmp_path: Path) -> None:
    recipe = digits(budget="20 steps", checkpoints={"every_steps": 5}, stages=[plain_stage(knobs={"lr": 0.003})])
    spent(recipe, tmp_path / "whole")

    def die(rank: int) -> None:
        real = checkpoint._manifest

        def manifest(step: int, digests: dict[str, str]) -> bytes:
            if step == 10:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(step, digests)

        checkpoint._manifest = manifest  # type: ignore[assignment]
        outlay.run(recipe, tmp_path / "run")

    first, second = in_two(die, tmp_path)
    assert first == -signal.SIGKILL and second != 0  # the second loses its partner

    def go_on(rank: int) -> dict[str, Any]:
        result = outlay.resume(tmp_path / "run")
        return {"steps": result.steps, "lost": result.lost["steps"]}

    assert in_two(go_on, tmp_path) == [0, 0]
    for rank in range(2):
        assert json.loads((tmp_path / f"answer-{rank}.json").read_text()) == {"steps": 20, "lost": 5.0}
    assert weights(tmp_path / "run") == weights(tmp_path / "whole") and audit(tmp_path / "run") == []
    saved = load_checkpoint(tmp_path / "run" / "checkpoints" / "step-00000020").plain
    assert saved["step"] == 20 and saved["cursor"]["cursor"] == 20 * 32


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[2])
from small_runs import digits, plain_stage
import outlay

recipe = digits(budget=sys.argv[3], model={"mlp": {"inputs": 64, "classes": 10, "hidden": [32]}}, stages=[plain_stage(batch_size=31)])
print(outlay.run(recipe, sys.argv[1]).steps)
"""


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["20 steps", "12s"])
def test_torchs_launcher_starts_them(budget: str, tmp_path: Path) -> None:
    script, tests = tmp_path / "script.py", Path(__file__).parent
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(tests.parents[1] / "src")}
    ended = subprocess.run(
        [*command, str(tmp_path / "run"), str(tests), budget], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    steps = result_of(tmp_path / "run")["steps"]
    assert ended.stdout.split() == [str(steps)] * 2 and audit(tmp_path / "run") == []
    recipe = digits(
        budget=f"{steps} steps", model={"mlp": {"inputs": 64, "classes": 10, "hidden": [32]}}, stages=[plain_stage(batch_size=31)]
    )
    if budget == "20 steps":
        outlay.run(recipe, tmp_path / "alone")
        assert difference(tmp_path / "run", tmp_path / "alone") <= 1e-5


@pytest.mark.parametrize("budget", ["44 steps", "4s"])
def test_two_processes_branch_together(budget: str, tmp_path: Path) -> None:
    """They leave, evaluate, save and go back at the same steps, also where a clock of the first process's says when."""
    knobs = {"lr": {"peak": 0.01, "schedule": {"annealed_branches": {"at": [0.5], "decay": 0.2}}}}
    recipe = digits(budget=budget, evaluate={"exams": [EXAM], "start": False}, stages=[plain_stage(knobs=knobs)])
    answers = spent(recipe, tmp_path / "run")
    assert answers[0]["weights"] == answers[1]["weights"] and answers[0]["spent"]["steps"] == answers[1]["spent"]["steps"]
    (landed,) = [line for line in lines(tmp_path / "run", "branch") if line["what"] == "landed"]
    ahead = lines(tmp_path / "run", "branch_step")
    assert landed["end"] == "whole" and landed["metrics"] and landed["steps"] == len(ahead) >= 1
    assert (tmp_path / "run" / "branches" / "at-0.5" / "model.safetensors").is_file() and audit(tmp_path / "run") == []
    if budget == "44 steps":
        assert [line["step"] for line in ahead] == [17, 18, 19, 20]


def test_two_processes_that_exchange_bytes_alone_stay_alike(tmp_path: Path) -> None:
    """Zeroth-order steps: each measures slopes of its own part along directions of its own, and both take everybody's step."""
    stage = plain_stage(optimizer={"zeroth_order": {"directions": 2}}, knobs={"lr": {"peak": 0.02}})
    recipe = digits(budget="40 steps", stages=[stage], model={"mlp": {"inputs": 64, "classes": 10, "hidden": [16]}})
    answers = spent(recipe, tmp_path / "run")
    check_one_journal(tmp_path / "run", answers)
    losses = [line["loss"] for line in lines(tmp_path / "run", "step")]
    assert sum(losses[-10:]) < sum(losses[:10])
    outlay.run(recipe, tmp_path / "alone")
    assert difference(tmp_path / "run", tmp_path / "alone") > 0, "twice as many slopes take another step"


def test_two_processes_prime_an_adapter_alike(tmp_path: Path) -> None:
    recipe = digits(budget="10 steps", adapter={"lora_sb": {"rank": 3, "prime_examples": 10}}, stages=[plain_stage()])

    def work(rank: int) -> dict[str, Any]:
        meter = outlay.Meter(recipe.budget)
        made = assembly.assemble(recipe)
        before = [float(t.double().sum()) for t in made.plain_module.state_dict().values()]
        prime(made, meter, prepare(made, meter, {})[0])
        after = [float(t.double().sum()) for t in made.plain_module.state_dict().values()]
        return {"before": before, "after": after, "examples": meter.accounts["adapter"]["examples"]}

    assert in_two(work, tmp_path) == [0, 0]
    first, second = (json.loads((tmp_path / f"answer-{rank}.json").read_text()) for rank in range(2))
    assert first == second and first["before"] != first["after"]
    assert first["examples"] == 20, "each looks at ten of its own, and both are charged"
