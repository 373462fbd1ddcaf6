"""Where scarce labels should go: to the larger model and over a bridge to the smaller one, or to the smaller one at once (arXiv 2605.12483).

    python bench/teacher_student.py [--budget 100s] [--seeds 3] [--labels 60] [--processes 2] [--out runs/teacher_student]

Every way of spending has the same labels (questions with their answers, of which a quarter are also read as demonstrations) and the same budget in
all, teacher, bridge and imports of later legs included:

    bridge      the teacher learns from demonstrations, then from rewards; its answers to questions without labels warm the student up, which then
                answers itself and follows the teacher token by token
    direct      the student learns from demonstrations, then from rewards
    unrewarded  like bridge, but the teacher learns from demonstrations alone; the bridge gets what its rewards would have cost

Reported is the student's exact match on held-out questions, and the differences to ``direct`` over the seeds, with 95 % intervals of Student's t. A
stopped bench goes on where it was when it is called again with the same values.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

TASKS = {"gcd": [1, 2], "reverse": [1, 2], "sort": [1]}
TEACHER = {"transformer": {"hidden": 96, "layers": 3, "heads": 4, "context": 32}}
STUDENT = {"transformer": {"hidden": 48, "layers": 2, "heads": 4, "context": 32}}
NEW_TOKENS = 10
WAYS = ("bridge", "direct", "unrewarded")


def labelled(folder: Path, each: int, seed: int) -> tuple[Path, Path]:
    """Write the labelled questions, ``each`` a task and level, and the quarter of them that are demonstrations; return both files."""
    from outlay.rng import derive
    from outlay.sources.prompts import draw_problems

    folder.mkdir(parents=True, exist_ok=True)
    problems = draw_problems({task: tuple(levels) for task, levels in TASKS.items()}, "train", each, derive(seed, "bench/labels"), "short")
    rows = [{"prompt": one.prompt, "answer": one.answer, "reference": one.answer} for one in problems]
    files = folder / f"labels-{each}-{seed}.jsonl", folder / f"demonstrations-{each}-{seed}.jsonl"
    for path, some in zip(files, (rows, rows[::4]), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in some))
    return files


def load_model(plain: dict[str, Any]) -> Any:
    import outlay

    ((name, fields),) = plain.items()
    return outlay.make(f"models/{name}", **fields)


def lr(peak: float, then: str) -> dict[str, Any]:
    return {"lr": {"peak": peak, "schedule": {"warmup": {"fraction": 0.05, "then": then}}}, "clip": 1.0}


def demonstrations(file: Path, share: float) -> dict[str, Any]:
    source = {"table": {"path": str(file), "held_out_share": 0.0, "longest": 32}}
    return {"name": "demonstrations", "share": share, "source": source, "batch_size": 64, "knobs": lr(0.004, "rex") | {"weight_decay": 0.1}}


def rewards(file: Path, share: float) -> dict[str, Any]:
    rolled = {
        "prompts": {"file": {"path": str(file)}},
        "rewards": {"right": "exact"},
        "samples": 8,
        "new_tokens": NEW_TOKENS,
        "repair": "refill",
    }
    objective = {"grpo": {"kl": 0.0}}
    return {
        "name": "rewards", "share": share, "source": {"rollouts": rolled}, "objective": objective, "batch_size": 128, "knobs": lr(0.001, "linear"),
    }  # fmt: skip


def distilled(name: str, share: float, source: dict[str, Any], divergence: str, peak: float, then: str) -> dict[str, Any]:
    objective = {"distillation": {"teacher": {"pretrained": {"path": "$teacher"}}, "divergence": divergence}}
    return {"name": name, "share": share, "source": source, "objective": objective, "batch_size": 64, "knobs": lr(peak, then)}


def recipe(model: dict[str, Any], *stages: dict[str, Any], exam: bool = False) -> dict[str, Any]:
    exams = {"exams": [{"exact_match": {"tasks": TASKS, "problems": 100}}], "start": False} if exam else {"exams": []}
    return {"threads": 1, "model": model, "stages": list(stages), "evaluate": exams}


def legs(way: str, labels: Path, shown: Path) -> list[dict[str, Any]]:
    """The legs of one way of spending."""
    if way == "direct":
        return [{"name": "student", "recipe": recipe(STUDENT, demonstrations(shown, 1), rewards(labels, 3), exam=True)}]
    prompts = {"reasoning": {"tasks": TASKS}}
    learnt = [demonstrations(shown, 1), *([rewards(labels, 3)] if way == "bridge" else [])]
    spoken = {
        "model": {"pretrained": {"path": "$teacher"}}, "prompts": prompts, "questions": 1500, "samples": 2, "new_tokens": NEW_TOKENS, "together": 64,
        "threads": 1,
    }  # fmt: skip
    own = {"rollouts": {"prompts": prompts, "rewards": {"ended": "missing_end"}, "samples": 1, "new_tokens": NEW_TOKENS}}
    bridge = (
        distilled("warm_up", 1, {"table": {"path": "$spoken.file", "held_out_share": 0.0, "longest": 32}}, "forward_kl", 0.004, "rex"),
        distilled("on_policy", 2, own, "reverse_kl", 0.002, "linear"),
    )
    return [
        {"name": "teacher", "share": 5 if way == "bridge" else 1.25, "recipe": recipe(TEACHER, *learnt)},
        {"name": "spoken", "share": 0.5, "answers": spoken},
        {"name": "student", "share": 4.5, "recipe": recipe(STUDENT, *bridge, exam=True)},
    ]


def spend(way: str, seed: int, budget: str, each: int, out: Path) -> tuple[float, dict[str, float]]:
    """Spend one way with one seed; return the student's exact match and what was spent."""
    import torch

    from outlay.train.pipeline import load_pipeline
    from outlay.train.piping import run_pipeline

    torch.set_num_threads(1)
    load_model(STUDENT).build(0)  # a worker's first run shall not pay for imports that the others find done
    out = out.absolute()
    labels, shown = labelled(out, each, seed)
    asked = load_pipeline({"name": way, "budget": budget, "seed": seed, "legs": legs(way, labels, shown)})
    result = run_pipeline(asked, out / f"{way}-{seed}")
    if result.exit_code:
        raise SystemExit(f"{way}, seed {seed}: stopped; call again to go on")
    return result.metrics["exact_match"], result.spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--budget", default="100s")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labels", type=int, default=60, help="labelled questions for each task and level")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/teacher_student"))
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    from outlay.bench.statistics import mean_interval

    jobs = [(way, seed) for seed in range(asked.seeds) for way in WAYS]
    with ProcessPoolExecutor(asked.processes, multiprocessing.get_context("spawn")) as pool:
        running = {job: pool.submit(spend, *job, asked.budget, asked.labels, asked.out) for job in jobs}
        found = {job: future.result() for job, future in running.items()}
    print(f"{'way':12}{'seed':>5}{'exact match':>13}  spent")
    for (way, seed), (score, spent) in found.items():
        units = ("seconds", "flops", "rollouts", "examples")
        print(f"{way:12}{seed:5}{score:13.3f}  " + ", ".join(f"{spent[unit]:.4g} {unit}" for unit in units if unit in spent))
    for way in WAYS:
        print(f"{way}: {mean_interval([found[way, seed][0] for seed in range(asked.seeds)])}")
    for way in ("bridge", "unrewarded"):
        differences = [found[way, seed][0] - found["direct", seed][0] for seed in range(asked.seeds)]
        print(f"{way} - direct: {mean_interval(differences)}")
    differences = [found["bridge", seed][0] - found["unrewarded", seed][0] for seed in range(asked.seeds)]
    print(f"bridge - unrewarded: {mean_interval(differences)}")


if __name__ == "__main__":
    main()
