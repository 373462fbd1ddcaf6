"""Bytes of optimizer state for the Llamas that the papers trained, as planned, and measured after real steps.

    python bench/optimizer_bytes.py [--measure 60M]

The table needs no memory: shapes alone. With ``--measure`` the model of that size is made in bfloat16, every optimizer takes a step on random gradients,
and the bytes that it then holds are compared with those that were stated.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from outlay.formats import Bf16, Dynamic8
from outlay.optim import (
    Adafactor,
    AdamW,
    AdamW8bit,
    Apollo,
    ApolloMini,
    DctAdamW,
    Fira,
    Frugal,
    GaLore,
    Lamb,
    Lion,
    NaturalGaLore,
    OptimizerSpec,
    Sgd,
    SignSgd,
)
from outlay.projectors import Columns


@dataclass(frozen=True)
class Size:
    """A Llama of the papers: width, blocks, heads, inner width, and the rank that GaLore took."""

    hidden: int
    layers: int
    heads: int
    inner: int
    rank: int


#: vocabulary 32,000; output layer not tied
SIZES = {
    "60M": Size(512, 8, 8, 1376, 128), "350M": Size(1024, 24, 16, 2736, 256), "1B": Size(2048, 24, 32, 5461, 512),
    "7B": Size(4096, 32, 32, 11008, 1024),
}  # fmt: skip
#: (weights + states of the method, of full-rank Adam) in GB, bf16, as GaLore's paper prints them (arXiv 2403.03507, table 2)
PRINTED = {("galore", "60M"): (0.24, 0.36), ("galore", "350M"): (1.22, 2.06), ("galore", "1B"): (4.38, 7.80)}


def specs(size: Size) -> dict[str, OptimizerSpec]:
    """Return the optimizers with the papers' settings for a size."""
    rank = size.rank
    return {
        "adamw": AdamW(), "adamw_8bit": AdamW8bit(), "adafactor": Adafactor(), "lion": Lion(), "lamb": Lamb(), "sgd": Sgd(),
        "signsgd": SignSgd(), "galore": GaLore(rank), "galore, 8-bit": GaLore(rank, states=Dynamic8()), "galore, bf16": GaLore(rank, states=Bf16()),
        "natural_galore": NaturalGaLore(rank), "fira": Fira(rank), "apollo": Apollo(size.hidden // 4), "apollo_mini": ApolloMini(),
        "frugal 1/4": Frugal(0.25), "frugal 1/4, columns": Frugal(projector=Columns(0.25)), "frugal 0": Frugal(0.0), "dct_adamw": DctAdamW(rank),
    }  # fmt: skip


def model(size: Size, device: str) -> nn.Module:
    """Return the model in bfloat16."""
    config = LlamaConfig(
        vocab_size=32_000, hidden_size=size.hidden, num_hidden_layers=size.layers, num_attention_heads=size.heads,
        num_key_value_heads=size.heads, intermediate_size=size.inner, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device(device):
        made: nn.Module = LlamaForCausalLM(config).to(torch.bfloat16)
    return made


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the parameters' shapes by name."""
    return {name: tuple(p.shape) for name, p in module.named_parameters()}


def held(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes that an optimizer holds, shared tables included."""
    state = [value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, torch.Tensor)]
    tables: Mapping[str, torch.Tensor] = getattr(optimizer, "tables", {})
    return sum(max(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()) for tensor in [*state, *tables.values()])


def table() -> str:
    """Return the stated bytes as Markdown."""
    rows = ["| optimizer | " + " | ".join(f"{name}: state, share of AdamW's" for name in SIZES) + " | weights and state at 1B, share |"]
    rows.append("|---|" + "---|" * (len(SIZES) + 1))
    known = {name: shapes_of(model(size, "meta")) for name, size in SIZES.items()}
    weights = {name: 2 * sum(torch.Size(shape).numel() for shape in shapes.values()) for name, shapes in known.items()}
    full = {name: AdamW().state_bytes(known[name], 2) for name in SIZES}
    for method in specs(SIZES["60M"]):
        cells = []
        for name, size in SIZES.items():
            state = specs(size)[method].state_bytes(known[name], 2)
            cells.append(f"{state / 1e9:.3f} GB, {state / full[name]:.3f}")
        whole = (weights["1B"] + specs(SIZES["1B"])[method].state_bytes(known["1B"], 2)) / (weights["1B"] + full["1B"])
        rows.append(f"| {method} | " + " | ".join(cells) + f" | {whole:.3f} |")
    lines = []
    for (method, name), (mine, theirs) in PRINTED.items():
        state = specs(SIZES[name])[method].state_bytes(known[name], 2)
        ours, whole = (weights[name] + state) / 1e9, (weights[name] + full[name]) / 1e9
        sums = f"{ours:.2f} of {whole:.2f} GB, {ours / whole:.2f}; printed {mine} of {theirs} GB, {mine / theirs:.2f}"
        lines.append(f"- {method} at {name}: weights and states {sums}")
    return "\n".join(rows) + "\n\n" + "\n".join(lines) + "\n"


def measure(name: str) -> str:
    """Return what every optimizer holds after a step at a size, against what it stated."""
    size, lines = SIZES[name], []
    for method, spec in specs(size).items():
        module = model(size, "cpu")
        draw = torch.Generator().manual_seed(0)
        for parameter in module.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=draw).to(parameter.dtype)
        optimizer = spec.build(list(module.named_parameters()))
        optimizer.step()
        found, stated = held(optimizer), spec.state_bytes(shapes_of(module), 2)
        rounds = isinstance(spec, Frugal) and found < stated
        said = "equal" if found == stated else "below the most of its rounds, which is stated" if rounds else "NOT EQUAL"
        lines.append(f"- {method}: measured {found:,}, stated {stated:,}: {said}")
        print(lines[-1], flush=True)
        del module, optimizer
        gc.collect()
    return "\n".join(lines)


def main() -> None:
    """Print the table, and measure where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", choices=sorted(SIZES))
    told = parser.parse_args()
    print(table())
    if told.measure:
        measure(told.measure)


if __name__ == "__main__":
    main()
