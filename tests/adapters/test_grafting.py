"""Grafting: the mask it starts from, what gamma is, and how much of a fine-tune the entries that moved furthest carry."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from outlay.adapters import Grafting
from outlay.adapters.grafting import Graft, top_movement
from outlay.errors import InputError
from outlay.models import Transformer
from outlay.models.base import save_plain
from outlay.testing import check_adapter

SPEC = Transformer(hidden=16, layers=2, heads=2, feed_forward=24, context=32)
IDS = torch.randint(4, 99, (4, 8), generator=torch.Generator().manual_seed(0))


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def perceptron(*widths: int, seed: int = 0) -> Any:
    parts: list[nn.Module] = []
    for number in range(len(widths) - 1):
        layer = nn.utils.skip_init(nn.Linear, widths[number], widths[number + 1])
        layer.weight.data = numbers(widths[number + 1], widths[number], seed=10 * seed + number) / widths[number] ** 0.5
        layer.bias.data = numbers(widths[number + 1], seed=10 * seed + number + 5) / 10
        parts += [layer, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def moved(module: Any, seed: int = 7) -> Any:
    """The module with everything moved a little."""
    module = copy.deepcopy(module)
    for number, p in enumerate(module.parameters()):
        p.data += 0.3 * numbers(*p.shape, seed=seed + number)
    return module


def written(module: nn.Module, path: Path) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in module.state_dict().items()}, path)
    return path


def grafts(module: Any) -> list[Graft]:
    return [part for part in module.modules() if isinstance(part, Graft)]


# ---- the mask and gamma ----------------------------------------------------------------------------------------------------------------


def test_the_mask_is_the_share_that_moved_furthest_of_all_tensors_together() -> None:
    moves = {"a": torch.tensor([[0.1, -5.0], [2.0, 0.0]]), "b": torch.tensor([-3.0, 1.0])}
    masks = top_movement(moves, 0.5)
    assert masks["a"].tolist() == [[False, True], [True, False]] and masks["b"].tolist() == [True, False]
    assert sum(int(mask.sum()) for mask in top_movement({"a": numbers(100, 30)}, 0.01).values()) == 30
    # one at least, and no more than asked for among equal ones
    assert top_movement({"a": torch.ones(4)}, 0.01)["a"].tolist() == [True, False, False, False]


def test_all_and_the_few_by_the_formula(tmp_path: Path) -> None:
    """In evaluation all of the share gives the tuned model bit by bit, and a share of it those entries alone."""
    base = perceptron(6, 8, 3)
    tuned = moved(base)
    path = written(tuned, tmp_path / "tuned.safetensors")
    x = numbers(5, 6, seed=3)
    whole = Grafting(path, share=1.0).attach(copy.deepcopy(base), seed=0).eval()
    assert torch.equal(whole(x), tuned(x))
    spec = Grafting(path, share=0.1)
    merged = spec.merge(spec.attach(copy.deepcopy(base), seed=0))
    before, after = dict(base.named_parameters()), dict(tuned.named_parameters())
    taken = {name: p == after[name] for name, p in merged.named_parameters()}
    assert all(torch.equal(torch.where(taken[name], after[name], before[name]), p) for name, p in merged.named_parameters())
    distances = torch.cat([(after[name] - before[name]).abs().flatten() for name in before])
    chosen = torch.cat([taken[name].flatten() for name in before])
    assert chosen.sum() == round(0.1 * len(distances)) and distances[chosen].min() > distances[~chosen].max()
    # with everything flipped it is the model that it was put on
    flipped: Any = Grafting(path, share=1.0).attach(copy.deepcopy(base), seed=0)
    for graft in grafts(flipped):
        graft.x.data.fill_(20 / graft.stretch)
    assert torch.equal(flipped.eval()(x), base(x))


def test_gamma_by_the_formula(tmp_path: Path) -> None:
    base = perceptron(6, 8)
    spec = Grafting(written(moved(base), tmp_path / "tuned.safetensors"), share=0.25, bias=4.0, stretch=50.0)
    adapted: Any = spec.attach(base, seed=0)
    graft = adapted[0].parametrizations.weight[0]
    s = 50 * graft.x.detach()
    assert 0 <= float(s.min()) < 0.1 and 0.9 < float(s.max()) <= 1  # U(0, 1)
    graft.x.data = numbers(8, 6) * 5 / 50
    b, s = graft.mask.float(), 50 * graft.x
    gamma = b + (1 - 2 * b) * torch.sigmoid(s - 4)
    w = adapted[0].parametrizations.weight.original
    assert torch.allclose(adapted.train()[0].weight, w + gamma * (graft.tuned - w))
    assert torch.equal(adapted.eval()[0].weight, torch.where(gamma > 0.5, graft.tuned, w))


def test_the_start_rounds_to_the_mask(tmp_path: Path) -> None:
    base = perceptron(6, 8, 3)
    adapted = Grafting(written(moved(base), tmp_path / "tuned.safetensors"), share=0.3).attach(base, seed=0)
    for graft in grafts(adapted):
        assert torch.equal(graft.gamma().round().bool(), graft.mask)
        assert torch.allclose(graft.gamma(), graft.mask.float(), rtol=0, atol=1.3e-4)


def test_stretch_is_the_learning_rate_of_gradient_descent(tmp_path: Path) -> None:
    """A rate of 10 with a stretch of 1000 is the paper's 1e7."""
    base = perceptron(6, 8, 3)
    path = written(moved(base), tmp_path / "tuned.safetensors")
    x, y = numbers(9, 6, seed=1), numbers(9, 3, seed=2)
    masks = []
    for stretch, rate in ((1.0, 1e4), (1000.0, 0.01)):
        adapted: Any = Grafting(path, share=0.3, stretch=stretch).attach(copy.deepcopy(base), seed=0)
        optimizer = torch.optim.SGD([graft.x for graft in grafts(adapted)], lr=rate)
        for _ in range(5):
            (adapted(x) - y).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        masks.append([(stretch * graft.x).detach() for graft in grafts(adapted)])
    for one, other in zip(*masks, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)
    assert max(float(s.max()) for s in masks[0]) > 1.01  # and it moved


