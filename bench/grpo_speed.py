"""GRPO: outlay's training steps a second over those of TRL's GRPOTrainer, side by side in one process on one CPU thread.

    OMP_NUM_THREADS=1 python bench/grpo_speed.py [--repeats 5] [--steps 6] [--case full|early]

Both train the same Llama of about 1M parameters on the same prompts of 16 tokens, 8 prompts x 8 answers an update, up to 64 new tokens, with fused
AdamW, clipping at 1, no divergence term, one update a generation. ``full``: every answer runs to its limit; ``early``: answers end by themselves
after 16 tokens on average. What decides that lies in the weights that both begin with: one coordinate of the residual stream is the same
everywhere, and the end mark's row of the output layer reads that alone. The learning rate is too small to change it. TRL works without
activation checkpointing and without logging, which is as fast as it goes.

A step's time runs from one judging of answers to the next, in both: wall time and CPU time of the process, the latter also by part. Chunks of
steps alternate; quoted are medians over all steps, their ratio, and the lowest and highest ratio of a pair of chunks.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import torch

import outlay
from outlay.context import Context
from outlay.knob import Knob
from outlay.models import Loaded, Transformer
from outlay.objectives import Grpo
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.prompts import FilePrompts
from outlay.rewards.base import Answer, Verdict, passed
from outlay.rng import numpy_generator
from outlay.rollout import Local
from outlay.rollout.local import LocalGenerator
from outlay.sources import Rollouts
from outlay.train.recipe import Checkpoints, Recipe, Stage

PROMPTS, SAMPLES, PROMPT_LENGTH, LIMIT = 8, 8, 16, 64
#: too small to change how long answers are, and all the work of an update all the same
LEARNING_RATE = 1e-9
#: logit of the end mark; those of the other tokens lie around 0, so that an answer ends with probability 1/16 a token, or never
END_LOGIT = {"full": -60.0, "early": 1.88}
BARS = {"full": 2.0, "early": 4.0}


# ---- what both share ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Biased:
    """A Llama of about 1M parameters whose end mark has the same logit, up to the noise of its fresh weights, at every position."""

    end_logit: float

    def build(self, seed: int) -> Loaded:
        """Return the model with weights from the seed."""
        loaded = Transformer(hidden=128, layers=5, heads=4, context=128, tie_embeddings=False).build(seed)
        model = cast(Any, loaded.module)
        with torch.no_grad():
            model.model.embed_tokens.weight[:, 0] = 1.0
            model.lm_head.weight[:, 0] = 0.0
            model.lm_head.weight[loaded.tokenizer.eos_token_id] = 0.0
            hidden = model.model(input_ids=torch.arange(4, 84)[None]).last_hidden_state
            model.lm_head.weight[loaded.tokenizer.eos_token_id, 0] = self.end_logit / hidden[..., 0].mean()
        return loaded


def worth(text: str) -> float:
    """Return a number in [0, 1) that differs from text to text: no group is silent."""
    return zlib.crc32(text.encode()) / 2**32


def questions(count: int) -> list[str]:
    """Return prompts of 16 letters, a token each."""
    letters = numpy_generator(0, "bench/grpo_speed").integers(97, 123, (count, PROMPT_LENGTH))
    return ["".join(map(chr, row)) for row in letters]


@dataclass
class Clock:
    """What steps took: the wall and CPU time at each judging, and CPU seconds by part."""

    marks: list[tuple[float, float]] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=lambda: {"generation": 0.0, "loss": 0.0})
    lengths: list[int] = field(default_factory=list)
    at: list[dict[str, float]] = field(default_factory=list)

    def judged(self, lengths: Sequence[int]) -> None:
        """Note that a step's answers are judged."""
        self.marks.append((time.perf_counter(), time.process_time()))
        self.at.append(dict(self.parts))
        self.lengths += lengths

    def steps(self) -> list[dict[str, float]]:
        """Return wall, CPU and the parts of each whole step but the first, in which buffers and moments are made."""
        found = []
        for (one, other), (before, after) in zip(list(pairwise(self.marks))[1:], list(pairwise(self.at))[1:], strict=True):
            parts = {name: after[name] - before[name] for name in after}
            wall, cpu = other[0] - one[0], other[1] - one[1]
            found.append({"wall": wall, "cpu": cpu, **parts, "rest": cpu - sum(parts.values())})
        return found


