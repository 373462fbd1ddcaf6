"""Overhead: the loop, meter and journal against the same training written by hand in plain torch, at about 3M parameters.

    python bench/overhead.py [--pairs 7] [--steps 12]

Both train the same Llama on the same batches with fused AdamW, clipping and the same schedule; the pairs alternate which comes first. Quoted is
the median over pairs of (outlay's median step / the hand-written loop's), from the end of one step to the end of the next; the final losses must agree.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from settings import language_model
from torch.nn import functional

import outlay
from outlay.context import Context

LENGTH, BATCH = 128, 16
#: share of a step that the accounts record and idle take, by run: what the loop does beside reading and training
OWN: list[float] = []


def recipe(steps: int) -> outlay.Recipe:
    """Return the recipe at about 3M parameters, without evaluations and with no checkpoint on the way."""
    return language_model(
        f"{steps} steps", hidden=192, layers=6, length=LENGTH, batch_size=BATCH, evaluate={}, checkpoints={"every_steps": 10**9}
    )


def middle_step(ends: list[float]) -> float:
    """Return the median seconds between the ends of neighbouring steps."""
    return statistics.median(later - earlier for earlier, later in pairwise(ends))


def by_hand(steps: int) -> tuple[float, float]:
    """Train in plain torch; return the median step and the last loss."""
    made = recipe(steps)
    loaded = made.model.build(made.seed)
    stage = made.stages[0]
    stream = stage.source.open(Context(made.seed, loaded.tokenizer))
    model, schedule = loaded.module.train(), stage.knobs["lr"]
    matrices, vectors = [p for p in model.parameters() if p.dim() >= 2], [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": matrices}, {"params": vectors}], betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    ends = []
    for step in range(steps):
        batch = stream.draw(BATCH)
        stream.advance(BATCH)
        for group in optimizer.param_groups:
            group["lr"] = schedule.value(step / steps)
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), batch["labels"][:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        last = loss.item()
        ends.append(time.perf_counter())
    return middle_step(ends), last


def by_outlay(steps: int) -> tuple[float, float]:
    """Train with outlay; return the median step by its journal and the last loss."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "run")
        outlay.run(recipe(steps), folder)
        lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    taken = [line for line in lines if line["kind"] == "step"]
    own = [sum(line["charged"].get(account, {}).get("seconds", 0.0) for account in ("record", "idle")) for line in taken]
    OWN.append(statistics.median(own) / middle_step([line["at"] for line in taken]))
    return middle_step([line["at"] for line in taken]), taken[-1]["loss"]


def main() -> int:
    """Time the pairs; the exit status is 1 when the median overhead is over 2 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=12)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    ratios = []
    for pair in range(asked.pairs):
        order = (by_hand, by_outlay) if pair % 2 else (by_outlay, by_hand)
        timed = {way.__name__: way(asked.steps) for way in order}
        (hand, hand_loss), (ours, our_loss) = timed["by_hand"], timed["by_outlay"]
        ratios.append(ours / hand)
        print(
            f"pair {pair}: by hand {hand * 1e3:.1f} ms a step, outlay {ours * 1e3:.1f} ms, ratio {ours / hand:.4f}; "
            f"last losses {hand_loss:.6f} {our_loss:.6f}",
            flush=True,
        )
    middle = statistics.median(ratios)
    print(f"median ratio {middle:.4f} over {asked.pairs} pairs: overhead {middle - 1:+.2%} ({'within' if middle <= 1.02 else 'OVER'} 2 %)")
    print(f"journal, meter, controllers and display take {statistics.median(OWN):.3%} of a step by the run's own books (median)")
    return int(middle > 1.02)


if __name__ == "__main__":
    sys.exit(main())
