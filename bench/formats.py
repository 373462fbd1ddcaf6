"""Number formats: what they cost, hold and lose, as the two tables of docs/low-precision.md.

    python bench/formats.py

The first table follows from the formats alone. For the second a model is trained on the digits for some seconds on one thread; it needs scikit-learn.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from outlay.formats import NAMED, Dynamic8, Format, table
from outlay.formats.listing import bits_of
from outlay.models import Mlp
from outlay.rng import torch_generator

STEPS = 400


def held() -> list[str]:
    """Return the table of bits, range and step."""
    lines = ["| format | bits an element | largest | least above 0 | step |", "|---|---|---|---|---|"]
    for row in table():
        step = "all" if math.isinf(row.step) else f"{row.step:.3g}"
        lines.append(f"| {row.name} | {row.bits:.4g} | {row.largest:.4g} | {row.smallest:.2g} | {step} |")
    return lines


def trained() -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Return weights, first moments and second moments of the matrices of a model trained on the digits."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
    module = Mlp(inputs=64, classes=10, hidden=(256, 256)).build(0).module
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.01)
    for step in range(STEPS):
        rows = torch.randint(len(x), (128,), generator=torch_generator(0, "bench/formats", step))
        optimizer.zero_grad()
        functional.cross_entropy(module(x[rows]), y[rows]).backward()
        optimizer.step()
    matrices = [p for p in module.parameters() if p.dim() == 2]
    moments = [[optimizer.state[p][name] for p in matrices] for name in ("exp_avg", "exp_avg_sq")]
    return [p.detach() for p in matrices], moments[0], moments[1]


def through(form: Format, x: torch.Tensor) -> torch.Tensor:
    """Return a tensor written and read back, rounded to nearest."""
    return form.decode(form.encode(x), tuple(x.shape))


def lost(form: Format, tensors: list[torch.Tensor]) -> float:
    """Return the root mean square error over the root mean square."""
    error = sum(float((through(form, x) - x).double().square().sum()) for x in tensors)
    return math.sqrt(error / sum(float(x.double().square().sum()) for x in tensors))


def zeroed(form: Format, tensors: list[torch.Tensor]) -> float:
    """Return the share of numbers above 0 that became 0."""
    pairs = [(through(form, x)[x > 0] == 0) for x in tensors]
    return float(torch.cat(pairs).float().mean())


def percent(share: float) -> str:
    """Return a share in percent with two digits."""
    return f"{100 * share:.0f} %" if share > 0.0995 else f"{100 * share:.2g} %"


def losses() -> list[str]:
    """Return the table of errors."""
    normal = [torch.randn(1024, 1024, generator=torch_generator(0, "bench/formats/normal"))]
    weights, first, second = trained()
    head = "| format | bits | normal numbers | weights | first moments | second moments | of those lost |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for name, form in NAMED.items():
        unsigned = isinstance(form, Dynamic8) and not form.signed
        signed = ["" if unsigned else percent(lost(form, x)) for x in (normal, weights, first)]
        cells = [*signed, percent(lost(form, second)), percent(zeroed(form, second))]
        lines.append(f"| {name} | {bits_of(form, (1024, 1024)):.4g} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    print("\n".join(held()), end="\n\n")
    print("\n".join(losses()))


if __name__ == "__main__":
    main()