@contextmanager
def timed(clock: Clock, *methods: tuple[Any, str, str]) -> Iterator[None]:
    """Add the CPU time of methods (class, name, part) to the clock's parts meanwhile."""
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in methods]

    def counting(real: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return real(*arguments, **named)
            finally:
                clock.parts[part] += time.process_time() - began

        return call

    for owner, name, part in methods:
        setattr(owner, name, counting(getattr(owner, name), part))
    try:
        yield
    finally:
        for owner, name, real in kept:
            setattr(owner, name, real)


# ---- outlay -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Worth:
    """The reward, and its own judge."""

    clock: Clock
    bounds: tuple[float, float] = (0.0, 1.0)

    def open(self, context: Context) -> Worth:
        """Nothing is needed."""
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Judge a generation and note the time."""
        verdicts = [passed(worth(answer.text)) for answer in answers]
        self.clock.judged([answer.tokens for answer in answers])
        return verdicts


def by_outlay(case: str, steps: int, fast: bool = True) -> Clock:
    """Run a stage of rollouts with GRPO."""
    from accelerate import Accelerator

    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "prompts.jsonl")
        path.write_text("\n".join(json.dumps({"prompt": text}) for text in questions(PROMPTS * steps)), encoding="utf-8")
        source = Rollouts(FilePrompts(path), {"worth": Worth(clock)}, samples=SAMPLES, new_tokens=LIMIT, engine=Local(fast=fast))
        stage = Stage(source, objective=Grpo(kl=0.0), batch_size=PROMPTS * SAMPLES, knobs={"lr": Knob(LEARNING_RATE), "clip": Knob(1.0)})
        recipe = Recipe(
            cast(Any, f"{steps} steps"), Biased(END_LOGIT[case]), (stage,), checkpoints=Checkpoints(every_steps=10**9), threads=1
        )
        parts = (LocalGenerator, "generate", "generation"), (PolicyGradient, "__call__", "loss"), (Accelerator, "backward", "loss")
        with timed(clock, *parts):
            outlay.run(recipe, Path(scratch, "run"))
    return clock


# ---- TRL ----------------------------------------------------------------------------------------------------------------------------


def by_trl(case: str, steps: int) -> Clock:
    """Run TRL's trainer, as fast as its ordinary settings go."""
    from accelerate import Accelerator
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    clock = Clock()
    loaded = Biased(END_LOGIT[case]).build(0)
    loaded.tokenizer.padding_side = "left"

    def reward(completions: Sequence[str], completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        values = [worth(text) for text in completions]
        clock.judged([len(ids) for ids in completion_ids])
        return values

    with tempfile.TemporaryDirectory() as scratch:
        settings = GRPOConfig(
            output_dir=scratch, use_cpu=True, bf16=False, report_to=[], disable_tqdm=True, logging_strategy="no", save_strategy="no",
            activation_checkpointing=False, max_steps=steps, per_device_train_batch_size=PROMPTS * SAMPLES, num_generations=SAMPLES,
            max_completion_length=LIMIT, learning_rate=LEARNING_RATE, lr_scheduler_type="constant", loss_type="grpo", beta=0.0,
            adam_beta2=0.95, dataloader_pin_memory=False,
        )  # fmt: skip
        data = Dataset.from_dict({"prompt": questions(PROMPTS * steps)})
        trainer = GRPOTrainer(
            cast(Any, loaded.module), cast(Any, reward), args=settings, train_dataset=data, processing_class=loaded.tokenizer
        )
        trainer.remove_callback(PrinterCallback)
        parts = (
            (GRPOTrainer, "_generate", "generation"),
            (GRPOTrainer, "compute_loss", "loss"),
            (Accelerator, "backward", "loss"),
        )
        with timed(clock, *parts):
            trainer.train()
    return clock


# ---- comparing ----------------------------------------------------------------------------------------------------------------------


def compared(case: str, repeats: int, steps: int, fast: bool) -> bool:
    """Time both in turns, print what was seen, and return whether the bar is met."""
    ways: dict[str, Callable[[], Clock]] = {"outlay": lambda: by_outlay(case, steps, fast), "TRL": lambda: by_trl(case, steps)}
    seen: dict[str, list[Clock]] = {name: [] for name in ways}
    for repeat in range(repeats):
        for name in list(ways)[:: 1 if repeat % 2 else -1]:
            seen[name].append(ways[name]())
    walls = {name: [[step["wall"] for step in clock.steps()] for clock in clocks] for name, clocks in seen.items()}
    middles = {}
    for name, clocks in seen.items():
        taken = [step for clock in clocks for step in clock.steps()]
        middle = {part: statistics.median(step[part] for step in taken) for part in taken[0]}
        middles[name] = middle
        lengths = [length for clock in clocks for length in clock.lengths]
        print(
            f"{case}: {name}: {middle['wall'] * 1e3:.0f} ms a step, {1 / middle['wall']:.2f} steps/s; CPU time {middle['cpu'] * 1e3:.0f} ms: "
            f"generation {middle['generation'] * 1e3:.0f}, loss forward and backward {middle['loss'] * 1e3:.0f}, rest "
            f"{middle['rest'] * 1e3:.0f} ms; {len(taken)} steps, answers of {statistics.mean(lengths):.1f} tokens"
        )
    ratio = middles["TRL"]["wall"] / middles["outlay"]["wall"]
    cpu = middles["TRL"]["cpu"] / middles["outlay"]["cpu"]
    pairs = [statistics.median(theirs) / statistics.median(ours) for ours, theirs in zip(walls["outlay"], walls["TRL"], strict=True)]
    print(
        f"{case}: outlay makes {ratio:.2f} times the steps a second (pairs of chunks {min(pairs):.2f} to {max(pairs):.2f}; by CPU time {cpu:.2f}); "
        f"bar {BARS[case]:g}, {'met' if ratio >= BARS[case] else 'MISSED'}",
        flush=True,
    )
    return ratio >= BARS[case]


def main() -> int:
    """Compare the cases asked for; the exit status is 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="of a chunk, at least 3; the first is not counted")
    parser.add_argument("--case", choices=list(BARS))
    parser.add_argument("--plain", action="store_true", help="generate through the model's own forward")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    met = [compared(case, asked.repeats, asked.steps, not asked.plain) for case in ([asked.case] if asked.case else BARS)]
    return int(not all(met))


if __name__ == "__main__":
    sys.exit(main())