# ---- files -----------------------------------------------------------------------------------------------------------------------------


def test_a_folder_and_both_kinds_of_files_are_read(tmp_path: Path) -> None:
    base: Any = SPEC.build(0).module
    tuned: Any = moved(base)
    save_plain(tuned, tmp_path / "folder")
    torch.save(tuned.state_dict(), tmp_path / "tuned.pt")
    tuned.save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    kept = []
    for path in (tmp_path / "folder", tmp_path / "tuned.pt", tmp_path / "shards"):
        adapted = Grafting(path, share=0.1).attach(copy.deepcopy(base), seed=0)
        kept.append(torch.cat([graft.mask.flatten() for graft in grafts(adapted)]))
        # two blocks of nine matrices and vectors and the last norm: neither embeddings nor the output layer
        assert len(grafts(adapted)) == 19
    assert torch.equal(kept[0], kept[1]) and torch.equal(kept[0], kept[2])


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    base = perceptron(6, 8, 3)

    def refused(path: Path, message: str) -> None:
        with pytest.raises(InputError, match=message):
            Grafting(path).attach(copy.deepcopy(base), seed=0)

    refused(tmp_path / "nowhere", "is neither a file nor a folder with safetensors")
    refused(tmp_path, "is neither a file nor a folder with safetensors")
    refused(written(perceptron(6, 8), tmp_path / "short.safetensors"), r"lacks 2 of the model's tensors, such as 2\.weight")
    refused(written(perceptron(6, 9, 3), tmp_path / "wide.safetensors"), r"0\.weight is \(9, 6\) in .* and \(8, 6\) in the model")
    for name in ("broken.safetensors", "broken.pt"):
        (tmp_path / name).write_bytes(b"no weights")
        refused(tmp_path / name, "cannot be read as weights")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"share": 0.0}, r"share must lie in \(0, 1\], found 0"),
        ({"bias": 0.0}, "bias and stretch must be > 0, found 0"),
        ({"stretch": -1.0}, "bias and stretch must be > 0, found 10.0 and -1"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grafting(Path("x"), **fields)


# ---- what it is for --------------------------------------------------------------------------------------------------------------------


def fitted(module: Any, x: torch.Tensor, y: torch.Tensor, lr: float, steps: int, momentum: float = 0.9) -> Any:
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=lr, momentum=momentum)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(0, len(x), (128,), generator=draw)
        nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return module


def right(module: Any, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return float((module.eval()(x).argmax(1) == y).float().mean())


@functools.cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    data = pytest.importorskip("sklearn.datasets").load_digits()
    return torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)


def test_what_moved_furthest_carries_the_gain_and_training_finds_more(tmp_path: Path) -> None:
    """Digits shifted by a pixel: 42 % right before tuning and 97 % after. Of that gain a tenth of the entries that moved furthest keeps .87, a
    random tenth .08; a hundredth keeps .14, and .93 after 60 steps of the paper's gradient descent, which then takes a fifth of the entries."""
    x, y = digits()
    held = torch.arange(len(x)) % 3 == 0
    shifted = x.view(-1, 8, 8).roll(1, 2).reshape(-1, 64)
    base = fitted(perceptron(64, 64, 10), x[~held], y[~held], 0.1, 300)
    tuned = fitted(copy.deepcopy(base), shifted[~held], y[~held], 0.05, 200)
    path = written(tuned, tmp_path / "tuned.safetensors")
    low, high = (right(model, shifted[held], y[held]) for model in (base, tuned))

    def gain(model: Any) -> float:
        return (right(model, shifted[held], y[held]) - low) / (high - low)

    def chance(seed: int) -> Any:
        draw, model = torch.Generator().manual_seed(seed), copy.deepcopy(base)
        for p, other in zip(model.parameters(), tuned.parameters(), strict=True):
            p.data = torch.where(torch.rand(p.shape, generator=draw) < 0.1, other.data, p.data)
        return model

    assert high - low > 0.4
    assert gain(Grafting(path, share=0.1).attach(copy.deepcopy(base), seed=0)) > 0.75
    assert max(gain(chance(seed)) for seed in range(3)) < 0.25
    few: Any = Grafting(path, share=0.01).attach(copy.deepcopy(base), seed=0)
    at_first = gain(few)
    optimizer = torch.optim.SGD([graft.x for graft in grafts(few)], lr=10.0)
    few.train()
    for _ in range(60):
        nn.functional.cross_entropy(few(shifted[~held]), y[~held]).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert gain(few) > 0.8 > 0.3 > at_first


def test_contract(tmp_path: Path) -> None:
    def forward(module: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return out

    whole = written(moved(SPEC.build(0).module), tmp_path / "whole.safetensors")
    check_adapter(Grafting(whole, share=0.05), lambda: SPEC.build(0).module, IDS, forward, starts_there=False)
    small = written(moved(perceptron(6, 12, 3)), tmp_path / "small.safetensors")
    spec = Grafting(small, share=0.2, stretch=1.0)
    check_adapter(spec, lambda: perceptron(6, 12, 3), numbers(8, 6), lambda module, x: module(x), starts_there=False)
