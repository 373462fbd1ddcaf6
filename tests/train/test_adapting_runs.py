"""Whole runs: adapters that look at data first and act around updates, steps within the backward pass, steps by losses alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import digits, plain_stage
from test_mixture_runs import StopAt

from outlay import InputError
from outlay.train import resume, run
from outlay.train.journal import read_journal


def stage(optimizer: Any, knobs: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return plain_stage(optimizer=optimizer, knobs=knobs or {"lr": {"peak": 0.003}}, **changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")


def test_steps_within_the_backward_pass_end_at_the_same_weights(tmp_path: Path) -> None:
    run(digits(stages=[stage("adamw")]), tmp_path / "plain")
    run(digits(stages=[stage({"per_layer": {"optimizer": "adamw"}})]), tmp_path / "layered")
    one, other = weights(tmp_path / "plain"), weights(tmp_path / "layered")
    assert all(torch.equal(one[name], other[name]) for name in one)
    norms = [[line["gradient_norm"] for line in read_journal(tmp_path / name) if line["kind"] == "step"] for name in ("plain", "layered")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_they_refuse_what_they_cannot_do() -> None:
    with pytest.raises(InputError, match="PerLayer never holds the whole gradient, so its norm cannot be clipped"):
        digits(stages=[stage("per_layer", {"lr": 0.003, "clip": 1.0})])
    with pytest.raises(InputError, match="so descent_alignment cannot be measured"):
        digits(stages=[stage("per_layer", measure=["descent_alignment"])])
    with pytest.raises(InputError, match="needs the batch of 32 in one piece, and it is cut into pieces of 8"):
        run(digits(stages=[stage("per_layer")], micro_batch=8))


def test_steps_by_losses_alone_learn_and_are_charged_by_forward_passes(tmp_path: Path) -> None:
    optimizer = {"zeroth_order": {"directions": 4}}
    changes: dict[str, Any] = {"budget": "150 steps", "model": {"mlp": {"inputs": 64, "classes": 10, "hidden": [16], "dropout": 0.1}}}
    recipe = digits(stages=[stage(optimizer, {"lr": {"peak": 0.02}})], checkpoints={"every_steps": 50}, **changes)
    result = run(recipe, tmp_path / "run")
    steps = [line for line in read_journal(tmp_path / "run") if line["kind"] == "step"]
    losses = [line["loss"] for line in steps]
    assert sum(losses[-20:]) < 0.95 * sum(losses[:20])
    plain = run(digits(stages=[stage("adamw")], **changes), tmp_path / "plain")
    # products: 64 x 16 and 16 x 10 forward; backward twice as many, but none for the gradient of the inputs
    forward, both = 64 * 16 + 16 * 10, 2 * 64 * 16 + 3 * 16 * 10
    assert result.accounts["train"]["flops"] / plain.accounts["train"]["flops"] == pytest.approx(8 * forward / both)
    half = run(dataclasses.replace(recipe, name="again"), tmp_path / "again")
    assert half.spent["steps"] == 150
    one, other = weights(tmp_path / "run"), weights(tmp_path / "again")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "adapter",
    [
        {"lora": {"rank": 2, "dropout": 0.1}},
        {"adalora": {"rank": 2, "period": 3}},
        {"lora_xs": {"rank": 3}},
        {"lora_sb": {"rank": 3, "prime_examples": 10}},
        {"low_rank": {"rank": 4, "period": 20, "recovery": 5}},
        {"sparse_spectral": {"rank": 3, "period": 10, "warmup": 3}},
        {"sltrain": {"rank": 4}},
        {"sara": {"threshold": 0.05, "side": 8, "entries": 10}},
        {"dynamic_sparse": {"density": 0.3, "period": 10}},
        {"intrinsic": {"dimensions": 100}},
        {"safe_mask": {"rank": 4}},
        {"perp": {"sparsity": 0.5, "rank": 2}},
        {"structured": {"rank": 4, "targets": ["1"]}},
        "quantised",
    ],
)
def test_adapters_resume_bit_by_bit(adapter: Any, tmp_path: Path) -> None:
    recipe = digits(adapter=adapter, stages=[stage("adamw")])
    run(recipe, tmp_path / "whole")
    stopped = run(recipe, tmp_path / "cut", display=StopAt(37))
    assert (stopped.ended_by, stopped.steps) == ("signal", 37)
    assert resume(tmp_path / "cut").steps == 60
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_graft_resumes_bit_by_bit(tmp_path: Path) -> None:
    tuned = run(digits(), tmp_path / "tuned").steps
    assert tuned == 60
    recipe = digits(
        seed=1, adapter={"grafting": {"tuned": str(tmp_path / "tuned" / "model"), "share": 0.05}}, stages=[stage("adamw", {"lr": 0.001})]
    )
    run(recipe, tmp_path / "whole")
    stopped = run(recipe, tmp_path / "cut", display=StopAt(37))
    assert (stopped.ended_by, stopped.steps) == ("signal", 37)
    resume(tmp_path / "cut")
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    # every entry is one model's or the other's, and training has taken more than the share
    theirs, base = weights(tmp_path / "tuned"), recipe.model.build(recipe.seed).module.state_dict()
    taken = {name: one[name] != base[name] for name in one}
    assert all(torch.equal(one[name], torch.where(taken[name], theirs[name], base[name])) for name in one)
    assert sum(int(mask.sum()) for mask in taken.values()) != round(0.05 * sum(mask.numel() for mask in taken.values()))


def test_what_an_adapter_looks_at_is_charged(tmp_path: Path) -> None:
    recipe = digits(adapter={"lora_sb": {"rank": 3, "prime_examples": 40}}, stages=[stage("adamw")])
    result = run(recipe, tmp_path / "run")
    assert result.accounts["adapter"]["examples"] == 40
    assert result.accounts["adapter"]["flops"] > 0 and result.accounts["train"]["examples"] == 60 * 32
    with pytest.raises(
        InputError, match=r"LoraSb looks at 40 examples before the first update, which takes 40 examples of 30 examples left"
    ):
        run(dataclasses.replace(recipe, budget="30 examples"), tmp_path / "poor")  # type: ignore[arg-type]


def test_adapters_that_act_on_gradients_do_not_go_with_optimizers_that_keep_none() -> None:
    with pytest.raises(InputError, match="AdaLora acts on gradients after each update"):
        digits(adapter="adalora", stages=[stage("per_layer")])
