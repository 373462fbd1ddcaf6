"""Generation: tokens a CPU-second of the local engine against transformers' ``generate`` with its cache, a Llama of about 1M parameters.

    python bench/generation.py [--repeats 7] [--plain]

One thread, batch 64, sampled at temperature 1, two cases: 64 different prompts of 16 tokens that all go on for 64 new tokens; and 8 prompts of 128
tokens with 8 samples each, where the end mark comes after 16 tokens on average and 64 is the limit. Both write in turn in one process;
quoted is the ratio of the median rates, and between which bounds the ratio of a single pair lay. Counted are tokens up to the end mark, and the
process's own seconds. ``--plain`` times the engine's readable passes beside the fused ones.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from transformers import GenerationConfig

from outlay import rng
from outlay.context import Context
from outlay.models import Transformer
from outlay.models.base import seeded
from outlay.rollout import Local, Request, Sampling

NEW, BATCH = 64, 64


@dataclass(frozen=True)
class Case:
    """What is generated: prompts (n, length), how many samples of each, and whether the end mark ends an answer."""

    name: str
    prompts: torch.Tensor
    samples: int
    ends: bool
    goal: float


def model(seed: int) -> Any:
    """Return a Llama of about 1M parameters that writes its end mark one time in 16, whatever it has read."""
    loaded = Transformer(hidden=128, layers=5, heads=4, context=256, tie_embeddings=False).build(seed)
    made: Any = loaded.module.eval()
    with torch.no_grad():
        # one coordinate is nearly the same for every token, and the end mark alone listens to it
        made.model.embed_tokens.weight[:, 0] = 0.2
        made.lm_head.weight[:, 0] = 0.0
        made.lm_head.weight[loaded.tokenizer.eos_token_id] = 0.0
        made.lm_head.weight[loaded.tokenizer.eos_token_id, 0] = 0.39
    return made, loaded.tokenizer


def by_transformers(made: Any, end: int | None, case: Case, turn: int) -> int:
    """Generate as transformers does and return how many tokens were written."""
    settings = GenerationConfig(
        max_new_tokens=NEW, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, use_cache=True, num_return_sequences=case.samples,
        eos_token_id=end, pad_token_id=0,
    )  # fmt: skip
    made.generation_config.eos_token_id = end  # where the settings say None, generate looks here
    with seeded(turn, "bench/generation"):
        whole = made.generate(input_ids=case.prompts, attention_mask=torch.ones_like(case.prompts), generation_config=settings)
    new = whole[:, case.prompts.shape[1] :]
    return new.numel() if end is None else int(((new == end).cumsum(1) - (new == end).long() == 0).sum())


def by_outlay(made: Any, end: int | None, case: Case, fast: bool) -> Callable[[int], int]:
    """Return a function that generates with the local engine and returns how many tokens were written."""
    generator = Local(slots=BATCH, fast=fast).open(made, Context(0, SimpleNamespace(eos_token_id=end)))
    requests = [Request(tuple(prompt), case.samples, NEW, stream) for stream, prompt in enumerate(case.prompts.tolist())]

    def write(turn: int) -> int:
        done = generator.generate(requests, Sampling(), seed=turn, leave=lambda work: True)
        return sum(len(completion.tokens) for completion in done)

    return write


def rate(write: Callable[[int], int], turn: int) -> tuple[float, int]:
    """Return tokens a CPU-second and tokens."""
    before = time.process_time()
    tokens = write(turn)
    return tokens / (time.process_time() - before), tokens


def main() -> int:
    """Time the cases; the exit status is 1 when one of them misses its goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--plain", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    made, tokenizer = model(0)
    draw = rng.torch_generator(0, "bench/generation")
    cases = [
        Case("16-token prompts, no early end", torch.randint(4, len(tokenizer), (BATCH, 16), generator=draw), 1, False, 1.8),
        Case("128-token prompts x 8 samples, early ends", torch.randint(4, len(tokenizer), (8, 128), generator=draw), 8, True, 3.0),
    ]
    print(f"{sum(p.numel() for p in made.parameters()):,} parameters, torch {torch.__version__}, one thread; tokens a CPU-second")
    missed = False
    for case in cases:
        end = tokenizer.eos_token_id if case.ends else None
        ways: dict[str, Callable[[int], int]] = {"generate": lambda turn, c=case, e=end: by_transformers(made, e, c, turn)}
        ways["local"] = by_outlay(made, end, case, True)
        if asked.plain:
            ways["local, fast=False"] = by_outlay(made, end, case, False)
        for write in ways.values():
            write(0)  # warm up
        found: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
        for turn in range(1, asked.repeats + 1):
            for name in list(ways) if turn % 2 else list(reversed(ways)):
                found[name].append(rate(ways[name], turn))
        middle = {name: statistics.median(each for each, _ in rates) for name, rates in found.items()}
        print(f"\n{case.name}")
        for name, rates in found.items():
            pairs = sorted(one / base for (one, _), (base, _) in zip(rates, found["generate"], strict=True))
            tokens = statistics.mean(count for _, count in rates) / BATCH
            print(
                f"  {name:<18} {middle[name]:>8,.0f}  x {middle[name] / middle['generate']:.2f} "
                f"(pairs {pairs[0]:.2f} to {pairs[-1]:.2f}), {tokens:.1f} tokens an answer",
                flush=True,
            )
        reached = middle["local"] / middle["generate"]
        missed = missed or reached < case.goal
        print(f"  {'reaches' if reached >= case.goal else 'MISSES'} x {case.goal}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
